/** The pure halves of what people look at: a group's past, the grid of an epoch, who speaks with whom. */
import { randomBytes } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import { decisionList } from '../../node/edge/read-routes.ts'
import { parseHistoryWish } from '../../node/edge/history-view.ts'
import { graphOf } from '../../node/operations/graphs.ts'
import { GridOperations, gridOf } from '../../node/operations/grids.ts'
import { pastOf, toldHistory } from '../../node/operations/history.ts'
import type { Sight } from '../../node/agents/redundancy.ts'
import type { SeenEpoch } from '../../node/ports.ts'
import type { GroupRecord, KeptEpoch } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { newestThatFit } from '../../protocols/overview/fitting.ts'
import { aGroup, aVm } from './group-records.ts'
import { RepairWorld } from './repair-world.ts'
import { ship } from './shards-network.ts'

const seen = (epoch: number, more: Partial<SeenEpoch> = {}): SeenEpoch => ({
  group: 'bank',
  generation: 1,
  epoch,
  outcome: 'committed',
  openedAtMs: 1_000 * epoch,
  tookMs: 300,
  vms: { vm1: { pauseMs: 12 } },
  ...more
})

const record = (more: Partial<GroupRecord> = {}): GroupRecord =>
  aGroup({
    id: 'bank',
    vms: [aVm('vm1')],
    owners: { vm1: 'p1' },
    lastEpoch: 9,
    committed: { epoch: 9, generation: 1, previousEpoch: 8, images: { vm1: 'h' }, wallMs: 9_300 },
    ...more
  })

const account = (by: string, epochs: readonly SeenEpoch[], more = false, aheadMs = 0) => ({
  by,
  aheadMs,
  value: { epochs, more }
})
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)

describe('the past of a group', () => {
  it('has what any peer saw, in our time, and which epochs can be restored', () => {
    const kept: KeptEpoch[] = [{ epoch: 4, generation: 1, images: { vm1: 'g' }, wallMs: 4_300 }]
    const now = record({ kept, holds: [{ epoch: 4, name: 'before' }] })
    const aborted = seen(8, { outcome: 'aborted', reason: 'no room' })
    const { epochs, more } = pastOf(now, [account('p1', [seen(9)]), account('p2', [aborted], false, 500)], {
      limit: 10
    })
    expect(more).toBe(false)
    expect(epochs).toMatchObject([
      {
        epoch: 4,
        outcome: 'committed',
        atMs: 4_300,
        kept: true,
        committed: false,
        holds: ['before'],
        vms: [{ vm: 'vm1' }]
      },
      { epoch: 8, outcome: 'aborted', why: 'no room', atMs: 7_500, kept: false, holds: [] },
      { epoch: 9, outcome: 'committed', kept: true, committed: true, vms: [{ vm: 'vm1', pauseMs: 12 }] }
    ])
  })

  it('says of an epoch that nobody saw the end of that it is not known, unless it is open now', () => {
    const open = { epoch: 10, proposer: 'p1', deadlineMs: 1 }
    const accounts = [
      account('p1', [seen(7, { outcome: 'open' }), seen(9, { outcome: 'open' }), seen(10, { outcome: 'open' })])
    ]
    const { epochs } = pastOf(record({ open, lastEpoch: 10 }), accounts, { limit: 10 })
    expect(epochs.map(({ epoch, outcome }) => [epoch, outcome])).toEqual([
      [7, 'unknown'],
      [9, 'committed'],
      [10, 'open']
    ])
  })

  it('goes page by page through all that any peer has, each epoch once, though answers hold few', () => {
    const all = { p1: range(1, 40), p2: range(11, 60) }
    const pages: number[][] = []
    let before: { generation: number; epoch: number } | undefined
    for (;;) {
      const accounts = Object.entries(all).map(([by, numbers]) => {
        const told = toldHistory(
          numbers.map(epoch => seen(epoch)),
          { before, limit: 7 }
        )
        return account(by, told.epochs, told.more)
      })
      const past = pastOf(record({ committed: null }), accounts, { before, limit: 7 })
      pages.unshift(past.epochs.map(({ epoch }) => epoch))
      before = past.epochs[0]
      if (!past.more) break
    }
    expect(pages.flat()).toEqual(range(1, 60))
  })

  it('ends where a peer whose answer was full ends, so that nothing of it is passed over', () => {
    const full = account('p1', [seen(5), seen(6)], true)
    const all = account(
      'p2',
      range(1, 6).map(epoch => seen(epoch))
    )
    const past = pastOf(record({ committed: null }), [full, all], { limit: 10 })
    expect(past.epochs.map(({ epoch }) => epoch)).toEqual([5, 6])
    expect(past.more).toBe(true)
  })

  it('is asked for page by page in the query', () => {
    const wish = (text: string) => parseHistoryWish(new URLSearchParams(text))
    expect(wish('before=2.17&limit=5')).toEqual({ before: { generation: 2, epoch: 17 }, limit: 5 })
    for (const bad of ['before=17', 'limit=0', 'limit=501', 'before=a.b']) {
      expect(() => wish(bad)).toThrow(expect.objectContaining({ code: 'API_BAD_REQUEST' }))
    }
  })
})

describe('as much of a list as fits', () => {
  it('is its end, by number and by bytes as UTF-8', () => {
    expect(newestThatFit(['a', 'b', 'c'], 2)).toEqual(['b', 'c'])
    expect(newestThatFit(['é'.repeat(10), 'é'.repeat(10)], 9, 30)).toEqual(['é'.repeat(10)])
    expect(newestThatFit(['é'.repeat(10)], 9, 20)).toEqual([])
  })
})

describe('the grid of an epoch', () => {
  let world: RepairWorld | undefined
  afterEach(() => world?.stop())

  async function states(change: (world: RepairWorld) => void) {
    world = new RepairWorld(6, { checkEveryMs: 60_000 })
    const manifest = await ship(world.bodies.slice(0, 5), randomBytes(3 * 5 * 3 * 256 - 100))
    await world.commit([manifest])
    change(world)
    const { redundancy } = world.body(5)
    const sight = await redundancy.look({ anew: true })
    const image = sight.kept.images[0]
    if (image === undefined) throw new Error('no image')
    const kept = { epoch: image.epoch, generation: 1, images: { [image.vm]: 'h' } }
    const grid = gridOf({ id: image.group }, kept, sight, (...place) => redundancy.gridsAt(...place))
    return { grid, columns: grid.images[0]?.streams[0]?.columns ?? [], tolerates: grid.images[0]?.tolerates, world }
  }

  it('has every column where it was put', async () => {
    const { columns, tolerates } = await states(() => {})
    expect(columns.map(({ state }) => state)).toEqual(['there', 'there', 'there', 'there', 'there'])
    expect(columns.every(({ places, planned }) => places.length === 1 && places[0] === planned)).toBe(true)
    expect(tolerates).toBe(2)
  })

  it('says that a column is away while its holder is waited for, and who rebuilds it when that is lost', async () => {
    const away = await states(each => each.kill(1))
    expect(away.columns[1]).toMatchObject({ state: 'away' })
    away.world.stop()
    const lost = await states(each => {
      each.kill(1)
      each.lost.add(each.body(1).id)
    })
    expect(lost.columns[1]).toMatchObject({ state: 'repairing', target: lost.world.body(5).id, done: 0 })
    expect(lost.tolerates).toBe(1)
  })

  it('says that columns are lost which cannot be rebuilt', async () => {
    const { columns, tolerates } = await states(each => {
      for (const i of [0, 1, 2]) {
        each.kill(i)
        each.lost.add(each.body(i).id)
      }
    })
    expect(columns.map(({ state }) => state)).toEqual(['lost', 'lost', 'lost', 'there', 'there'])
    expect(tolerates).toBeLessThan(0)
  })
})

describe('what a peer has seen of the redundancy', () => {
  /** Each look sees the images of the epochs up to `epoch`, or fails. */
  function peer() {
    const world = { nowMs: 5_000, epoch: 1, looks: 0, fails: false }
    const sight = (): Sight => ({
      kept: {
        images: Array.from({ length: world.epoch }, (_, at) => {
          return { group: 'bank', vm: 'vm1', generation: 1, epoch: at + 1, streams: [] }
        }),
        streams: [],
        unread: []
      },
      facts: { streams: [], standing: new Map(), hosts: [] },
      plan: { repairs: [], exposed: [] } as unknown as Sight['plan']
    })
    const grids = new GridOperations({
      redundancy: {
        look: async () => {
          world.looks++
          if (world.fails) throw new Error('nobody answers')
          return sight()
        },
        gridsAt: () => 0
      },
      membership: { record: () => ({ members: [] }) as unknown as ClusterRecord },
      clock: { now: () => world.nowMs, after: () => () => {} },
      wallMs: () => world.nowMs
    })
    const at = (epoch: number) => {
      const committed = { epoch, generation: 1, previousEpoch: epoch - 1, images: { vm1: `h${epoch}` } }
      return grids.grid(record({ committed, lastEpoch: epoch }), epoch)
    }
    return { world, at }
  }

  it('is fresh for a while, but not for an epoch that was committed since', async () => {
    const { world, at } = peer()
    expect((await at(1)).images).toHaveLength(1)
    world.nowMs += 1_000
    expect([(await at(1)).lookedMs, world.looks]).toEqual([5_000, 1])
    world.epoch = 2
    expect(await at(2)).toMatchObject({ lookedMs: 6_000, images: [{ vm: 'vm1' }] })
    await at(2)
    expect(world.looks).toBe(2)
  })

  it('is looked at again after a look that failed', async () => {
    const { world, at } = peer()
    world.fails = true
    await expect(at(1)).rejects.toThrow('nobody answers')
    world.fails = false
    world.nowMs += 1_000
    expect((await at(1)).lookedMs).toBe(6_000)
    world.nowMs += 60_000
    world.fails = true
    await expect(at(1)).rejects.toThrow('nobody answers')
    world.fails = false
    expect((await at(1)).lookedMs).toBe(66_000)
  })
})

describe('the communication graph', () => {
  it('has each direction, who waits for whom, and who starts together', () => {
    const vms = ['db', 'web', 'cron'].map(id => ({ id, mac: '', memoryMiB: 64, kernel: '', initrd: '', append: '' }))
    const talk = { network: 'default', sentBytes: 1, heard: 9, heardBytes: 1, answerMs: 2 }
    const graph = graphOf({
      record: record({ vms, owners: { db: 'p1', web: 'p2', cron: 'p1' } }),
      talks: { web: [{ vm: 'db', sent: 9, answers: 9, ...talk }], db: [{ vm: 'web', sent: 9, answers: 0, ...talk }] },
      told: {},
      togetherMs: 1_000,
      nameOf: peer => `host-${peer}`
    })
    expect(graph.edges.map(({ from, to, waits }) => [from, to, waits])).toEqual([
      ['db', 'web', false],
      ['web', 'db', true]
    ])
    expect(graph.vms.map(({ vm, hostName, told }) => [vm, hostName, told])).toEqual([
      ['db', 'host-p1', true],
      ['web', 'host-p2', true],
      ['cron', 'host-p1', false]
    ])
    expect(graph.together.map(({ starts }) => starts.map(({ vm }) => vm).sort())).toContainEqual(['db', 'web'])
  })
})

describe('decisions as people read them', () => {
  it('are sentences with the names of members', () => {
    const fact = { kind: 'suspected', peer: 'p9', by: 'p1', why: 'no ack', deadInMs: 900 } as const
    const told = [{ by: 'p1', seq: 4, atMs: 5, lastAtMs: 5, times: 1, fact }]
    const { decisions } = decisionList({
      by: 'p1',
      nowMs: 9,
      names: { p1: 'oak', p9: 'elm' },
      told,
      left: 0,
      silent: []
    })
    expect(decisions).toEqual([
      expect.objectContaining({
        by: 'p1',
        kind: 'suspected',
        peer: 'p9',
        text: expect.stringContaining('suspects elm: no ack')
      })
    ])
  })
})
