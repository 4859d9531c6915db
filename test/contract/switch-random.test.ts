/**
 * Four VMs on three peers talk at random and are cut at random moments, over transports in memory and over libp2p. All
 * that was sent and received is written down, and the consistency of every cut is checked against it afterwards.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { expect, it } from 'vitest'
import type { NicPort, Transport } from '../../node/ports.ts'
import type { SwitchCounters } from '../../node/switch/counters.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import { createTransport } from '../../protocols/transport.ts'
import { freePort } from './loopback.ts'
import { clock, memoryLog } from './real-clock.ts'
import { FakeVm, frameOf, idOf, idsIn, MemoryNetwork, recordOf, until } from './switch-support.ts'

const VMS = ['a', 'b', 'c', 'd']
const EPOCHS = 12
/** Every fourth epoch is aborted. */
const RECORDINGS = VMS.length * EPOCHS * 0.75
/** Frames each VM sends in an epoch. */
const FRAMES = 300

/** mulberry32 */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

async function libp2pTransports(count: number): Promise<Transport[]> {
  const hosts = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const privateKey = await generateKeyPair('Ed25519')
      const listen = `/ip4/127.0.0.1/tcp/${await freePort()}`
      return { privateKey, listen, name: `p${index}`, id: peerIdFromPrivateKey(privateKey).toString(), address: listen }
    })
  )
  const members = hosts.map(({ id, name, address }) => ({ id, name, address }))
  return await Promise.all(
    hosts.map(({ privateKey, listen }) =>
      createTransport({ privateKey, listen, cluster: 'test', members, log: memoryLog(), clock })
    )
  )
}

function memoryTransports(count: number, random: () => number): Transport[] {
  const network = new MemoryNetwork()
  network.delayTurns = () => 1 + Math.floor(random() * 6)
  return Array.from({ length: count }, (_, index) => network.transport(`p${index}`))
}

/** What happened, in order. A cut of the channel's two ends splits it into before and after. */
interface Sent {
  readonly from: string
  readonly to: string
  /** The sender's epoch when it sent. */
  readonly epoch: number
  /** The receiver's epoch when it received; undefined: not yet. */
  receivedIn: number | undefined
}

/** The result is how many recordings were made and found right. */
async function converse(transports: Transport[], random: () => number): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'diapause-random-'))
  const switches = transports.map(transport =>
    createSwitch({ self: transport.self, transport, clock, log: memoryLog(), mayAct: () => true })
  )
  const sent: Sent[] = []
  const recordings: { vm: string; epoch: number; ids: number[] }[] = []
  const received = new Map<string, number[]>(VMS.map(vm => [vm, []]))
  const epochOf = new Map<string, number>(VMS.map(vm => [vm, 0]))
  const nics = new Map<string, NicPort>()
  const fakes = new Map<string, FakeVm>()
  const stopped = new Set<string>()
  const sum = (name: keyof SwitchCounters): number => switches.reduce((total, each) => total + each.stats()[name], 0)
  try {
    await Promise.all(transports.map(transport => transport.start()))
    await until(() => transports.every(one => transports.every(other => one === other || one.connected(other.self))))
    const peerOf = (index: number): number => index % transports.length
    const owners = Object.fromEntries(VMS.map((vm, index) => [vm, (transports[peerOf(index)] as Transport).self]))
    for (const each of switches) each.setGroup(recordOf(owners))
    for (const [index, vm] of VMS.entries()) {
      const nicPath = join(directory, vm)
      const own = switches[peerOf(index)] as (typeof switches)[number]
      const nic = await own.attach({ group: 'bank', vm, generation: 1, epoch: 0, nicPath })
      const fake = await FakeVm.connect(vm, nicPath)
      fake.onFrame = frame => {
        const event = sent[idOf(frame)] as Sent
        event.receivedIn = epochOf.get(vm)
        received.get(vm)?.push(idOf(frame))
      }
      await nic.release()
      nics.set(vm, nic)
      fakes.set(vm, fake)
    }

    const say = (vm: string, to: string): void => {
      const id = sent.push({ from: vm, to, epoch: epochOf.get(vm) as number, receivedIn: undefined }) - 1
      fakes.get(vm)?.send(frameOf(vm, to, id, 64 + Math.floor(random() * 1400)))
    }
    const talk = async (vm: string): Promise<void> => {
      for (let left = FRAMES; left > 0; ) {
        await until(() => !stopped.has(vm))
        for (let burst = 1 + Math.floor(random() * 30); burst > 0 && left > 0; burst--, left--) {
          const others = VMS.filter(other => other !== vm)
          const to = others[Math.floor(random() * others.length)] as string
          say(vm, to)
        }
        await new Promise(resolve => setTimeout(resolve, random() * 3))
      }
    }
    // Whatever chance does, there is one early frame and one in flight.
    const beLast = async (): Promise<void> => {
      await until(() => VMS.every(vm => vm === 'd' || epochOf.get(vm) === 1))
      say('b', 'd')
      say('d', 'b')
      await until(() => sum('heldEarly') > 0 && sum('recordedInFlight') > 0)
    }
    // A cut as the agent makes it: hold, stop, drain, turn, go on. The fake VM still takes what it was given.
    const cut = async (vm: string, epoch: number): Promise<void> => {
      await new Promise(resolve => setTimeout(resolve, random() * 15))
      if (vm === 'd' && epoch === 1) await beLast()
      const nic = nics.get(vm) as NicPort
      const socket = (fakes.get(vm) as FakeVm).socket
      await nic.hold()
      stopped.add(vm)
      await new Promise(resolve => socket.write('', resolve)) // the kernel has all that the VM has sent
      await nic.drained()
      epochOf.set(vm, epoch)
      const counts = await nic.turn(epoch)
      stopped.delete(vm)
      await nic.release()
      for (const [other, port] of nics) if (other !== vm && random() < 0.5) port.expect(epoch, vm, counts)
      const ids = await idsIn(await nic.recorded(epoch))
      recordings.push({ vm, epoch, ids })
    }
    for (let epoch = 1; epoch <= EPOCHS; epoch++) {
      if (epoch % 4 === 0) {
        // Aborted: some have been cut for it, the others take the colour.
        for (const vm of VMS.slice(0, 2)) {
          epochOf.set(vm, epoch)
          await nics.get(vm)?.drained()
          await nics.get(vm)?.turn(epoch)
        }
        for (const vm of VMS) {
          epochOf.set(vm, epoch)
          await nics.get(vm)?.drained()
          await nics.get(vm)?.abandon(epoch)
        }
      } else await Promise.all(VMS.flatMap(vm => [talk(vm), cut(vm, epoch)]))
    }
    await until(() => sent.every(event => event.receivedIn !== undefined))

    // Nothing lost, nothing twice, the order of each channel kept.
    for (const [vm, ids] of received) {
      expect(new Set(ids).size).toBe(ids.length)
      for (const from of VMS) {
        const channel = ids.filter(id => sent[id]?.from === from)
        expect(channel).toEqual(channel.toSorted((x, y) => x - y))
      }
      expect(ids.length).toBe(sent.filter(event => event.to === vm).length)
    }
    // No frame from after the sender's cut was received before the receiver's.
    expect(sent.filter(event => (event.receivedIn as number) < event.epoch)).toEqual([])
    // Every frame from before the sender's cut and received after the receiver's is in the recording, once.
    for (const { vm, epoch, ids } of recordings) {
      expect(new Set(ids).size).toBe(ids.length)
      const crossed = sent.flatMap((event, id) =>
        event.to === vm && event.epoch < epoch && (event.receivedIn as number) >= epoch ? [id] : []
      )
      expect(crossed.filter(id => !ids.includes(id))).toEqual([])
      // What else is in it was given to the VM just before the cut, and sent before the sender's.
      expect(ids.filter(id => (sent[id] as Sent).epoch >= epoch || sent[id]?.to !== vm)).toEqual([])
    }
    expect({ sent: sum('sent'), delivered: sum('delivered') }).toEqual({ sent: sent.length, delivered: sent.length })
    expect({ lost: sum('lost'), late: sum('droppedLate'), full: sum('droppedFull') }).toEqual({
      lost: 0,
      late: 0,
      full: 0
    })
    return recordings.length
  } finally {
    for (const fake of fakes.values()) fake.close()
    await Promise.all([...nics.values()].map(nic => nic.detach()))
    await Promise.all(transports.map(transport => transport.stop()))
    await rm(directory, { recursive: true })
  }
}

it('cuts random traffic consistently over transports with random delays', async () => {
  for (const seed of [1, 2, 3]) {
    const random = randomOf(seed)
    expect(await converse(memoryTransports(3, random), random)).toBe(RECORDINGS)
  }
})

it('cuts random traffic consistently over libp2p', async () => {
  expect(await converse(await libp2pTransports(3), randomOf(4))).toBe(RECORDINGS)
})
