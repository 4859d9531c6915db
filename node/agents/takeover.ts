/**
 * When a peer is declared dead, the survivors move its VMs: each plans by the same pure planner, waits its rank's turn,
 * and tries the compare-and-set on the group's register. Voters accept it only when the dead owner's leases have run
 * out; the first to succeed has decided for all. Suspicion may be wrong: the lease then keeps the owner safe.
 */
import { isDeepStrictEqual } from 'node:util'
import type { PeerId } from '../../protocols/core.ts'
import type { Note } from '../../protocols/decisions/facts.ts'
import { cameTooLate, takeOver } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import { type PlacementFacts, placeRestore, whyHomeless } from '../planning/placement.ts'
import type { Clock, FailureDetector, Log } from '../ports.ts'
import { factOfPlan, factOfWait } from './decisions-sources.ts'
import type { GroupDirectory } from './directory.ts'
import type { Report } from './group-agent.ts'
import { restoreFacts, type RestoreFactsDeps, roomText } from './restore-facts.ts'

/** Survivor of rank r begins r × this later, so that usually one tries and the others need not. A guess: a round trip with fsync. */
const RANK_STEP_MS = 60
/** Shortest pause between two tries. */
const RETRY_MS = 25
/** After a try that failed; where no host had room, only what the room follows from is looked at so often. A guess. */
const LOOK_MS = 500
/** Where no host has room, a plan is made again after so long although nothing has changed. A guess. */
const NO_ROOM_MS = 10_000

export interface TakeoverDeps extends RestoreFactsDeps {
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly detector: FailureDetector
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  /** For the decision log. */
  readonly note: Note
}

export class TakeoverAgent {
  readonly #deps: TakeoverDeps
  /** Groups with an attempt under way or waiting. */
  readonly #busy = new Set<string>()
  /** Groups that no host had room for: what that followed from, and until when it is believed. */
  readonly #full = new Map<string, { readonly room: string; readonly untilMs: number }>()
  #stopped = false

  constructor(deps: TakeoverDeps) {
    this.#deps = deps
    deps.detector.onChange((_, liveness) => {
      if (liveness === 'dead') this.considerAll()
    })
    deps.directory.onRecord(record => this.#consider(record))
  }

  /** By which a takeover of the group would be planned now. */
  facts(record: GroupRecord): PlacementFacts {
    return restoreFacts(this.#deps, record)
  }

  /** What the room for a group's VMs follows from, as a text. */
  room(): string {
    return roomText(this.#deps)
  }

  /** The members changed: an owner that was removed counts as dead. */
  considerAll(): void {
    for (const record of this.#deps.directory.all()) this.#consider(record)
  }

  stop(): void {
    this.#stopped = true
  }

  #lost(record: GroupRecord): string[] {
    if (record.removed || record.resting) return []
    return record.vms.map(vm => vm.id).filter(vm => this.#deps.detector.livenessOf(record.owners[vm] ?? '') === 'dead')
  }

  #consider(record: GroupRecord): void {
    const lost = this.#lost(record)
    if (this.#stopped || this.#busy.has(record.id) || lost.length === 0) return
    this.#busy.add(record.id)
    const rank = Math.max(0, this.#deps.detector.alive().indexOf(this.#deps.self))
    const { id: group, generation, owners } = record
    const dead = [...new Set(lost.map(vm => owners[vm] ?? ''))]
    this.#deps.note({ kind: 'takeover-due', group, generation, lost, dead, rank, waitMs: rank * RANK_STEP_MS })
    this.#later(record.id, rank * RANK_STEP_MS)
  }

  #later(id: string, ms: number): void {
    this.#deps.clock.after(ms, () => void this.#attempt(id))
  }

  async #attempt(id: string): Promise<void> {
    const { directory, clock, log, report, note } = this.#deps
    const record = directory.get(id)
    const lost = record === undefined ? [] : this.#lost(record)
    if (this.#stopped || record === undefined || lost.length === 0) {
      this.#busy.delete(id)
      this.#full.delete(id)
      return this.#end(record, 'not-needed')
    }
    const room = roomText(this.#deps)
    const full = this.#full.get(id)
    if (full?.room === room && clock.now() < full.untilMs) return this.#later(id, LOOK_MS)
    this.#full.delete(id)
    const wasFull = full !== undefined
    const facts = this.facts(record)
    const plan = placeRestore(record, facts)
    try {
      if (plan.homeless.length > 0) throw new DiapauseError('TAKEOVER_NO_HOST', whyHomeless(plan.homeless, facts))
      note(factOfPlan(record, plan))
      const { owners } = plan
      const { generation } = record
      const late = (is: GroupRecord): boolean => cameTooLate(is, generation, owners)
      const now = await directory.change(id, takeOver(generation, owners), late)
      this.#busy.delete(id)
      // By content, not by whose try it was: survivors that had the same plan have decided it together.
      const decided = now?.generation === record.generation + 1 && isDeepStrictEqual(now.owners, owners)
      this.#end(record, decided ? 'decided' : 'other-plan')
      if (decided) {
        const epoch = now.committed?.epoch ?? 0
        report('takeover.decided', { group: id, generation: now.generation, epoch, owners, lost })
      }
      if (now !== null) this.#consider(now) // another peer may have died meanwhile
    } catch (error) {
      const leased = hasCode(error, 'REGISTER_LEASED') && error instanceof DiapauseError
      const retryMs = leased ? Number(error.details.retryMs) : LOOK_MS
      if (!leased) log.warn({ group: id, error: messageOf(error) }, 'takeover not decided yet')
      const waitMs = Math.max(RETRY_MS, Number.isFinite(retryMs) ? retryMs : RETRY_MS)
      const noRoom = hasCode(error, 'TAKEOVER_NO_HOST')
      if (noRoom) this.#full.set(id, { room, untilMs: clock.now() + NO_ROOM_MS })
      if (noRoom && !wasFull) report('takeover.no-host', { group: id, lost, reason: messageOf(error) })
      note(factOfWait(record, error, noRoom ? NO_ROOM_MS : waitMs))
      this.#later(id, waitMs)
    }
  }

  #end(record: GroupRecord | undefined, outcome: 'decided' | 'other-plan' | 'not-needed'): void {
    if (record === undefined || this.#stopped) return
    const { id: group, generation } = record
    this.#deps.note({ kind: 'takeover-ended', group, generation, outcome })
  }
}
