/** What an operator can ask about policies: the API's `PolicyView` over the clock of epochs and what this peer remembers. */
import { setImmediate } from 'node:timers/promises'
import type { EpochPolicy } from '../../config/policy.ts'
import type { PeerId } from '../../protocols/core.ts'
import { setPolicy } from '../../protocols/epoch/policy.ts'
import type { SimulatedPolicy } from '../../protocols/epoch/policy-outcome.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { OutlookParts } from '../../protocols/overview/outlook.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { EpochClock } from '../agents/epoch-clock.ts'
import type { EpochCosts, GroupPolicy, PolicySimulation, PolicyView } from '../edge/policy-view.ts'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'
import { memberOlder, olderMembers, type VersionFacts } from '../planning/older-members.ts'
import { estimate } from '../planning/policies/cost-model.ts'
import { nextEpoch, policyText } from '../planning/policies/choose.ts'
import { costsOf, quantile } from '../planning/policies/measures.ts'
import { FEWEST_RECORDED, simulating } from '../planning/policies/simulate.ts'
import type { Clock, EpochHistory, PolicyModules, SeenEpoch } from '../ports.ts'

/** Epochs of which the usual cost is told. A guess: minutes at most settings. */
const LAST = 20
/** A simulation runs so long without a break. A guess: no heartbeat is late by it. */
const AT_ONCE_MS = 5
/** And so long in all. A guess: what a person waits for; an own policy that takes its deadline for each answer would take hours. */
const SIMULATION_MS = 30_000

export interface PolicyOperationsDeps extends VersionFacts {
  readonly directory: Pick<GroupDirectory, 'get' | 'refresh' | 'change'>
  readonly history: EpochHistory
  readonly epochClock: Pick<EpochClock, 'ask' | 'policyOf'>
  readonly modules: PolicyModules
  readonly nameOf: (peer: PeerId) => string
  readonly clock: Pick<Clock, 'now'>
  /** What a failover of a group would take if a host died, by VM (`PlanOperations`). */
  readonly partsIfLost: (group: string, lost: PeerId) => Promise<Readonly<Record<string, OutlookParts>>>
}

export class PolicyOperations implements PolicyView {
  readonly #deps: PolicyOperationsDeps
  /** One simulation at a time: the others wait. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(deps: PolicyOperationsDeps) {
    this.#deps = deps
  }

  async show(group: string): Promise<GroupPolicy> {
    const { epochClock, nameOf } = this.#deps
    const record = await this.#recordOf(group)
    const policy = epochClock.policyOf(record)
    const keeper = record.owners[record.vms[0]?.id ?? ''] ?? ''
    const { now, next, failed } = await this.#answerOf(policy ?? { kind: 'interval', everyMs: 1_000 }, group)
    return {
      group,
      policy: policy ?? null,
      text: policy === undefined ? 'on request only' : policyText(policy),
      own: record.policy !== undefined,
      keeper: nameOf(keeper),
      nowMs: now.nowMs,
      next: policy === undefined || record.resting ? null : (next ?? null),
      ...(failed !== undefined && { failed }),
      costs: await this.#costsOf(group, keeper)
    }
  }

  async set(group: string, policy: EpochPolicy | undefined): Promise<GroupRecord> {
    this.#requireModule(policy)
    const older = policy === undefined ? [] : olderMembers(this.#deps)
    if (older.length > 0) throw memberOlder(older, 'a policy')
    const record = await this.#deps.directory.change(group, setPolicy(policy))
    if (record !== null && !record.removed) return record
    throw unknown(group)
  }

  async simulate(group: string, policy: EpochPolicy): Promise<PolicySimulation> {
    await this.#recordOf(group)
    this.#requireModule(policy)
    const turn = this.#turn.then(() => this.#simulated(this.#deps.history.of(group), policy))
    this.#turn = turn.catch(() => {})
    const simulated = await turn
    if (simulated !== undefined) return { group, text: policyText(policy), ...simulated }
    throw new DiapauseError(
      'HISTORY_SHORT',
      `this peer remembers too few epochs of group "${group}" for a simulation: it takes ${FEWEST_RECORDED} that were committed one after the other in one generation, and one before them; try again later, or ask a member that has been up for longer`
    )
  }

  async #recordOf(group: string): Promise<GroupRecord> {
    const record = this.#deps.directory.get(group) ?? (await this.#deps.directory.refresh(group))
    if (record === null || record.removed) throw unknown(group)
    return record
  }

  async #answerOf(policy: EpochPolicy, group: string) {
    const { epochClock } = this.#deps
    try {
      return { ...(await epochClock.ask(policy, group)), failed: undefined }
    } catch (error) {
      const standIn = await epochClock.ask({ kind: 'interval', everyMs: 1_000 }, group)
      return { now: standIn.now, next: undefined, failed: messageOf(error) }
    }
  }

  /** A policy that no member here knows would only be found to fail later. */
  #requireModule(policy: EpochPolicy | undefined): void {
    const { names } = this.#deps.modules
    if (policy?.kind !== 'own' || names.includes(policy.name)) return
    const has = names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`
    throw new UsageError(
      'POLICY_UNKNOWN',
      `this peer has no policy "${policy.name}" under [policies] of its config (${has}), or could not load it; put it there, at every member that may run the group's first VM`
    )
  }

  /** In small steps: nothing else may wait for it, least of all the renewal of a lease. */
  async #simulated(recorded: readonly SeenEpoch[], policy: EpochPolicy): Promise<SimulatedPolicy | undefined> {
    const { modules, clock } = this.#deps
    const own = policy.kind === 'own' ? modules.alone(policy.name) : undefined
    const simulation = simulating(recorded)
    const startMs = clock.now()
    let pausedMs = startMs
    try {
      let step = simulation.next()
      while (step.done !== true) {
        const { history, now } = step.value
        const answer =
          policy.kind === 'own'
            ? await own?.next({ history, now, settings: policy.settings })
            : nextEpoch(policy, history, now)
        if (clock.now() - pausedMs >= AT_ONCE_MS) {
          await setImmediate()
          pausedMs = clock.now()
        }
        if (pausedMs - startMs > SIMULATION_MS) throw slow()
        step = simulation.next(answer)
      }
      return step.value
    } finally {
      await own?.end()
    }
  }

  async #costsOf(group: string, keeper: PeerId): Promise<EpochCosts | null> {
    const costs = costsOf(this.#deps.history.of(group)).slice(-LAST)
    if (costs.length === 0) return null
    const usual = (of: (cost: (typeof costs)[number]) => number): number => quantile(costs.map(of), 1 / 2)
    const parts = Object.values(await this.#deps.partsIfLost(group, keeper).catch(() => ({})))
    const [switchMs, recoverMs] = [
      slowest(
        parts.map(({ detectMs, decideMs }) => (detectMs === null || decideMs === null ? null : detectMs + decideMs))
      ),
      slowest(parts.map(({ runsMs }) => runsMs))
    ]
    const each = {
      pauseMs: usual(cost => cost.pauseMs),
      creationMs: usual(cost => cost.creationMs),
      mergeMs: usual(cost => cost.mergeMs)
    }
    const intervalMs = usual(cost => cost.intervalMs)
    const estimated = estimate(intervalMs, { ...each, switchMs: switchMs ?? 0, recoverMs: recoverMs ?? 0 })
    return {
      epochs: costs.length,
      intervalMs,
      ...each,
      changedBytes: usual(cost => cost.changedBytes),
      storedBytes: usual(cost => cost.storedBytes),
      ...estimated,
      downMs: switchMs === null || recoverMs === null ? null : estimated.downMs
    }
  }
}

/** Null where one of them was not measured, or there is none. */
const slowest = (times: readonly (number | null)[]): number | null =>
  times.length === 0 ? null : times.reduce((most, ms) => (most === null || ms === null ? null : Math.max(most, ms)))

const slow = (): DiapauseError =>
  new DiapauseError(
    'SIMULATION_SLOW',
    `the simulation was ended after ${SIMULATION_MS / 1_000} s: try a policy that answers faster, or longer intervals`
  )

const unknown = (group: string): DiapauseError =>
  new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
