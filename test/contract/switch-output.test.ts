import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import type { SwitchOptions, VirtualSwitch } from '../../node/switch/switch.ts'
import type { CommittedEpoch, GroupRecord } from '../../protocols/group.ts'
import { BROADCAST, cut, frameOf, heard, macOf, quiet, recordOf, until } from './switch-support.ts'
import { OWNERS, SwitchWorld } from './switch-world.ts'

const nics = { a: ['default', 'uplink'], b: ['default', 'uplink'], c: ['default', 'uplink'] }
const outputCommit = { outputCommit: true }

let world: SwitchWorld
const open = async (options: Partial<SwitchOptions> = {}): Promise<void> => {
  world = await SwitchWorld.open(options)
}
afterEach(() => world.close())
const at = (peer: string): VirtualSwitch => world.at(peer)

const images = { a: 'a', b: 'b', c: 'c' }
const committed = (epoch: number, generation = 1): CommittedEpoch => ({ epoch, generation, previousEpoch: 0, images })

/** All peers hear of a newer record. */
function news(version: number, what: Partial<GroupRecord>, generation = 1, cards: typeof SHARED = nics): void {
  const record = recordOf(OWNERS, generation, { nics: cards, news: { ...outputCommit, version, ...what } })
  for (const peer of ['p1', 'p2']) at(peer).setGroup(record)
}
const SHARED: Record<string, readonly string[]> = { a: ['default', 'shared/lan'], b: ['shared/lan'] }

describe('a group with output commit', () => {
  it('tells the outside nothing but addresses before the epoch that contains it is committed, and hears all at once', async () => {
    await open()
    const { relay, ids, announced } = await world.outside('p1')
    const { a, b, c } = await world.group(OWNERS, { nics, news: outputCommit })
    a.vms[1]?.send(frameOf('a1', 'x', 1))
    a.vms[1]?.send(frameOf('a1', BROADCAST, 2))
    a.vms[1]?.send(frameOf('a1', 'b1', 3)) // by the uplink: whoever is on it is outside
    a.vm.send(frameOf('a', 'c', 4)) // the group's own network
    relay.send(frameOf('x', 'a1', 5))
    await until(() => at('p1').stats().outputWaiting === 3 && c.vm.ids.length === 1 && heard(a.vms[1]).length === 1)
    for (const { nic } of [a, b]) await cut(nic, 1)
    a.vms[1]?.send(frameOf('a1', 'x', 6)) // after its cut
    await until(() => at('p1').stats().outputWaiting === 4)
    news(2, { lastEpoch: 1, open: { epoch: 1, proposer: 'p1', deadlineMs: 1 } })
    await quiet()
    expect([ids(), heard(b.vms[1]), announced()]).toEqual([[], [], [macOf('a', 1), macOf('b', 1)]])
    news(3, { lastEpoch: 1, committed: committed(1) })
    await until(() => ids().length === 2 && heard(b.vms[1]).length === 2)
    await quiet()
    expect([ids(), heard(b.vms[1]), heard(a.vms[1])]).toEqual([[1, 2], [2, 3], [5]])
    expect(at('p1').stats()).toMatchObject({ outputWaiting: 1, outputReleased: 3, outputDiscarded: 0 })
    news(4, { lastEpoch: 2, committed: committed(2) })
    await until(() => ids().length === 3)
    expect(ids()).toEqual([1, 2, 6])
    expect(at('p1').stats()).toMatchObject({ outputWaiting: 0, outputWaitingBytes: 0 })
  })

  it('keeps it while epochs come to nothing, and forgets it when it is rolled back', async () => {
    await open()
    const { ids } = await world.outside('p1')
    const { a } = await world.group(OWNERS, { nics, news: outputCommit })
    a.vms[1]?.send(frameOf('a1', 'x', 1))
    await until(() => at('p1').stats().outputWaiting === 1)
    await a.nic.abandon(1)
    news(2, { lastEpoch: 1 })
    a.vms[1]?.send(frameOf('a1', 'x', 2))
    await until(() => at('p1').stats().outputWaiting === 2)
    news(3, { lastEpoch: 2, committed: committed(2) })
    await until(() => ids().length === 2)
    a.vms[1]?.send(frameOf('a1', 'x', 3))
    await until(() => at('p1').stats().outputWaiting === 1)
    await a.nic.detach() // its frames are not gone with it
    expect(at('p1').stats().outputWaiting).toBe(1)
    news(4, { lastEpoch: 3, committed: committed(3) }, 2)
    await quiet()
    expect(ids()).toEqual([1, 2])
    expect(at('p1').stats()).toMatchObject({ outputWaiting: 0, outputWaitingBytes: 0, outputDiscarded: 1 })
  })

  it('lets nothing out without its lease, and all of it when that is regained', async () => {
    await open()
    const { ids } = await world.outside('p1')
    const { a } = await world.group(OWNERS, { nics, news: outputCommit })
    for (const id of [1, 2]) a.vms[1]?.send(frameOf('a1', 'x', id))
    await until(() => at('p1').stats().outputWaiting === 2)
    world.mayAct = () => false
    news(2, { lastEpoch: 1, committed: committed(1) })
    await quiet()
    expect([ids(), at('p1').stats().outputReleased]).toEqual([[], 0])
    world.mayAct = () => true
    await until(() => ids().length === 2)
    expect(ids()).toEqual([1, 2])
  })

  it('tells VMs of other groups as late as the outside, and its own at once', async () => {
    await open()
    const { a, b } = await world.group(OWNERS, { nics: SHARED, news: outputCommit })
    const shop = { nics: { d: ['shared/lan'], e: ['shared/lan'] }, group: 'shop' }
    const { d, e } = await world.group({ d: 'p1', e: 'p2' }, shop)
    a.vms[1]?.send(frameOf('a1', BROADCAST, 1))
    a.vms[1]?.send(frameOf('a1', 'e', 2))
    a.vms[1]?.send(frameOf('a1', 'b', 3))
    d.vm.send(frameOf('d', 'a1', 4))
    await until(() => b.vm.ids.length === 2 && a.vms[1]?.ids.length === 1)
    await quiet()
    expect([d.vm.ids, e.vm.ids, at('p1').stats().outputWaiting]).toEqual([[], [], 2])
    news(2, { lastEpoch: 1, committed: committed(1) }, 1, SHARED)
    await until(() => d.vm.ids.length === 1 && e.vm.ids.length === 2)
    await quiet()
    expect([b.vm.ids, d.vm.ids, e.vm.ids]).toEqual([[1, 3], [1], [1, 2]])
  })
})

describe('what waits for an epoch', () => {
  const FRAME_BYTES = 9014
  /** 18 MB: more than the memory, than the uplink keeps, and than a socket takes at once. */
  const IDS = Array.from({ length: 2_000 }, (_, id) => id)
  const room = (diskBytes: number) => ({
    room: { directory: join(world.directory, 'spill'), memoryBytes: 1 << 20, diskBytes }
  })

  async function sendAll(diskBytes: number) {
    await open()
    world.addSwitch('p1', room(diskBytes))
    const { ids } = await world.outside('p1')
    const { a } = await world.group(OWNERS, { nics, news: outputCommit })
    for (const id of IDS) {
      a.vms[1]?.send(frameOf('a1', 'x', id, FRAME_BYTES))
      if (id % 20 < 19) continue
      await until(() => {
        const { outputWaiting, droppedFull, waitingMemoryBytes } = at('p1').stats()
        return outputWaiting + droppedFull === id + 1 && (waitingMemoryBytes < 1.3 * (1 << 20) || droppedFull > 0)
      })
    }
    return { ids }
  }

  it('lies on disk where it is much, and leaves as fast as the relay takes it, in order', async () => {
    const { ids } = await sendAll(64 << 20)
    expect(at('p1').stats().waitingDiskBytes).toBeGreaterThan(10 << 20)
    expect(ids()).toEqual([])
    news(2, { lastEpoch: 1, committed: committed(1) })
    await until(() => ids().length === IDS.length)
    expect(ids()).toEqual(IDS)
    expect(at('p1').stats()).toMatchObject({
      droppedUplink: 0,
      droppedFull: 0,
      waitingMemoryBytes: 0,
      waitingDiskBytes: 0
    })
  })

  it('leaves half the room to recordings, or no epoch could let it out', async () => {
    const { ids } = await sendAll(7 << 20)
    const { outputWaiting, outputWaitingBytes, droppedFull } = at('p1').stats()
    expect(outputWaitingBytes).toBe(outputWaiting * (FRAME_BYTES + 4))
    expect(outputWaitingBytes).toBeLessThanOrEqual(4 << 20)
    expect(outputWaiting + droppedFull).toBe(IDS.length)
    news(2, { lastEpoch: 1, committed: committed(1) })
    await until(() => ids().length === outputWaiting)
    expect(ids()).toEqual(IDS.slice(0, outputWaiting))
  })

  it('is given up when there is no relay to take it', async () => {
    await open()
    const { relay } = await world.outside('p1')
    const { a } = await world.group(OWNERS, { nics, news: outputCommit })
    relay.close()
    for (const id of [1, 2]) a.vms[1]?.send(frameOf('a1', 'x', id))
    await until(() => at('p1').stats().outputWaiting === 2)
    news(2, { lastEpoch: 1, committed: committed(1) })
    await until(() => at('p1').stats().droppedUplink === 2)
    expect(at('p1').stats()).toMatchObject({ outputWaiting: 0, outputWaitingBytes: 0 })
  })
})
