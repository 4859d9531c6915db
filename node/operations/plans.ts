/** What would happen if a host died: the API's `PlanView`, of what this peer knows now. */
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { MAX_AGO_MS } from '../../protocols/decisions/merge.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { memberById } from '../../protocols/membership/record.ts'
import type { DecisionLog } from '../agents/decisions.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Groups } from '../agents/groups.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { StoragePeers } from '../agents/storage-peers.ts'
import type { TakeoverAgent } from '../agents/takeover.ts'
import type { GroupPlan, PlannedLoss, PlanView, PlanWish } from '../edge/plan-view.ts'
import { UsageError } from '../errors.ts'
import { hostsToLose, type LossFacts, type LossPlan, planLoss } from '../planning/loss-plan.ts'
import { type MeasuredParts, measuredParts } from '../planning/measured-parts.ts'
import type { BackParts } from '../planning/outlook.ts'

export interface PlanOperationsDeps {
  readonly config: Pick<Config, 'restore'>
  readonly membership: Pick<MembershipAgent, 'record'>
  readonly directory: Pick<GroupDirectory, 'all'>
  readonly storagePeers: Pick<StoragePeers, 'about'>
  readonly decisions: Pick<DecisionLog, 'why'>
  readonly takeover: Pick<TakeoverAgent, 'facts'>
  readonly groups: Pick<Groups, 'talksOf'>
}

export class PlanOperations implements PlanView {
  readonly #deps: PlanOperationsDeps

  constructor(deps: PlanOperationsDeps) {
    this.#deps = deps
  }

  async plan({ group, host }: PlanWish): Promise<GroupPlan[]> {
    const records = this.#deps.directory.all().filter(({ id, removed }) => !removed && (group ?? id) === id)
    if (group !== undefined && records.length === 0)
      throw new UsageError('GROUP_UNKNOWN', `there is no group "${group}"`)
    const lost = host === undefined ? undefined : this.#memberOf(host)
    const plans = await Promise.all(records.map(record => this.#planOf(record, lost)))
    return plans.toSorted((a, b) => (a.group < b.group ? -1 : 1))
  }

  /** For each VM of the group, the parts of a failover if `lost` died. */
  async partsIfLost(group: string, lost: PeerId): Promise<Record<string, BackParts>> {
    const record = this.#deps.directory.all().find(({ id, removed }) => id === group && !removed)
    if (record === undefined) return {}
    const { detectMs = null, decideMs = null, line, unmeasured, homeless } = planLoss(lost, await this.#factsOf(record))
    const never = homeless.length > 0
    const starts = line.together.flatMap(each => each.starts)
    const parts = ({ vm, atMs }: { readonly vm: string; readonly atMs: number }): BackParts => ({
      detectMs,
      decideMs,
      runsMs: never || unmeasured.includes(vm) ? null : atMs,
      ...(never && { never })
    })
    return Object.fromEntries(starts.map(start => [start.vm, parts(start)]))
  }

  async #planOf(record: GroupRecord, lost: PeerId | undefined): Promise<GroupPlan> {
    const { id: group, committed } = record
    const epoch = committed?.epoch ?? 0
    if (record.resting) return { group, epoch, resting: true, losses: [] }
    const facts = await this.#factsOf(record)
    const losses = lost === undefined ? hostsToLose(record, facts.placement) : [lost]
    return { group, epoch, losses: losses.map(each => this.#told(planLoss(each, facts), record)) }
  }

  async #factsOf(record: GroupRecord): Promise<LossFacts> {
    const { config, takeover, groups } = this.#deps
    const placement = takeover.facts(record)
    const [talks, measured] = await Promise.all([groups.talksOf(record), this.#measured(record)])
    return { record, placement, talks, measured, togetherMs: config.restore.togetherMs }
  }

  /** What peers that answer remember. A VM of which nobody knows anything has no parts. */
  async #measured({ id: group, vms }: GroupRecord): Promise<Record<string, MeasuredParts>> {
    const each = vms.map(async ({ id: vm }) => {
      const question = { group, vm, agoMs: MAX_AGO_MS, here: false }
      const { told } = await this.#deps.decisions.why(question).catch(() => ({ told: [] }))
      return [vm, measuredParts(told, vm)] as const
    })
    return Object.fromEntries(await Promise.all(each))
  }

  #told(plan: LossPlan, record: GroupRecord): PlannedLoss {
    const { moves, homeless, line, detectMs = null, decideMs = null, unmeasured } = plan
    const owners = { ...record.owners, ...Object.fromEntries(moves.map(({ vm, to }) => [vm.id, to])) }
    const nowhere = new Set(homeless.map(({ id }) => id))
    const lastMs = Math.max(0, ...line.together.flatMap(({ starts }) => starts.map(({ atMs }) => atMs)))
    const known = detectMs !== null && decideMs !== null && unmeasured.length === 0 && homeless.length === 0
    return {
      host: this.#nameOf(plan.lost),
      vms: plan.vms,
      moves: moves.map(({ vm, to, promised, standby, columns, shares = null }) => ({
        vm: vm.id,
        to: this.#nameOf(to),
        memoryMiB: vm.memoryMiB,
        promisedMiB: promised.find(({ peer }) => peer === to)?.memoryMiB ?? 0,
        givesMiB: this.#deps.storagePeers.about([to])[0]?.vmMemoryMiB ?? null,
        standby,
        columns,
        shares
      })),
      homeless: homeless.map(({ id, memoryMiB }) => ({ vm: id, memoryMiB })),
      together: line.together.map(({ starts, waits }) => ({
        starts: starts.map(start => ({
          ...start,
          on: nowhere.has(start.vm) ? null : this.#nameOf(owners[start.vm] ?? '')
        })),
        waits
      })),
      detectMs,
      decideMs,
      totalMs: known ? detectMs + decideMs + lastMs : null,
      unmeasured
    }
  }

  #nameOf(peer: PeerId): string {
    return memberById(this.#deps.membership.record(), peer)?.name ?? peer
  }

  #memberOf(nameOrId: string): PeerId {
    const member = this.#deps.membership.record().members.find(({ id, name }) => id === nameOrId || name === nameOrId)
    if (member === undefined) throw new UsageError('HOST_UNKNOWN', `there is no member "${nameOrId}"`)
    return member.id
  }
}
