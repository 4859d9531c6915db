/**
 * Drills that nobody has to ask for. A group's keeper (`keepers.ts`) runs them; later that may be another one. When one is begun and
 * what became of it stands in the group's record, so whoever runs the next knows when it is due, and of two that take themselves
 * for the keeper one begins: the other's change comes to nothing (`beginDrill`).
 */
import type { PeerId } from '../../protocols/core.ts'
import { beginDrill, drillDueInMs, withdrawDrill } from '../../protocols/epoch/drills.ts'
import type { DrillSchedule, GroupRecord } from '../../protocols/group.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, FailureDetector, Log } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { Drills } from './drills.ts'
import type { Keepers } from './keepers.ts'

/** A timer holds 24 days at the most. */
const LONGEST_WAIT_MS = 86_400_000
/** After a try that came to nothing, such as a register that did not answer. A guess. */
const AGAIN_MS = 60_000
/** The words of a timer that waits for so long. */
const AGAIN = 'again'
/** What came between says nothing of whether the group would come back. */
const CAME_BETWEEN = ['DRILL_GAVE_WAY', 'DRILL_INTERRUPTED', 'DRILL_BUSY', 'EPOCHS_READ', 'REGISTER_UNAVAILABLE']

export interface ScheduledDrillsDeps {
  readonly self: PeerId
  /** Of this run of the peer. */
  readonly run: string
  readonly directory: Pick<GroupDirectory, 'onForgotten' | 'get' | 'change'>
  readonly keepers: Pick<Keepers, 'isOurs' | 'follow'>
  readonly detector: Pick<FailureDetector, 'livenessOf'>
  readonly drills: Pick<Drills, 'run' | 'settled' | 'tellOutcome'>
  readonly clock: Clock
  readonly log: Log
  wallMs(): number
  /** `drills.checks`. */
  readonly checks: Readonly<Record<string, string>>
}

interface Waiting {
  /** The record's words that the timer was set by. */
  readonly words: string
  cancel(): void
}

export class ScheduledDrills {
  readonly #deps: ScheduledDrillsDeps
  /** In the record while a drill of ours runs. */
  readonly #word: string
  readonly #waiting = new Map<string, Waiting>()
  /** Drills of the schedule that run here or wait for others; each ends when this peer is not the one to run it any more. */
  readonly #running = new Map<string, AbortController>()
  /** Those of a run that is over, being written down. */
  readonly #closing = new Set<string>()
  #queue: Promise<unknown> = Promise.resolve()
  #stopped = false

  constructor(deps: ScheduledDrillsDeps) {
    this.#deps = deps
    this.#word = `${deps.self} ${deps.run}`
    deps.directory.onForgotten(group => this.#forget(group))
    deps.keepers.follow(record => this.#consider(record))
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const group of [...this.#waiting.keys(), ...this.#running.keys()]) this.#forget(group)
    await this.#queue
  }

  #consider(record: GroupRecord): void {
    const { keepers, wallMs } = this.#deps
    const schedule = record.drills?.schedule
    if (this.#stopped || record.removed || schedule === undefined || !keepers.isOurs(record)) {
      return this.#forget(record.id)
    }
    if (this.#running.has(record.id) || this.#waiting.get(record.id)?.words === AGAIN) return
    if (this.#isOver(schedule.runs)) void this.#close(record, schedule)
    const dueInMs = drillDueInMs(record, wallMs())
    if (dueInMs === undefined) return this.#forget(record.id)
    this.#wait(record.id, `${schedule.everyMs} ${schedule.begunMs}`, dueInMs)
  }

  /** Every change of a group comes by here: a timer that is right stays. */
  #wait(group: string, words: string, ms: number): void {
    const { clock, directory } = this.#deps
    const before = this.#waiting.get(group)
    if (before?.words === words) return
    before?.cancel()
    const cancel = clock.after(Math.min(ms, LONGEST_WAIT_MS), () => {
      this.#waiting.delete(group)
      const record = directory.get(group)
      if (record === undefined) return
      if (ms > LONGEST_WAIT_MS) this.#consider(record)
      else this.#begin(record)
    })
    this.#waiting.set(group, { words, cancel })
  }

  #forget(group: string): void {
    this.#waiting.get(group)?.cancel()
    this.#waiting.delete(group)
    this.#running.get(group)?.abort()
  }

  #begin({ id: group, drills }: GroupRecord): void {
    const { directory, log } = this.#deps
    const stop = new AbortController()
    this.#running.set(group, stop)
    this.#queue = this.#queue
      .then(async () => await this.#run(group, drills?.schedule, stop.signal))
      .catch((error: unknown) => {
        log.warn({ group, error: messageOf(error) }, 'a drill of the schedule could not be begun')
        if (!this.#stopped) this.#wait(group, AGAIN, AGAIN_MS)
      })
      .finally(() => {
        this.#running.delete(group)
        const now = directory.get(group)
        if (now !== undefined && !this.#waiting.has(group)) this.#consider(now)
      })
  }

  async #run(group: string, schedule: DrillSchedule | undefined, signal: AbortSignal): Promise<void> {
    const { directory, drills, wallMs, checks, self, keepers } = this.#deps
    await drills.settled()
    if (signal.aborted || schedule === undefined) return
    const begunMs = Math.round(wallMs())
    const keeps = (now: GroupRecord): boolean => keepers.isOurs(now)
    const record = await directory.change(group, beginDrill(this.#word, begunMs, schedule.begunMs, keeps))
    const now = record?.drills?.schedule
    if (now?.runs !== this.#word || now.begunMs !== begunMs) return // it is somebody else's by now
    const { check: name, timeoutMs } = now
    try {
      // Of its own: a record names what it likes, and every object has a "constructor".
      if (name !== undefined && !Object.hasOwn(checks, name)) throw noCheck(name)
      const check = name === undefined ? undefined : checks[name]
      await drills.run({ group, check, timeoutMs }, { signal, tell: () => {}, scheduled: this.#word })
    } catch (error) {
      if (this.#stopped) return // the next run of this peer, or the next keeper, tells
      if (CAME_BETWEEN.some(code => hasCode(error, code))) return await this.#withdraw(group, schedule, signal)
      const atMs = Math.round(wallMs())
      const epoch = record?.committed?.epoch ?? 0
      const outcome = { epoch, by: self, atMs, tookMs: atMs - begunMs, failed: messageOf(error) }
      await drills.tellOutcome(group, outcome, this.#word)
    }
  }

  /** Others go on as if it had not begun: the keeper of by now, or this peer a little later. */
  async #withdraw(group: string, { begunMs }: DrillSchedule, signal: AbortSignal): Promise<void> {
    const record = await this.#deps.directory.change(group, withdrawDrill(this.#word, begunMs))
    const isAsBefore = record?.drills?.schedule !== undefined && record.drills.schedule.begunMs === begunMs
    if (isAsBefore && !signal.aborted) this.#wait(group, AGAIN, AGAIN_MS)
  }

  /** Whoever ran it has died over it: that is told, and the next one comes when it is due. */
  async #close({ id, committed }: GroupRecord, { runs = '', begunMs = 0 }: DrillSchedule): Promise<void> {
    const { drills, self, wallMs } = this.#deps
    if (this.#closing.has(runs)) return
    this.#closing.add(runs)
    const [by = self] = runs.split(' ')
    const failed = 'the peer that ran it was ended over it, or has lost the group'
    const atMs = Math.round(wallMs())
    const outcome = { epoch: committed?.epoch ?? 0, by, atMs, tookMs: Math.max(0, atMs - begunMs), failed }
    await drills.tellOutcome(id, outcome, runs)
    this.#closing.delete(runs)
  }

  #isOver(runs: string | undefined): boolean {
    if (runs === undefined || runs === this.#word) return false
    const { self, detector } = this.#deps
    const [peer = ''] = runs.split(' ')
    return peer === self || detector.livenessOf(peer) === 'dead'
  }
}

const noCheck = (name: string) =>
  new DiapauseError(
    'DRILL_CHECK_UNKNOWN',
    `this peer has no check "${name}": put it under [drills.checks] of its config`
  )
