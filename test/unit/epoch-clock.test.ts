/** Who takes a group's epochs, when, and what stands in for a policy that fails. */
import { beforeEach, describe, expect, test } from 'vitest'
import type { EpochPolicy } from '../../config/policy.ts'
import { EpochClock, type EpochClockDeps } from '../../node/agents/epoch-clock.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { SeenEpoch } from '../../node/ports.ts'
import { abortEpoch, commitEpoch } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'
import { memoryLog } from './store-support.ts'

const START = 1_700_000_000_000

/** A register, a clock, and the history that the peer's agents would make. */
class World {
  nowMs = 0
  /** The wall clock against it. */
  aheadMs = 0
  record = aGroup({ vms: [aVm('a')], owners: { a: 'me' } })
  readonly epochs: SeenEpoch[] = []
  readonly reports: [string, Record<string, unknown>][] = []
  readonly opened: number[] = []
  unavailable = false
  /** Milliseconds until an epoch is committed; aborted where it is negative. */
  takesMs = 50
  #timers: { atMs: number; run: () => void }[] = []
  #tell: (record: GroupRecord) => void = () => {}

  clock(policy: EpochPolicy | undefined, more: Partial<EpochClockDeps> = {}): EpochClock {
    return new EpochClock({
      self: 'me',
      directory: {
        get: () => this.record,
        refresh: async () => this.record,
        change: async (_, next) => this.#change(next),
        onRecord: handler => void (this.#tell = handler),
        onForgotten: () => {}
      },
      history: {
        of: () => this.epochs,
        onSeen: () => () => {},
        noteCause: (_group, _generation, epoch, cause) => this.#see(epoch, { cause })
      },
      clock: { now: () => this.nowMs, after: (ms, run) => this.#after(ms, run) },
      wallMs: () => this.#wallMs,
      log: memoryLog(),
      report: (kind, fields) => this.reports.push([kind, fields]),
      intervalMs: 10_000,
      deadlineMs: 1_000,
      ...(policy && { policy }),
      ...more
    })
  }

  get #wallMs(): number {
    return START + this.nowMs + this.aheadMs
  }

  hear(change: Partial<GroupRecord> = {}): void {
    this.record = { ...this.record, version: this.record.version + 1, ...change }
    this.#tell(this.record)
  }

  async run(ms: number): Promise<void> {
    const endMs = this.nowMs + ms
    for (;;) {
      for (let turn = 0; turn < 12; turn++) await Promise.resolve()
      const next = this.#timers.toSorted((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined || next.atMs > endMs) break
      this.#timers = this.#timers.filter(each => each !== next)
      this.nowMs = Math.max(this.nowMs, next.atMs)
      next.run()
    }
    this.nowMs = endMs
  }

  #after(ms: number, run: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, run }
    this.#timers.push(timer)
    return () => void (this.#timers = this.#timers.filter(each => each !== timer))
  }

  #change(next: (current: GroupRecord | null) => GroupRecord | undefined): GroupRecord {
    if (this.unavailable) throw new DiapauseError('REGISTER_UNAVAILABLE', 'no majority answers')
    const now = next(this.record)
    if (now === undefined) return this.record
    this.record = now
    const { open } = now
    if (open === null) return now
    this.opened.push(this.nowMs)
    this.epochs.push(this.#seen(open.epoch))
    this.#tell(now)
    this.#after(Math.abs(this.takesMs), () => this.#end(open.epoch))
    return now
  }

  #seen = (epoch: number): SeenEpoch => ({
    group: 'g',
    generation: this.record.generation,
    epoch,
    outcome: 'open',
    openedAtMs: this.#wallMs,
    vms: { a: {} }
  })

  #see(epoch: number, more: Partial<SeenEpoch>): void {
    const index = this.epochs.findIndex(each => each.epoch === epoch)
    this.epochs[index] = { ...(this.epochs[index] ?? this.#seen(epoch)), ...more }
  }

  #end(epoch: number): void {
    const { generation } = this.record
    const isCommitted = this.takesMs >= 0
    const end = isCommitted ? commitEpoch(generation, epoch, { a: 'f'.repeat(64) }) : abortEpoch(generation, epoch)
    this.record = end(this.record) ?? this.record
    this.#see(epoch, { outcome: isCommitted ? 'committed' : 'aborted', tookMs: Math.abs(this.takesMs) })
    this.#tell(this.record)
  }
}

let world: World
beforeEach(() => void (world = new World()))

const seconds = (): number[] => world.opened.map(ms => ms / 1_000)

describe('the clock of a group’s epochs', () => {
  test('is kept by the owner of its first VM, by the interval of the config where nothing else is said', async () => {
    world.clock(undefined)
    world.hear()
    await world.run(35_000)
    expect(seconds()).toEqual([10, 20, 30])
    expect(world.epochs[0]?.cause).toEqual({ by: 'me', policy: 'interval', why: 'every 10 s' })
    world.hear({ owners: { a: 'other' }, generation: 2, open: null })
    await world.run(60_000)
    expect(seconds()).toEqual([10, 20, 30])
  })

  test('goes by the group’s own policy, and by a new one from the moment it is set', async () => {
    world.clock({ kind: 'interval', everyMs: 10_000 })
    world.hear({ policy: { kind: 'interval', everyMs: 2_000 } })
    await world.run(5_000)
    expect(seconds()).toEqual([2, 4])
    world.hear({ policy: { kind: 'interval', everyMs: 500 } })
    await world.run(1_000)
    expect(seconds()).toEqual([2, 4, 5, 5.5, 6])
  })

  test('takes none where neither the group nor the config has a policy, but for people who ask', async () => {
    const clock = world.clock(undefined, { intervalMs: 0 })
    world.hear()
    await world.run(100_000)
    expect(world.opened).toEqual([])
    await clock.propose('g')
    expect(world.epochs[0]?.cause?.policy).toBe('request')
    await expect(clock.propose('g')).rejects.toMatchObject({ code: 'EPOCH_OPEN' })
  })

  test('waits a whole interval after one that was aborted or that nobody could open', async () => {
    world.takesMs = -100
    world.clock(undefined)
    world.hear()
    await world.run(25_000)
    expect(seconds()).toEqual([10, 20])
    world.unavailable = true
    await world.run(10_000)
    world.unavailable = false
    await world.run(12_000)
    expect(seconds()).toEqual([10, 20, 40])
  })

  test.each([-3_600_000, 3_600_000])(
    'is not misled by a wall clock that is set by %i ms: one epoch may be early, none is late',
    async jumpMs => {
      world.clock(undefined)
      world.hear()
      await world.run(15_000)
      world.aheadMs = jumpMs
      await world.run(60_000)
      const gaps = seconds().map((at, i) => at - (seconds()[i - 1] ?? 0))
      expect(Math.max(...gaps)).toBeLessThan(10.06)
      expect(gaps.filter(gap => gap > 10.001).length).toBeLessThanOrEqual(1)
      expect(gaps.filter(gap => gap < 9.9).length).toBeLessThanOrEqual(1)
    }
  )

  test('has the interval stand in for a module that fails, says so once, and says when it works again', async () => {
    let fails = true
    const next = async (name: string) => {
      if (fails) throw new DiapauseError('POLICY_FAILED', `${name} has thrown: x is not defined`)
      return { atMs: START + world.nowMs + 1_000, why: 'because' }
    }
    world.clock(undefined, { modules: { next } })
    world.hear({ policy: { kind: 'own', name: 'mine', settings: {} } })
    await world.run(35_000)
    expect(seconds()).toEqual([10, 20, 30])
    const told = { group: 'g', policy: 'own mine', reason: 'mine has thrown: x is not defined', everyMs: 10_000 }
    expect(world.reports).toEqual([['policy.failed', told]])
    fails = false
    await world.run(10_000)
    expect(world.reports.at(-1)).toEqual(['policy.works', { group: 'g', policy: 'own mine' }])
    expect(world.epochs.at(-1)?.cause).toMatchObject({ policy: 'own mine', why: 'because' })
  })

  test('is not driven faster than ten epochs a second by a module that always says "now"', async () => {
    world.takesMs = 1
    world.clock(undefined, { modules: { next: async () => ({ atMs: 0, why: 'now' }) } })
    world.hear({ policy: { kind: 'own', name: 'mine', settings: {} } })
    await world.run(2_000)
    expect(world.opened.length).toBeGreaterThan(10)
    expect(world.opened.length).toBeLessThanOrEqual(21)
  })

  test('goes on where it was when its peer starts again, and tries soon again where an epoch could not be opened', async () => {
    world.epochs.push({ group: 'g', generation: 1, epoch: 1, outcome: 'committed', openedAtMs: START - 8_000, vms: {} })
    world.clock(undefined)
    world.hear({ lastEpoch: 1 })
    await world.run(5_000)
    expect(seconds()).toEqual([2])
    world.unavailable = true
    await world.run(9_000)
    world.unavailable = false
    await world.run(6_000)
    expect(seconds()).toEqual([2, 17])
  })
})
