/**
 * Random schedules on two pretended bridges: frames, cuts at any time, bridges that read late and forward by a stale cache.
 * The checker knows every frame by a number, and when its sender and its receiver were cut.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FrameQueue } from '../../protocols/epoch/channel-queue.ts'
import { OpenFlowBridge } from '../../node/switch/openflow/bridge.ts'
import type { BridgePort } from '../../node/switch/openflow/bridge-port.ts'
import { FrameSpace } from '../../node/switch/spill.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { bytesOf, PretendedSwitch } from './openflow-switch.ts'

const VMS = ['a', 'b', 'c', 'd'] as const
type Vm = (typeof VMS)[number]
const PAIR = { a: 0, b: 0, c: 1, d: 1 } as const
const ALL = 0xffff_ffff_ffff
const WAY = 9
const macOf = (vm: Vm) => 0x10 + VMS.indexOf(vm)
const portOf = (vm: Vm) => 1 + VMS.indexOf(vm)
const EPOCHS = 3
/** Half a second each; schedules of sockets are not to be had again, so a failure is not made smaller. */
const RUNS = 12

type Step =
  | { readonly type: 'send'; readonly from: Vm; readonly to: Vm | 'all' }
  | { readonly type: 'forward' | 'refresh'; readonly bridge: 0 | 1 }
  | { readonly type: 'cut'; readonly vm: Vm }
  | { readonly type: 'wait' }

const vm = fc.constantFrom(...VMS)
const bridge = fc.constantFrom<0 | 1>(0, 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant('send' as const),
      from: vm,
      to: fc.oneof(vm, vm, fc.constant('all' as const))
    })
  },
  { weight: 6, arbitrary: fc.record({ type: fc.constant('forward' as const), bridge }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('refresh' as const), bridge }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('cut' as const), vm }) },
  { weight: 1, arbitrary: fc.constant({ type: 'wait' as const }) }
)
const schedule = fc.array(fc.array(step, { minLength: 20, maxLength: 60 }), { minLength: EPOCHS, maxLength: EPOCHS })

interface Sent {
  readonly from: Vm
  readonly to: Vm
  /** Of the sender. */
  readonly epoch: number
  /** Of the receiver when it came; undefined: it has not. */
  received: number | undefined
}

class World {
  readonly #dir: string
  readonly switches: readonly PretendedSwitch[]
  readonly bridges: OpenFlowBridge[] = []
  readonly ports = new Map<Vm, BridgePort>()
  /** By frame and receiver. */
  readonly sent = new Map<string, Sent>()
  readonly epochs = new Map<Vm, number>(VMS.map(name => [name, 0]))
  readonly stopped = new Set<Vm>()
  readonly cuts = new Map<Vm, Promise<void>>()
  readonly faults: string[] = []
  #frames = 0

  constructor(dir: string) {
    this.#dir = dir
    this.switches = [0, 1].map(
      index =>
        new PretendedSwitch(join(dir, `br${index}`), (port, frame) => {
          if (port === WAY) this.switches[1 - index]?.arrive(WAY, frame)
          else this.#receive(VMS[port - 1] as Vm, frame)
        })
    )
  }

  async open(): Promise<void> {
    const space = new FrameSpace({ directory: undefined, memoryBytes: 64 << 20, diskBytes: 0, log: quietLog })
    for (const [index, pretended] of this.switches.entries()) {
      await pretended.listen()
      const address = join(this.#dir, `br${index}`)
      this.bridges.push(
        await OpenFlowBridge.open({
          address,
          control: () => Promise.resolve(`${address}.ctl`),
          clock,
          log: quietLog,
          keeper: () => space.keeper(),
          onMarker: () => {},
          packetQueues: () => Promise.resolve(pretended.packetQueues)
        })
      )
    }
    for (const [index, each] of this.bridges.entries()) {
      const stations = VMS.map(name => {
        const local = PAIR[name] === index
        return { vm: name, nic: 0, mac: macOf(name), network: 1, local, port: local ? portOf(name) : WAY }
      })
      await each.setGroup({ id: 'bank', generation: 1, stations })
    }
    for (const name of VMS) {
      const own = this.bridges[PAIR[name]] as OpenFlowBridge
      const port = await own.attach({ group: 'bank', vm: name, epoch: 0, interfaces: [portOf(name)] })
      this.ports.set(name, port)
      await port.release()
    }
  }

  close(): void {
    for (const each of this.bridges) each.close()
    for (const each of this.switches) each.close()
  }

  async take(next: Step, epoch: number): Promise<void> {
    if (next.type === 'send') this.send(next.from, next.to)
    else if (next.type === 'forward') this.switches[next.bridge]?.step()
    else if (next.type === 'refresh') this.switches[next.bridge]?.refresh()
    else if (next.type === 'cut') this.cut(next.vm, epoch)
    else await sleep(6)
    await setImmediate()
  }

  send(from: Vm, to: Vm | 'all'): void {
    if (this.stopped.has(from) || from === to) return
    const number = this.#frames++
    const epoch = this.epochs.get(from) ?? 0
    for (const receiver of to === 'all' ? VMS : [to]) {
      if (receiver !== from) this.sent.set(`${number} ${receiver}`, { from, to: receiver, epoch, received: undefined })
    }
    const payload = Buffer.alloc(46)
    payload.writeUInt32BE(number)
    const head = { ethDst: to === 'all' ? ALL : macOf(to), ethSrc: macOf(from), ethType: 0x0800, tag: undefined }
    this.switches[PAIR[from]]?.arrive(portOf(from), bytesOf(head, payload))
  }

  cut(name: Vm, epoch: number): void {
    if (this.cuts.has(name)) return
    const port = this.ports.get(name) as BridgePort
    const steps = async (): Promise<void> => {
      await port.hold()
      this.stopped.add(name)
      await port.drained()
      await port.turn(epoch)
      this.epochs.set(name, epoch)
      this.stopped.delete(name)
      await port.release()
    }
    this.cuts.set(name, steps())
  }

  /** Everything goes on until all are cut, all that was sent has come, and the images are whole. */
  async settle(epoch: number): Promise<void> {
    for (const name of VMS) this.cut(name, epoch)
    let over = false
    const recorded = Promise.all(
      VMS.map(async name => {
        await this.cuts.get(name)
        const log = await (this.ports.get(name) as BridgePort).recorded(epoch)
        const numbers: number[] = []
        for await (const piece of log.pieces()) {
          for (const packet of FrameQueue.split(piece)) numbers.push(Buffer.from(packet).readUInt32BE(4 + 14))
        }
        this.#check(name, epoch, numbers)
      })
    ).finally(() => {
      over = true
    })
    while (!over) {
      while (this.switches.some(each => each.step()));
      await setImmediate()
    }
    await recorded
    for (const each of this.bridges) await each.sync()
    while (this.switches.some(each => each.step()));
    this.cuts.clear()
  }

  #receive(name: Vm, frame: Uint8Array): void {
    const number = Buffer.from(frame).readUInt32BE(14)
    const sent = this.sent.get(`${number} ${name}`)
    const epoch = this.epochs.get(name) ?? 0
    if (sent === undefined) this.faults.push(`${name} got ${number}, which was not for it`)
    else if (sent.received !== undefined) this.faults.push(`${name} got ${number} twice`)
    else if (this.stopped.has(name)) this.faults.push(`${name} got ${number} while it was stopped`)
    else if (sent.epoch > epoch) this.faults.push(`${name} at ${epoch} got ${number} of ${sent.epoch}`)
    if (sent !== undefined) sent.received = epoch
  }

  /** What is in the image is what was sent before the sender's cut and came after the receiver's, once each. */
  #check(name: Vm, epoch: number, numbers: readonly number[]): void {
    const image = numbers.map(number => `${number} ${name}`)
    for (const [key, { to, epoch: from, received }] of this.sent) {
      if (to !== name) continue
      const count = image.filter(each => each === key).length
      const wanted = from < epoch && (received === undefined || received >= epoch) ? 1 : 0
      if (count !== wanted) this.faults.push(`frame ${key} of ${from} came at ${received}: ${count} times in ${epoch}`)
    }
  }
}

describe('cuts on the OpenFlow path, at any time', () => {
  it('deliver no early frame, lose none, and have in the images all that was in flight', async () => {
    await fc.assert(
      fc.asyncProperty(schedule, async epochs => {
        const dir = await mkdtemp(join(tmpdir(), 'openflow-'))
        const world = new World(dir)
        try {
          await world.open()
          for (const [index, steps] of epochs.entries()) {
            for (const next of steps) await world.take(next, index + 1)
            await world.settle(index + 1)
          }
          for (const [key, { received }] of world.sent) if (received === undefined) world.faults.push(`${key} is lost`)
          expect(world.faults).toEqual([])
        } finally {
          world.close()
          await rm(dir, { recursive: true })
        }
      }),
      { numRuns: RUNS, endOnFailure: true }
    )
  }, 60_000)
})
