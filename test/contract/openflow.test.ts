/**
 * The OpenFlow path on real Open vSwitch: two peers' bridges, three hosts with kernels' own network stacks for VMs, and
 * every frame on real interfaces. No VM: what a cut is of is told by hand.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { FrameQueue } from '../../protocols/epoch/channel-queue.ts'
import { OpenFlowBridge } from '../../node/switch/openflow/bridge.ts'
import type { BridgePort } from '../../node/switch/openflow/bridge-port.ts'
import { OpenFlowConnection } from '../../node/switch/openflow/connection.ts'
import { COOKIE, COOKIE_MASK } from '../../node/switch/openflow/plan.ts'
import type { FrameLog } from '../../node/ports.ts'
import { FrameSpace } from '../../node/switch/spill.ts'
import { waitUntil } from '../demo/processes.ts'
import { type Guest, GuestsOnBridges } from './openflow-support.ts'
import { clock, memoryLog } from './real-clock.ts'

const GROUP = 'bank'
const LIMIT_MS = 15_000
/** Sent in one go: no more than a receiver's socket has room for while its process waits for a processor. */
const FRAMES = 150
/** Long enough for a frame to come that must not. */
const NOT_MS = 150

describe('the OpenFlow path on Open vSwitch', () => {
  let world: GuestsOnBridges
  let guests: Record<'a' | 'b' | 'c', Guest>
  let bridges: OpenFlowBridge[] = []
  let ports: Record<'a' | 'b' | 'c', BridgePort>
  let generation = 0
  const log = memoryLog()
  const markers: string[] = []

  beforeAll(async () => {
    world = await GuestsOnBridges.start()
    const [a, b, c] = world.guests as [Guest, Guest, Guest]
    guests = { a, b, c }
  })

  afterEach(() => {
    for (const bridge of bridges) bridge.close()
  })

  afterAll(async () => {
    await world?.stop()
  })

  const space = () => new FrameSpace({ directory: undefined, memoryBytes: 64 << 20, diskBytes: 0, log })
  const bridgeOf = (name: string) => bridges[name === 'a' ? 0 : 1] as OpenFlowBridge

  /** Tells a peer who is where. */
  async function group(bridge: OpenFlowBridge): Promise<void> {
    const stations = world.guests.map(async ({ name, mac, host }) => {
      const local = bridgeOf(name) === bridge
      const way = bridge === bridges[0] ? 't1' : 't2'
      return { vm: name, nic: 0, mac, network: 1, local, port: await bridge.portNumber(local ? host.port : way) }
    })
    await bridge.setGroup({ id: GROUP, generation, stations: await Promise.all(stations) })
  }

  const attach = ({ name, interfaceIndex }: Guest) =>
    bridgeOf(name).attach({ group: GROUP, vm: name, epoch: 0, interfaces: [interfaceIndex] })

  /** A generation of the group begins: all VMs are there, at epoch 0, and get nothing yet. */
  async function attachAll(): Promise<void> {
    generation++
    for (const bridge of bridges) await group(bridge)
    ports = { a: await attach(guests.a), b: await attach(guests.b), c: await attach(guests.c) }
  }

  /** Both peers, with all VMs at epoch 0, and everybody's frames past the peers. */
  async function begin(): Promise<void> {
    markers.length = 0
    for (const guest of world.guests) guest.heard.length = 0
    const room = space()
    const open = (peer: 1 | 2) =>
      OpenFlowBridge.open({
        address: world.address(peer),
        control: world.ovs.control,
        clock,
        log,
        keeper: () => room.keeper(),
        onMarker: (_, vm, epoch) => markers.push(`${vm} ${epoch}`),
        packetQueues: world.ovs.packetQueues
      })
    bridges = [await open(1), await open(2)]
    await attachAll()
    for (const port of Object.values(ports)) await port.release()
    await pass()
  }

  /** The first frame to a VM goes through its peer; then all pass by it. */
  async function pass(): Promise<void> {
    const all = Object.values(guests)
    await reached(() => {
      for (const [index, guest] of all.entries()) {
        guest.tell(`send ${(all[(index + 1) % all.length] as Guest).host.address} first 1 1`)
      }
      return Object.values(ports).every(port => port.facts.inbound === 'direct')
    })
    // What comes behind them passes by the peers, and what went up before has come to them by the bridges' answer.
    for (const [index, guest] of all.entries()) await send(guest, all[(index + 1) % all.length] as Guest, 'last', 1, 1)
    for (const guest of all) await heard(guest, 'last', 1)
    for (const bridge of bridges) await bridge.sync()
    for (const guest of all) guest.heard.length = 0
  }

  const reached = async (fact: () => boolean): Promise<void> => expect(await waitUntil(fact, LIMIT_MS)).toBe(true)
  const count = (guest: Guest, label: string) => guest.heard.filter(line => line.startsWith(label)).length
  const heard = (guest: Guest, label: string, frames: number) => reached(() => count(guest, label) >= frames)
  const nothingMore = () => waitUntil(() => false, NOT_MS)
  const numbers = (label: string, first: number, last: number) =>
    Array.from({ length: last - first + 1 }, (_, index) => `${label} ${first + index}`)
  const labelled = (guest: Guest, label: string) => guest.heard.filter(line => line.startsWith(`${label} `))
  const packetIns = () => bridges.map(({ counters }) => counters.packetIns)

  async function send(from: Guest, to: Guest, label: string, first: number, last: number): Promise<void> {
    from.tell(`send ${to.host.address} ${label} ${first} ${last}`)
    await from.says(`sent ${label} ${last}`)
  }

  /** As an agent cuts a VM, but for the VM. */
  async function cut(port: BridgePort, epoch: number): Promise<void> {
    await port.hold()
    await port.drained()
    await port.turn(epoch)
    await port.release()
  }

  /** What the datagrams in a log say. */
  async function textsOf(frames: FrameLog): Promise<string[]> {
    const texts: string[] = []
    for await (const piece of frames.pieces()) {
      for (const packet of FrameQueue.split(piece)) {
        // Prefix, Ethernet, IPv4 and UDP.
        texts.push(
          Buffer.from(packet.subarray(4 + 14 + 20 + 8))
            .toString('latin1')
            .split('\0', 1)[0] ?? ''
        )
      }
    }
    return texts
  }

  it('carries bulk traffic of which no frame enters a peer', async () => {
    await begin()
    const before = packetIns()
    guests.a.tell(`bulk ${guests.b.host.address} 64`)
    await guests.a.says('bulk')
    await send(guests.b, guests.a, 'small', 1, FRAMES)
    await heard(guests.a, 'small', FRAMES)
    expect(packetIns()).toEqual(before)
    expect(labelled(guests.a, 'small')).toEqual(numbers('small', 1, FRAMES))
  })

  it('holds early frames until the receiver is cut, and delivers them then, in order, before later ones', async () => {
    await begin()
    await cut(ports.a, 1)
    await send(guests.a, guests.b, 'early', 1, FRAMES)
    await reached(() => bridges[1]?.counters.heldEarly === FRAMES)
    await nothingMore()
    expect(labelled(guests.b, 'early')).toEqual([])
    expect(markers).toContain('b 1')
    await cut(ports.b, 1)
    await heard(guests.b, 'early', FRAMES)
    await send(guests.a, guests.b, 'early', FRAMES + 1, FRAMES + 1)
    await reached(() => ports.b.facts.inbound === 'direct')
    await send(guests.a, guests.b, 'early', FRAMES + 2, 2 * FRAMES)
    await heard(guests.b, 'early', 2 * FRAMES)
    expect(labelled(guests.b, 'early')).toEqual(numbers('early', 1, 2 * FRAMES))
    // What came after the cut is in no image of it.
    await cut(ports.c, 1)
    expect(await textsOf(await ports.b.recorded(1))).toEqual([])
  })

  it('delivers in-flight frames at once and records them, until the last sender is cut', async () => {
    await begin()
    await cut(ports.a, 1)
    await send(guests.b, guests.a, 'in-flight', 1, FRAMES)
    await heard(guests.a, 'in-flight', FRAMES)
    let complete = false
    const recorded = ports.a.recorded(1).finally(() => (complete = true))
    await cut(ports.b, 1)
    await send(guests.b, guests.a, 'after', 1, FRAMES)
    await send(guests.c, guests.a, 'in-flight', 1, 3)
    await heard(guests.a, 'in-flight', FRAMES + 3)
    expect(complete).toBe(false)
    await cut(ports.c, 1)
    const texts = await textsOf(await recorded)
    expect(texts).toEqual([...numbers('in-flight', 1, FRAMES), ...numbers('in-flight', 1, 3)])
    expect(guests.a.heard).toEqual([
      ...numbers('in-flight', 1, FRAMES),
      ...numbers('after', 1, FRAMES),
      ...numbers('in-flight', 1, 3)
    ])
    await reached(() => !ports.a.facts.recording)
    const before = packetIns()
    await send(guests.c, guests.a, 'later', 1, FRAMES)
    await heard(guests.a, 'later', FRAMES)
    expect(packetIns()).toEqual(before)
  })

  it('has in the image what the VM may not have taken, and what waited for it', async () => {
    await begin()
    await ports.b.prepare()
    await send(guests.a, guests.b, 'untaken', 1, 20)
    await heard(guests.b, 'untaken', 20)
    await ports.b.hold()
    await send(guests.a, guests.b, 'waiting', 1, 20)
    await nothingMore()
    expect(labelled(guests.b, 'waiting')).toEqual([])
    await ports.b.drained()
    await ports.b.turn(1)
    await ports.b.release()
    await heard(guests.b, 'waiting', 20)
    await cut(ports.a, 1)
    await cut(ports.c, 1)
    const texts = await textsOf(await ports.b.recorded(1))
    expect(texts).toEqual([...numbers('untaken', 1, 20), ...numbers('waiting', 1, 20)])
    expect(guests.b.heard).toEqual([...numbers('untaken', 1, 20), ...numbers('waiting', 1, 20)])
  })

  it('has there, too, what it was given by way of its peer', async () => {
    await begin()
    await ports.b.hold()
    await ports.b.release()
    await ports.b.prepare()
    await send(guests.a, guests.b, 'untaken', 1, 5)
    await heard(guests.b, 'untaken', 5)
    await reached(() => ports.b.facts.inbound === 'copied') // the bridge has taken over
    await send(guests.a, guests.b, 'untaken', 6, 10)
    await heard(guests.b, 'untaken', 10)
    await cut(ports.b, 1)
    await cut(ports.a, 1)
    await cut(ports.c, 1)
    expect(await textsOf(await ports.b.recorded(1))).toEqual(numbers('untaken', 1, 10))
  })

  it('passes by the peer again where a cut was prepared and not made', async () => {
    await begin()
    await ports.b.prepare()
    await ports.b.release()
    const before = packetIns()
    await send(guests.a, guests.b, 'passing', 1, FRAMES)
    await heard(guests.b, 'passing', FRAMES)
    expect(packetIns()).toEqual(before)
  })

  it('gives the old colour to all that a VM has sent before it stopped', async () => {
    await begin()
    guests.a.tell(`flood ${guests.b.host.address} flood`)
    await heard(guests.b, 'flood', 1_000)
    guests.a.process.kill('SIGSTOP')
    await ports.a.hold()
    await ports.a.drained()
    await ports.a.turn(1)
    await ports.a.release()
    await nothingMore()
    expect(bridges[1]?.counters.heldEarly).toBe(0)
    const before = count(guests.b, 'flood')
    guests.a.process.kill('SIGCONT')
    await reached(() => (bridges[1]?.counters.heldEarly ?? 0) > 100)
    expect(count(guests.b, 'flood')).toBe(before)
    guests.a.tell('halt')
    await guests.a.says('sent flood')
  })

  it('gives it to what the bridge had not read by then, too', async () => {
    await begin()
    await ports.a.hold()
    world.ovs.signal('SIGSTOP')
    let turned: Promise<void>
    try {
      await send(guests.a, guests.b, 'unread', 1, FRAMES)
      expect(await bridges[0]?.queuedBytes(GROUP, 'a')).toBeGreaterThan(0)
      turned = ports.a.drained().then(() => ports.a.turn(1))
    } finally {
      world.ovs.signal('SIGCONT')
    }
    await turned
    await heard(guests.b, 'unread', FRAMES)
    expect(bridges[1]?.counters.heldEarly).toBe(0)
  })

  it('delivers a broadcast to the one and holds it for the other', async () => {
    await begin()
    await cut(ports.a, 1)
    await cut(ports.b, 1)
    await send(guests.a, { ...guests.b, host: { ...guests.b.host, address: '10.77.0.255' } }, 'all', 1, 10)
    await heard(guests.b, 'all', 10)
    expect(labelled(guests.c, 'all')).toEqual([])
    await cut(ports.c, 1)
    await heard(guests.c, 'all', 10)
    expect(labelled(guests.b, 'all')).toEqual(numbers('all', 1, 10))
    expect(labelled(guests.c, 'all')).toEqual(numbers('all', 1, 10))
  })

  it('lets frames of an aborted epoch flow, and records nothing more', async () => {
    await begin()
    await cut(ports.a, 1)
    await send(guests.a, guests.b, 'early', 1, 5)
    await reached(() => bridges[1]?.counters.heldEarly === 5)
    for (const port of Object.values(ports)) await port.abandon(1)
    await heard(guests.b, 'early', 5)
    await expect(ports.a.recorded(1)).rejects.toThrow(expect.objectContaining({ code: 'EPOCH_NOT_CUT' }))
    await send(guests.b, guests.a, 'later', 1, 5)
    await heard(guests.a, 'later', 5)
  })

  it('refuses frames of a generation that is over', async () => {
    await begin()
    await send(guests.a, guests.b, 'now', 1, 5)
    await heard(guests.b, 'now', 5)
    generation++
    await group(bridgeOf('b'))
    await (await attach(guests.b)).release()
    await send(guests.a, guests.b, 'old', 1, 5)
    await nothingMore()
    expect(labelled(guests.b, 'old')).toEqual([])
  })

  it('lets nothing of a group pass while this peer may not act for it', async () => {
    await begin()
    await bridges[0]?.setActing(GROUP, false)
    await send(guests.a, guests.b, 'out', 1, 5)
    await send(guests.b, guests.a, 'in', 1, 5)
    await nothingMore()
    expect([...labelled(guests.a, 'in'), ...labelled(guests.b, 'out')]).toEqual([])
    await bridges[0]?.setActing(GROUP, true)
    await heard(guests.a, 'in', 5)
    expect(labelled(guests.a, 'in')).toEqual(numbers('in', 1, 5))
    await send(guests.a, guests.b, 'out', 6, 10)
    await heard(guests.b, 'out', 5)
    expect(labelled(guests.b, 'out')).toEqual(numbers('out', 6, 10))
  })

  it('gives a restored VM the frames of its image before all others', async () => {
    await begin()
    await cut(ports.a, 1)
    await send(guests.b, guests.a, 'in-flight', 1, 20)
    await heard(guests.a, 'in-flight', 20)
    await cut(ports.b, 1)
    await cut(ports.c, 1)
    const image: Uint8Array[] = []
    for await (const piece of (await ports.a.recorded(1)).pieces()) image.push(Uint8Array.from(piece))
    for (const port of Object.values(ports)) await port.detach()
    await send(guests.b, guests.a, 'gone', 1, 5)
    await attachAll()
    guests.a.heard.length = 0
    const before = packetIns()[0] as number
    await send(guests.b, guests.a, 'waiting', 1, 5)
    await reached(() => packetIns()[0] === before + 5)
    for (const piece of image) await ports.a.inject(piece)
    for (const port of Object.values(ports)) await port.release()
    await heard(guests.a, 'waiting', 5)
    expect(guests.a.heard).toEqual([...numbers('in-flight', 1, 20), ...numbers('waiting', 1, 5)])
    await bridges[0]?.removeGroup(GROUP)
    await send(guests.b, guests.a, 'removed', 1, 5)
    await nothingMore()
    expect(labelled(guests.a, 'removed')).toEqual([])
  })

  it('begins without the entries of an earlier run, and not at all where the cache cannot be emptied', async () => {
    await begin()
    const watch = { packetIn: () => {}, writable: () => {}, closed: () => {} }
    const connection = await OpenFlowConnection.open(world.address(1), clock, watch)
    expect((await connection.flows(COOKIE, COOKIE_MASK)).length).toBeGreaterThan(20)
    bridges[0]?.close()
    const options = { address: world.address(1), clock, log, keeper: () => space().keeper(), onMarker: () => {} }
    const nowhere = OpenFlowBridge.open({ ...options, control: () => Promise.resolve('/none') })
    await expect(nowhere).rejects.toThrow(expect.objectContaining({ code: 'OPENFLOW_CONTROL' }))
    bridges[0] = await OpenFlowBridge.open({ ...options, control: world.ovs.control })
    expect(await connection.flows(COOKIE, COOKIE_MASK)).toEqual([])
    connection.close()
  })

  it('fails recordings when the bridge dies, and gives it its entries again when it is back', async () => {
    await begin()
    await cut(ports.a, 1)
    const recorded = ports.a.recorded(1)
    await Promise.all([
      expect(recorded).rejects.toThrow(expect.objectContaining({ code: 'EPOCH_ABORTED' })),
      world.ovs.restart()
    ])
    for (const port of [ports.b, ports.c]) await reached(() => port.facts.colour === 0)

    await reached(() => bridges.every(({ connected }) => connected))
    for (const port of Object.values(ports)) await port.abandon(1)
    await pass()
    const before = packetIns()
    await send(guests.a, guests.b, 'again', 1, FRAMES)
    await heard(guests.b, 'again', FRAMES)
    expect(packetIns()).toEqual(before)
  })
})
