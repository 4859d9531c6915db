/**
 * Epochs that nobody has to ask for: when a group's policy says so (`node/planning/policies/`). The peer that owns a group's first
 * VM keeps its clock; after a takeover that is another one, which remembers much the same history.
 *
 * A policy is asked when something has become of an epoch, and its answer becomes a timer by this host's monotonic clock; so a wall
 * clock that is set costs an early epoch at the worst. Where a policy fails, the interval of the config stands in and people are told.
 */
import type { EpochPolicy } from '../../config/policy.ts'
import type { PeerId } from '../../protocols/core.ts'
import { openEpoch } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'
import { nextEpoch, policyName, policyOrDefault, shownHistory } from '../planning/policies/choose.ts'
import { HISTORY_SHOWN, type PolicyNext, type PolicyNow } from '../planning/policies/policy.ts'
import type { Clock, EpochHistory, Log, PolicyModules } from '../ports.ts'
import type { EpochRecorder } from './epoch-history.ts'
import type { GroupDirectory } from './directory.ts'
import type { Report } from './host-parts.ts'

/** A policy that names a time further ahead, or none, is asked again then. A guess. */
const LOOK_AGAIN_MS = 3_600_000
/** Between two tries, whatever a policy says: the shortest interval that a policy can have (`config/policy.ts`). */
const BETWEEN_MS = 100
/** After one that could not be opened: another change of the record came first, or there is no majority. A guess. */
const RETRY_MS = 5_000
/** Stands in for a policy that fails where the config has no interval: its default. */
const STAND_IN_MS = 10_000

export interface EpochClockDeps {
  readonly self: PeerId
  readonly directory: Pick<GroupDirectory, 'get' | 'refresh' | 'change' | 'onRecord' | 'onForgotten'>
  readonly history: EpochHistory & Pick<EpochRecorder, 'noteCause'>
  readonly clock: Clock
  readonly wallMs: () => number
  readonly log: Log
  readonly report: Report
  /** For groups without a policy of their own. 0: epochs on request only. */
  readonly intervalMs: number
  readonly policy?: EpochPolicy | undefined
  readonly deadlineMs: number
  /** Absent: there are none. */
  readonly modules?: Pick<PolicyModules, 'next'> | undefined
}

/** A group whose clock this peer keeps. */
interface Kept {
  readonly generation: number
  /** By the wall clock: when this peer began, or opened the last one before. */
  sinceMs: number
  /** By the monotonic clock. */
  triedMs: number
  /** The last try failed. */
  retries: boolean
  /** Grows with each question, so that an answer that comes late is known as one. */
  asked: number
  cancel: () => void
}

export class EpochClock {
  readonly #deps: EpochClockDeps
  readonly #kept = new Map<string, Kept>()
  /** What people were told last of a group's policy that fails. */
  readonly #failures = new Map<string, string>()
  #stopped = false

  /** Made after those who report of epochs: what became of one is in the history when its record is seen here. */
  constructor(deps: EpochClockDeps) {
    this.#deps = deps
    deps.directory.onRecord(record => this.#onRecord(record))
    deps.directory.onForgotten(group => this.#leave(group))
  }

  stop(): void {
    this.#stopped = true
    for (const group of this.#kept.keys()) this.#leave(group)
  }

  /**
   * Opens the next epoch; with `rest` the group rests when it is committed. EPOCH_OPEN where one is under way, GROUP_UNKNOWN
   * without such a group, UsageError GROUP_RESTS.
   */
  async propose(id: string, policy = 'request', why = 'somebody asked for it', rest = false): Promise<GroupRecord> {
    const { directory, self, deadlineMs, history } = this.#deps
    const seen = directory.get(id) ?? (await directory.refresh(id))
    if (seen === null || seen.removed)
      throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${id}" in this cluster.`)
    if (seen.resting) {
      const how = `diapause vm start ${id} brings it back`
      throw new UsageError('GROUP_RESTS', `Group "${id}" rests: no VM of it runs that could be saved; ${how}.`)
    }
    const now = await directory.change(id, openEpoch(self, deadlineMs, seen.version, rest))
    if (now?.open?.proposer === self && now.version === seen.version + 1) {
      history.noteCause(id, now.generation, now.open.epoch, { by: self, policy, why })
      return now
    }
    throw new DiapauseError('EPOCH_OPEN', `Group "${id}" changed at this moment or has an open epoch; try again.`, {
      details: { open: now?.open ?? null }
    })
  }

  /** By which policy a group's epochs are taken. Undefined: on request only. */
  policyOf({ policy }: Pick<GroupRecord, 'policy'>): EpochPolicy | undefined {
    return policyOrDefault(policy, this.#deps)
  }

  /** What a policy says now, by what this peer knows. POLICY_UNKNOWN, POLICY_FAILED. */
  async ask(policy: EpochPolicy, group: string, sinceMs = this.#kept.get(group)?.sinceMs ?? 0) {
    const { history, modules } = this.#deps
    const past = history.of(group, HISTORY_SHOWN + 1)
    const now = this.#now(past.at(-1)?.openedAtMs ?? 0, sinceMs)
    if (policy.kind !== 'own') return { now, next: nextEpoch(policy, past, now) }
    if (modules === undefined) throw new DiapauseError('POLICY_UNKNOWN', 'this peer has no policies of its own')
    const question = { history: shownHistory(past), now, settings: policy.settings }
    return { now, next: await modules.next(policy.name, question) }
  }

  /** A wall clock that was set back says that the last epoch is yet to come. */
  #now(lastMs: number, sinceMs: number): PolicyNow {
    return { nowMs: Math.max(this.#deps.wallMs(), lastMs, sinceMs), sinceMs }
  }

  #onRecord(record: GroupRecord): void {
    const { self, wallMs } = this.#deps
    const first = record.vms[0]
    if (this.#stopped) return
    if (record.removed || record.resting || first === undefined || record.owners[first.id] !== self)
      return this.#leave(record.id)
    if (this.#kept.get(record.id)?.generation !== record.generation) {
      this.#leave(record.id)
      const { generation } = record
      const begun = {
        generation,
        sinceMs: this.#lastOf(record) ?? wallMs(),
        retries: false,
        triedMs: Number.NEGATIVE_INFINITY,
        asked: 0,
        cancel: () => {}
      }
      this.#kept.set(record.id, begun)
    }
    this.#plan(record.id)
  }

  /** When the last epoch of this generation was opened: a peer that was away for a moment goes on where it was. */
  #lastOf({ id, generation }: GroupRecord): number | undefined {
    const last = this.#deps.history.of(id, 1).at(-1)
    return last?.generation === generation && last.openedAtMs <= this.#deps.wallMs() ? last.openedAtMs : undefined
  }

  #leave(group: string): void {
    const kept = this.#kept.get(group)
    if (kept === undefined) return
    kept.asked++
    kept.cancel()
    this.#kept.delete(group)
    this.#failures.delete(group)
  }

  /** While an epoch is open there is nothing to plan: its end is a new record. */
  #plan(group: string): void {
    const { directory, log } = this.#deps
    const kept = this.#kept.get(group)
    const record = directory.get(group)
    if (kept === undefined || record === undefined || this.#stopped) return
    const asked = ++kept.asked
    kept.cancel()
    kept.sinceMs = Math.min(kept.sinceMs, this.#deps.wallMs()) // it was set back
    const policy = this.policyOf(record)
    if (record.open !== null || policy === undefined) return
    this.#answerOf(policy, group, kept)
      .then(({ next, now, name }) => {
        if (kept.asked === asked) this.#wait(group, kept, name, next, now)
      })
      .catch((error: unknown) => log.error({ group, error: messageOf(error) }, 'no policy says when an epoch is due'))
  }

  async #answerOf(policy: EpochPolicy, group: string, kept: Kept) {
    const name = policyName(policy)
    try {
      const answer = await this.ask(policy, group, kept.sinceMs)
      if (this.#failures.delete(group)) this.#deps.report('policy.works', { group, policy: name })
      return { ...answer, name }
    } catch (error) {
      const everyMs = this.#deps.intervalMs === 0 ? STAND_IN_MS : this.#deps.intervalMs
      const reason = messageOf(error)
      if (this.#failures.get(group) !== reason) {
        this.#failures.set(group, reason)
        this.#deps.report('policy.failed', { group, policy: name, reason, everyMs })
      }
      return { ...(await this.ask({ kind: 'interval', everyMs }, group, kept.sinceMs)), name: 'interval' }
    }
  }

  #wait(group: string, kept: Kept, name: string, next: PolicyNext | undefined, { nowMs }: PolicyNow): void {
    const { clock } = this.#deps
    const leastMs = Math.max(0, kept.triedMs + (kept.retries ? RETRY_MS : BETWEEN_MS) - clock.now())
    const inMs = next === undefined ? LOOK_AGAIN_MS : Math.max(leastMs, next.atMs - nowMs)
    if (next === undefined || inMs > LOOK_AGAIN_MS) {
      kept.cancel = clock.after(LOOK_AGAIN_MS, () => this.#plan(group))
      return
    }
    kept.cancel = clock.after(inMs, () => void this.#take(group, kept, name, next.why))
  }

  async #take(group: string, kept: Kept, name: string, why: string): Promise<void> {
    const { clock, log } = this.#deps
    kept.triedMs = clock.now()
    try {
      await this.propose(group, name, why)
      kept.retries = false
    } catch (error) {
      log.info({ group, error: messageOf(error) }, 'epoch not opened')
      kept.retries = true
      if (this.#kept.get(group) === kept) this.#plan(group)
    }
  }
}
