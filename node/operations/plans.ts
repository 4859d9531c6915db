/** What would happen if a host died: the API's `PlanView`, of what this peer knows now. */
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { MAX_AGO_MS } from '../../protocols/decisions/merge.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { Obstacle, OutlookParts } from '../../protocols/overview/outlook.ts'
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
import { obstacleTo, type StoredImage } from '../planning/obstacles.ts'
import { placeRestore, without } from '../planning/placement.ts'
import type { FailureDetector } from '../ports.ts'

export interface PlanOperationsDeps {
  readonly config: Pick<Config, 'restore'>
  readonly membership: Pick<MembershipAgent, 'record'>
  readonly directory: Pick<GroupDirectory, 'all'>
  readonly storagePeers: Pick<StoragePeers, 'about'>
  readonly decisions: Pick<DecisionLog, 'why'>
  readonly takeover: Pick<TakeoverAgent, 'facts' | 'room'>
  readonly groups: Pick<Groups, 'talksOf'>
  readonly detector: Pick<FailureDetector, 'alive'>
  /** What a group would go back to, as far as it is known. Absent: this peer stores nothing. */
  readonly imagesOf?: ((record: GroupRecord) => Promise<readonly StoredImage[]>) | undefined
}

export class PlanOperations implements PlanView {
  readonly #deps: PlanOperationsDeps
  /** The room that there was when it was looked last, and of groups and lost hosts whether some VM would have had no host. */
  #room = ''
  readonly #homeless = new Map<string, boolean>()

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

  /** For each VM of the group, the parts of a failover if `lost` died and nothing stood in the way. */
  async partsIfLost(group: string, lost: PeerId): Promise<Record<string, OutlookParts>> {
    const record = this.#deps.directory.all().find(({ id, removed }) => id === group && !removed)
    if (record === undefined) return {}
    const { detectMs = null, decideMs = null, line, unmeasured } = planLoss(lost, await this.#factsOf(record))
    const starts = line.together.flatMap(each => each.starts)
    return Object.fromEntries(
      starts.map(({ vm, atMs }) => [vm, { detectMs, decideMs, runsMs: unmeasured.includes(vm) ? null : atMs }])
    )
  }

  /** What would keep the group from coming back if `lost` died, as it is at this moment. `images`: what it would go back to. */
  obstacleIfLost(record: GroupRecord, lost: PeerId, images: readonly StoredImage[]): Obstacle | undefined {
    return obstacleTo(lost, { ...this.#standing(), images, hasHomeless: this.#hasHomeless(record, lost) })
  }

  /** A plan takes long, so none is made again while the room is what it was. */
  #hasHomeless(record: GroupRecord, lost: PeerId): boolean {
    const { takeover } = this.#deps
    const room = takeover.room()
    if (room !== this.#room) this.#homeless.clear()
    this.#room = room
    const key = `${record.id} ${lost}`
    const known = this.#homeless.get(key)
    if (known !== undefined) return known
    const hasHomeless = placeRestore(record, without(takeover.facts(record), lost)).homeless.length > 0
    this.#homeless.set(key, hasHomeless)
    return hasHomeless
  }

  #standing(): { readonly voters: readonly PeerId[]; readonly living: readonly PeerId[] } {
    const { membership, detector } = this.#deps
    return { voters: membership.record().voters.ids, living: detector.alive() }
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
    const [talks, measured, images = []] = await Promise.all([
      groups.talksOf(record),
      this.#measured(record),
      this.#deps.imagesOf?.(record)
    ])
    return { record, placement, talks, measured, images, ...this.#standing(), togetherMs: config.restore.togetherMs }
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
    const { moves, homeless, obstacle, line, detectMs = null, decideMs = null, unmeasured } = plan
    const owners = { ...record.owners, ...Object.fromEntries(moves.map(({ vm, to }) => [vm.id, to])) }
    const nowhere = new Set(homeless.map(({ id }) => id))
    const lastMs = Math.max(0, ...line.together.flatMap(({ starts }) => starts.map(({ atMs }) => atMs)))
    const known = detectMs !== null && decideMs !== null && unmeasured.length === 0 && obstacle === undefined
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
      ...(obstacle !== undefined && { obstacle }),
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
