/** What a peer remembers of epochs: from its agents' reports and from what others tell, through restarts, within bounds. */
import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { createEpochHistory, type EpochRecorder } from '../../node/agents/epoch-history.ts'
import { HistoryRoom } from '../../node/agents/history-room.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { EpochHistoryStore, SeenEpoch } from '../../node/ports.ts'
import { seenKey } from '../../protocols/epoch/history.ts'
import type { ReportMessage } from '../../protocols/epoch/messages.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { imageOf, seenEpoch } from './epoch-history-support.ts'
import { memoryLog } from './store-support.ts'

const WALL_MS = 1_700_000_000_000
const about = { group: 'g', generation: 2 }
const stats = imageOf(40_960)

let nowMs: number
let timers: { atMs: number; run: () => void }[]
let disk: SeenEpoch[]
let isFull: boolean
let hear: (message: ReportMessage, from: string) => void
let forget: (group: string) => void
let record: Pick<GroupRecord, 'generation' | 'owners'>

beforeEach(() => {
  nowMs = 5_000
  timers = []
  disk = []
  isFull = false
  record = { generation: 2, owners: { a: 'p1', b: 'p2' } }
})

const store = (): EpochHistoryStore => {
  const write = (change: () => void): Promise<void> =>
    isFull ? Promise.reject(new DiapauseError('HISTORY_WRITE', 'full')) : Promise.resolve(change())
  return {
    load: async () => disk,
    append: epochs => write(() => disk.push(...epochs)),
    replace: epochs => write(() => void (disk = [...epochs])),
    get bytes() {
      return JSON.stringify(disk).length
    },
    close: async () => {}
  }
}

const recorder = (log = memoryLog()): Promise<EpochRecorder> =>
  createEpochHistory({
    directory: {
      get: () => record as GroupRecord,
      onReport: handler => void (hear = handler),
      onForgotten: handler => void (forget = handler)
    },
    clock: {
      now: () => nowMs,
      after: (ms, run) => {
        const timer = { atMs: nowMs + ms, run }
        timers.push(timer)
        return () => void (timers = timers.filter(each => each !== timer))
      }
    },
    wallMs: () => WALL_MS + nowMs,
    log,
    store: store()
  })

async function wait(ms: number): Promise<void> {
  nowMs += ms
  for (const timer of timers.filter(({ atMs }) => atMs <= nowMs)) {
    timers.splice(timers.indexOf(timer), 1)
    timer.run()
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
  }
}

/** This peer runs a, and p2 runs b. */
async function takeEpoch(history: EpochRecorder, epoch: number): Promise<void> {
  history.noteReport('epoch.opened', { group: 'g', epoch })
  await wait(20)
  history.noteReport('cut', { ...about, vm: 'a', epoch, pauseMs: 7, cutAtMs: WALL_MS, prepareMs: 15, leadMs: 2 })
  hear(
    { kind: 'cut', ...about, vm: 'b', epoch, counts: {}, atWallMs: WALL_MS, prepareMs: 9, leadMs: 1, pauseMs: 3 },
    'p2'
  )
  await wait(30)
  history.noteReport('epoch.durable', { ...about, vm: 'a', epoch, stats, tolerates: {} })
  await wait(10)
  hear({ kind: 'durable', ...about, vm: 'b', epoch, manifest: 'f'.repeat(64), stats }, 'p2')
  await wait(5)
  history.noteReport('epoch.committed', { group: 'g', epoch, commitMs: 65, skewMs: 0.5 })
}

const whole = (epoch: number, openedAtMs: number): SeenEpoch => ({
  ...about,
  epoch,
  outcome: 'committed',
  openedAtMs,
  tookMs: 65,
  skewMs: 0.5,
  vms: {
    a: { pauseMs: 7, cutAtMs: WALL_MS, prepareMs: 15, leadMs: 2, durableMs: 30, image: stats },
    b: { pauseMs: 3, cutAtMs: WALL_MS, prepareMs: 9, leadMs: 1, durableMs: 40, image: stats }
  }
})

describe('what a peer remembers of an epoch', () => {
  test('is what its agents report of its own VMs, and what their owners tell of the others', async () => {
    const history = await recorder()
    const told: SeenEpoch[] = []
    history.onSeen(epoch => told.push(epoch))
    await takeEpoch(history, 7)
    expect(history.of('g')).toEqual([whole(7, WALL_MS + 5_000)])
    expect(told.at(-1)).toEqual(whole(7, WALL_MS + 5_000))
  })

  test('is not what somebody tells of a VM that is not his, or of a generation that is over', async () => {
    const history = await recorder()
    history.noteReport('epoch.opened', { group: 'g', epoch: 7 })
    const cut = { kind: 'cut', vm: 'b', epoch: 7, counts: {}, atWallMs: 1, prepareMs: 9, leadMs: 1 } as const
    hear({ ...cut, ...about }, 'p3')
    hear({ ...cut, group: 'g', generation: 1 }, 'p2')
    expect(history.of('g').map(({ vms }) => vms)).toEqual([{}])
  })

  test('has why it was aborted, also where a takeover ended it and the record is of the next generation by then', async () => {
    const history = await recorder()
    history.noteReport('epoch.opened', { group: 'g', epoch: 8 })
    record = { ...record, generation: 3 }
    await wait(50)
    history.noteReport('epoch.aborted', { group: 'g', epoch: 8, reason: 'the group was taken over' })
    expect(history.of('g')).toMatchObject([
      { generation: 2, epoch: 8, outcome: 'aborted', tookMs: 50, reason: 'the group was taken over' }
    ])
  })

  test('has the reason of who opened it, whether that or the news of it comes first', async () => {
    const history = await recorder()
    const cause = { by: 'p1', policy: 'interval', why: 'every 10 s' }
    history.noteCause('g', 2, 7, cause)
    await takeEpoch(history, 7)
    history.noteReport('epoch.opened', { group: 'g', epoch: 8 })
    history.noteCause('g', 2, 8, cause)
    expect(history.of('g')).toMatchObject([
      { epoch: 7, outcome: 'committed', cause },
      { epoch: 8, outcome: 'open', cause }
    ])
  })

  test('survives a restart once it is decided; of one that was under way it says that its end is not known', async () => {
    const history = await recorder()
    await takeEpoch(history, 7)
    await wait(1_000)
    expect(disk).toEqual([whole(7, WALL_MS + 5_000)])
    await takeEpoch(history, 8)
    history.noteReport('epoch.opened', { group: 'g', epoch: 9 })
    history.noteReport('epoch.opened', { group: 'g', epoch: 10 })
    await history.stop()
    const again = await recorder()
    const found = again.of('g').map(({ epoch, outcome }) => [epoch, outcome])
    expect(found).toEqual([
      [7, 'committed'],
      [8, 'committed'],
      [9, 'open']
    ])
  })

  test('is kept in memory while the disk takes nothing, with one warning, and is written when it does', async () => {
    const log = memoryLog()
    const history = await recorder(log)
    isFull = true
    for (const epoch of [1, 2, 3]) {
      await takeEpoch(history, epoch)
      await wait(1_000)
    }
    expect(disk).toEqual([])
    expect(log.lines.filter(({ level }) => level === 'warn')).toHaveLength(1)
    isFull = false
    await wait(60_000)
    expect(disk.map(({ epoch }) => epoch)).toEqual([1, 2, 3])
  })

  test('goes with its group, from the disk, too', async () => {
    const history = await recorder()
    await takeEpoch(history, 7)
    await wait(1_000)
    forget('g')
    await wait(1_000)
    expect(history.of('g')).toEqual([])
    expect(disk).toEqual([])
  })
})

test('whatever comes in which order, a peer remembers the newest of each group within its bounds, as a plain list would', () => {
  const puts = fc.array(
    fc.record({
      group: fc.constantFrom('g', 'h'),
      generation: fc.integer({ min: 1, max: 2 }),
      epoch: fc.integer({ min: 1, max: 12 }),
      tookMs: fc.integer({ min: 0, max: 9 })
    }),
    { maxLength: 60 }
  )
  fc.assert(
    fc.property(puts, all => {
      const room = new HistoryRoom(5, Number.POSITIVE_INFINITY)
      const plain = new Map<string, SeenEpoch[]>()
      for (const { group, generation, epoch, tookMs } of all) {
        const seen = seenEpoch(epoch, { group, generation, tookMs })
        room.put(seen)
        const others = (plain.get(group) ?? []).filter(each => seenKey(each) !== seenKey(seen))
        const sorted = [...others, seen].sort((a, b) => a.generation - b.generation || a.epoch - b.epoch)
        plain.set(group, sorted.slice(-5))
      }
      for (const group of ['g', 'h']) expect(room.of(group)).toEqual(plain.get(group) ?? [])
      expect(room.bytes).toBe(room.all().reduce((sum, epoch) => sum + JSON.stringify(epoch).length, 0))
    })
  )
})

test('a group that takes many epochs does not push out the few of another one', () => {
  const one = JSON.stringify(seenEpoch(1)).length
  const room = new HistoryRoom(1_000, 20 * one)
  for (let epoch = 1; epoch <= 3; epoch++) room.put(seenEpoch(epoch, { group: 'h' }))
  for (let epoch = 1; epoch <= 200; epoch++) room.put(seenEpoch(epoch))
  expect(room.of('h')).toHaveLength(3)
  expect(room.of('g').at(-1)?.epoch).toBe(200)
  expect(room.bytes).toBeLessThanOrEqual(20 * one)
})
