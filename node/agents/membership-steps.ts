/**
 * Works towards what the cluster's record wishes: each peer plans the next step by the same pure planner, waits its
 * rank's turn, and tries it as a guarded compare-and-set. Who began a step may die: the others go on with it.
 */
import type { PeerId } from '../../protocols/core.ts'
import {
  addVoter,
  type Change,
  dropExpiredInvites,
  giveKeys,
  markSettled,
  removeMember,
  removeVoter
} from '../../protocols/membership/changes.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import { messageOf } from '../errors.ts'
import { type MembershipFacts, type MembershipStep, planMembershipStep } from '../planning/membership.ts'
import type { Clock, FailureDetector, Log, RegisterVoters } from '../ports.ts'
import type { DataKeyRing } from './data-keys.ts'
import type { GroupDirectory } from './directory.ts'
import type { MembershipAgent } from './membership.ts'

/** What is to be done may follow from what a peer sees, which no record tells. A guess. */
const LOOK_EVERY_MS = 1_000
/** The peer of rank r begins r × this later, so that usually one acts. A guess: a compare-and-set on a busy host. */
const RANK_STEP_MS = 500
/** As RANK_STEP_MS, for settling, which waits for leases to run out. A guess. */
const SETTLE_RANK_STEP_MS = 5_000
/** After a failure; doubled up to 16 times it, with jitter. A guess. */
const RETRY_MS = 500

export interface StepsDeps {
  readonly membership: MembershipAgent
  readonly directory: Pick<GroupDirectory, 'survey'>
  readonly detector: FailureDetector
  readonly dataKeys: DataKeyRing
  readonly clock: Clock
  readonly random: () => number
  readonly log: Log
  facts(): Promise<MembershipFacts>
  readonly registers: Pick<RegisterVoters, 'settle'>
  /** How long a lease may run on that was granted under the set before. */
  leaseMs(): number
}

export class MembershipSteps {
  readonly #deps: StepsDeps
  #due: { readonly key: string; atMs: number; failures: number } | undefined
  #busy = false
  #again = false
  #stopped = false
  #cancel: () => void = () => {}

  constructor(deps: StepsDeps) {
    this.#deps = deps
    deps.membership.onChange(() => this.#look())
  }

  start(): void {
    this.#look()
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  #look(): void {
    if (this.#stopped) return
    if (this.#busy) {
      this.#again = true
      return
    }
    this.#busy = true
    this.#advance()
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#busy = false
        const inMs = this.#again ? 0 : Math.min(LOOK_EVERY_MS, Math.max(0, this.#dueAtMs() - this.#deps.clock.now()))
        this.#again = false
        this.#cancel()
        if (!this.#stopped) this.#cancel = this.#deps.clock.after(inMs, () => this.#look())
      })
  }

  #dueAtMs(): number {
    return this.#due?.atMs ?? Number.POSITIVE_INFINITY
  }

  async #advance(): Promise<void> {
    const { membership, detector, clock } = this.#deps
    const record = membership.record()
    if (memberById(record, membership.self) === undefined) return
    const step = planMembershipStep(record, await this.#deps.facts())
    if (step === undefined) {
      this.#due = undefined
      return
    }
    const key = JSON.stringify(step)
    if (this.#due?.key !== key) {
      const rank = Math.max(0, detector.alive().indexOf(membership.self))
      const rankStepMs = step.kind === 'settle' ? SETTLE_RANK_STEP_MS : RANK_STEP_MS
      this.#due = { key, atMs: clock.now() + rank * rankStepMs, failures: 0 }
    }
    if (clock.now() >= this.#due.atMs) await this.#carryOut(step, record)
  }

  async #carryOut(step: MembershipStep, record: ClusterRecord): Promise<void> {
    const { membership, log } = this.#deps
    const name = 'peer' in step ? memberById(record, step.peer)?.name : undefined
    log.info({ ...step, name }, 'a step of membership')
    const change = await this.#changeFor(step)
    if (change === undefined) return
    const { version } = await membership.change(change)
    await membership.until(version) // or the same step would be planned once more
  }

  /** Undefined: it need not be done any more. */
  async #changeFor(step: MembershipStep): Promise<Change | undefined> {
    if (step.kind === 'settle') return await this.#settle()
    if (step.kind === 'add-voter') return addVoter(step.version, step.peer)
    if (step.kind === 'remove-voter') return removeVoter(step.version, step.peer)
    if (step.kind === 'remove-member') return await this.#removal(step.peer)
    if (step.kind === 'give-keys') return giveKeys(this.#deps.dataKeys.making(undefined))
    const { wallMs } = await this.#deps.facts()
    return dropExpiredInvites(wallMs)
  }

  /** Nothing brings a member back: what this peer knows of the groups, which may be old, is brought up to date first. */
  async #removal(peer: PeerId): Promise<Change | undefined> {
    const { membership, directory, facts, dataKeys } = this.#deps
    if (memberById(membership.record(), peer)?.forced !== true) {
      await directory.survey()
      const step = planMembershipStep(membership.record(), await facts())
      if (step?.kind !== 'remove-member' || step.peer !== peer) return undefined
    }
    return removeMember(peer, dataKeys.making((await facts()).neededKeys))
  }

  /** The three things that `protocols/register/voters.ts` asks for, in its order. */
  async #settle(): Promise<Change | undefined> {
    const { registers, clock, leaseMs } = this.#deps
    const { version, refusedSinceMs } = await registers.settle()
    const overInMs = refusedSinceMs + leaseMs() - clock.now()
    if (overInMs > 0) await new Promise<void>(resolve => clock.after(overInMs, resolve))
    return this.#stopped ? undefined : markSettled(version)
  }

  #failed(error: unknown): void {
    const { clock, random, log } = this.#deps
    log.info({ error: messageOf(error) }, 'a step of membership did not succeed yet')
    if (this.#due === undefined) return
    const waitMs = RETRY_MS * 2 ** Math.min(this.#due.failures++, 4)
    this.#due.atMs = clock.now() + waitMs * (0.5 + random() / 2)
  }
}
