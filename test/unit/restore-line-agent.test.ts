import { describe, expect, test } from 'vitest'
import { heldBack, type LineWait, RestoreLine } from '../../node/agents/restore-line.ts'
import type { ControlBus } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { parseReadyMessage } from '../../protocols/restore-line.ts'
import type { Talk } from '../../protocols/talks.ts'
import { aGroup, aVm } from './group-records.ts'
import { JumpingClock } from './jumping-clock.ts'

const talk = (vm: string): Talk => ({
  vm,
  network: 'default',
  sent: 9,
  sentBytes: 900,
  heard: 9,
  heardBytes: 900,
  answers: 9,
  answerMs: 1
})
/** a and b wait for each other, c for nobody. */
const TALKS = { a: [talk('b')], b: [talk('a')], c: [] }
const OWNERS = { a: 'p1', b: 'p2', c: 'p2' }

const recordOf = (owners: Record<string, string>, generation = 2): GroupRecord =>
  aGroup({
    id: 'bank',
    version: generation,
    generation,
    vms: Object.keys(owners).map(id => aVm(id)),
    owners,
    lastEpoch: 5
  })

/** Peers p1, p2, p3 on a bus that delivers at once, in the time of a clock that jumps. */
function cluster(togetherMs = 2_000) {
  const clock = new JumpingClock()
  const handlers = new Map<string, (from: string, message: unknown) => void>()
  const started: { vm: string; atMs: number; wait: LineWait }[] = []
  const startMs = clock.now()
  /** What each peer's directory has. */
  const known = new Map<string, GroupRecord>()
  const state = { lost: 0, sent: 0 }
  const peer = (self: string): RestoreLine => {
    const bus: ControlBus = {
      self,
      send(to, _, message) {
        state.sent++
        if (state.lost > 0) state.lost--
        else handlers.get(to)?.(self, structuredClone(message))
        return true
      },
      on: (_, parse, handler) => void handlers.set(self, (from, message) => handler(from, parse(message)))
    }
    const directory = { get: () => known.get(self) }
    return new RestoreLine({ self, bus, clock, directory, togetherMs })
  }
  const peers = { p1: peer('p1'), p2: peer('p2'), p3: peer('p3') }
  return {
    clock,
    state,
    started,
    peers,
    say: (from: string, to: string, message: unknown) => handlers.get(to)?.(from, message),
    at: (ms: number) => clock.until(startMs + ms),
    ready(
      on: keyof typeof peers,
      vm: string,
      record = recordOf(OWNERS),
      talks: Promise<typeof TALKS> = Promise.resolve(TALKS),
      heardBy: readonly string[] = Object.keys(peers)
    ) {
      const newest = ({ generation }: GroupRecord): boolean => generation <= record.generation
      for (const id of heardBy) if (newest(known.get(id) ?? record)) known.set(id, record)
      void peers[on].together(record, vm, talks).then(wait => {
        started.push({ vm, atMs: clock.now() - startMs, wait })
      })
    }
  }
}

describe('VMs of a group that goes back', () => {
  test('start together with those that they wait for, and at once without', async () => {
    const world = cluster()
    world.ready('p1', 'a')
    await world.at(10)
    world.ready('p2', 'c')
    await world.at(700)
    expect(world.started).toEqual([{ vm: 'c', atMs: 10, wait: { heldMs: 0, without: [] } }])
    world.ready('p2', 'b')
    await world.at(701)
    expect(world.started.slice(1)).toEqual([
      { vm: 'a', atMs: 700, wait: { heldMs: 700, without: [] } },
      { vm: 'b', atMs: 700, wait: { heldMs: 0, without: [] } }
    ])
  })
  test('wait no longer than they are to, and who comes later starts at once', async () => {
    const world = cluster()
    world.ready('p1', 'a')
    await world.at(2_500)
    expect(world.started).toEqual([{ vm: 'a', atMs: 2_000, wait: { heldMs: 2_000, without: ['b'] } }])
    world.ready('p2', 'b')
    await world.at(2_501)
    expect(world.started[1]).toEqual({ vm: 'b', atMs: 2_500, wait: { heldMs: 0, without: [] } })
    const { sent } = world.state
    await world.at(60_000)
    expect(world.state.sent - sent).toBeLessThan(25)
  })
  test('are all let go when the first of them has waited for long enough', async () => {
    const world = cluster()
    const owners = { a: 'p1', b: 'p2', c: 'p3' }
    const talks = Promise.resolve({ a: [talk('b')], b: [talk('c')], c: [] })
    world.ready('p1', 'a', recordOf(owners), talks)
    await world.at(1_500)
    world.ready('p2', 'b', recordOf(owners), talks)
    await world.at(5_000)
    expect(world.started.map(({ vm, atMs }) => [vm, atMs])).toEqual([
      ['a', 2_000],
      ['b', 2_000]
    ])
  })
  test('hear of each other although a word was lost, and believe it of nobody but the owner', async () => {
    const world = cluster()
    world.ready('p1', 'a')
    world.say('p3', 'p1', { kind: 'ready', group: 'bank', generation: 2, vm: 'b' })
    await world.at(50)
    expect(world.started).toEqual([])
    world.state.lost = 1
    world.ready('p2', 'b')
    await world.at(51)
    expect(world.started.map(({ vm }) => vm)).toEqual(['b'])
    await world.at(200)
    expect(world.started.map(({ vm, atMs }) => [vm, atMs])).toEqual([
      ['b', 50],
      ['a', 150]
    ])
  })
  test('are told by a peer that was quicker to learn of the generation; a newer one ends what an older waits for', async () => {
    const world = cluster()
    world.ready('p2', 'b', recordOf(OWNERS, 3))
    await world.at(1)
    world.ready('p1', 'a', recordOf(OWNERS, 2)) // which is over
    world.ready('p1', 'a', recordOf(OWNERS, 3))
    await world.at(2)
    expect(world.started.map(({ vm, atMs }) => [vm, atMs])).toEqual([
      ['a', 1],
      ['b', 1],
      ['a', 1]
    ])
    world.ready('p1', 'a', recordOf(OWNERS, 4))
    await world.at(10)
    world.ready('p1', 'a', recordOf({ ...OWNERS, b: 'p1' }, 5))
    world.ready('p1', 'b', recordOf({ ...OWNERS, b: 'p1' }, 5))
    await world.at(11)
    expect(world.started.slice(3).map(({ vm }) => vm)).toEqual(['a', 'a', 'b'])
  })
  test('start when they are ready where images say nothing, cannot be read, or nobody is to wait', async () => {
    const world = cluster()
    world.ready('p1', 'a', recordOf(OWNERS), Promise.resolve({ a: [], b: [], c: [] }))
    world.ready('p2', 'b', recordOf(OWNERS), Promise.reject(new Error('no manifest')))
    await world.at(1)
    expect(world.started.map(({ atMs }) => atMs)).toEqual([0, 0])
    const impatient = cluster(0)
    impatient.ready('p1', 'a')
    await impatient.at(1)
    expect(impatient.started).toMatchObject([{ vm: 'a', wait: { heldMs: 0 } }])
  })
  test('do not wait for talks that nobody can read for longer than for each other, nor when the peer stops', async () => {
    const world = cluster()
    world.ready('p1', 'a', recordOf(OWNERS), new Promise(() => {}))
    world.ready('p2', 'b')
    await world.at(2_100)
    expect(world.started.map(({ vm, atMs }) => [vm, atMs])).toEqual([
      ['b', 0],
      ['a', 2_000]
    ])
    world.ready('p1', 'a', recordOf(OWNERS, 9))
    await world.at(2_200)
    world.peers.p1.stop()
    await world.at(2_201)
    expect(world.started).toHaveLength(3)
  })
  test('are not kept from each other by words of another than the owner, of no such VM, or of another generation', async () => {
    const world = cluster()
    world.ready('p1', 'a')
    for (const [generation, vm] of [
      [Number.MAX_SAFE_INTEGER, 'b'],
      [3, 'c'],
      [2, 'nobody']
    ]) {
      world.say('p2', 'p1', { kind: 'ready', group: 'bank', generation, vm })
    }
    await world.at(50)
    expect(world.started.filter(({ vm }) => vm === 'a')).toEqual([])
    world.ready('p2', 'b')
    await world.at(51)
    world.say('p3', 'p1', { kind: 'ready', group: 'bank', generation: 2, vm: 'b' })
    world.ready('p1', 'a')
    await world.at(52)
    expect(world.started.filter(({ vm }) => vm === 'a').map(({ atMs }) => atMs)).toEqual([50, 51])
  })
  test('read what images say of talks once for all VMs of a peer, and only where one may wait', async () => {
    const reads: string[] = []
    const readTalks = async (manifest: string) => {
      reads.push(manifest)
      return []
    }
    const committed = (owners: Record<string, string>): GroupRecord => {
      const images = Object.fromEntries(Object.keys(owners).map(vm => [vm, `image-${vm}`]))
      return { ...recordOf(owners), committed: { epoch: 5, generation: 1, previousEpoch: 4, images } }
    }
    const hold = (line: RestoreLine, owners: Record<string, string>) => {
      const heldOf = heldBack(committed(owners), { line }, { readTalks })
      return Promise.all(Object.keys(owners).map(async vm => await heldOf(vm).together()))
    }
    await hold(cluster(0).peers.p1, OWNERS)
    await hold(cluster().peers.p1, { a: 'p1' })
    expect(reads).toEqual([])
    await hold(cluster().peers.p1, OWNERS)
    expect(reads).toEqual(['image-a', 'image-b', 'image-c'])
  })
  test('hear a word again that came before news of its generation', async () => {
    const world = cluster()
    world.ready('p2', 'b', recordOf(OWNERS), Promise.resolve(TALKS), ['p2'])
    await world.at(1)
    world.ready('p1', 'a')
    await world.at(200)
    expect(world.started).toMatchObject([
      { vm: 'b', atMs: 1 },
      { vm: 'a', atMs: 100 }
    ])
  })
  test('are told of by messages that are such, and no others', () => {
    for (const wrong of [
      null,
      {},
      { kind: 'ready', group: 'g', generation: -1, vm: 'a' },
      { kind: 'ready', group: 'g', generation: 1 }
    ]) {
      expect(() => parseReadyMessage(wrong)).toThrow()
    }
  })
})
