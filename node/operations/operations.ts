/** What an operator can see of a peer and ask of it: the API's `PeerView` over the agents. */
import { isDeepStrictEqual } from 'node:util'
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Story, WhyQuestion } from '../../protocols/decisions/merge.ts'
import { createGroup, removeGroup } from '../../protocols/epoch/record.ts'
import { type GroupRecord, groupKey, type VmSpec } from '../../protocols/group.ts'
import type { LeaseVoter } from '../../protocols/lease/voter.ts'
import { placeable } from '../../protocols/membership/record.ts'
import type { LackingHost } from '../agents/boot-files.ts'
import type { DecisionLog } from '../agents/decisions.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { EpochClock } from '../agents/epoch-clock.ts'
import type { Groups } from '../agents/groups.ts'
import type { LocalVm } from '../agents/local-vm.ts'
import type { MembershipAgent } from '../agents/membership.ts'
import type { Objectives } from '../agents/objectives.ts'
import type { RemovalNews } from '../agents/removal-news.ts'
import type { StoragePeers } from '../agents/storage-peers.ts'
import type { EventFeed } from '../edge/events.ts'
import type { RedundancyStatus } from '../edge/redundancy-view.ts'
import type {
  EpochResult,
  GroupRequest,
  GroupStatus,
  PeerItself,
  PeerParts,
  PeerStatus,
  PeerView,
  StoreStatus
} from '../edge/view.ts'
import { DiapauseError } from '../errors.ts'
import { enduranceNow, placeOf } from '../planning/endurance.ts'
import { memberOlder, newVms, olderMembers } from '../planning/older-members.ts'
import { placeVms, whyHomeless } from '../planning/placement.ts'
import { checkRoom } from '../planning/retention-policy.ts'
import type { CaptureNow, Clock, FailureDetector, Leases, ShardStore, Switch, Transport } from '../ports.ts'
import { requireNoneLacking } from './missing-files.ts'
import { takeEpoch } from './take-epoch.ts'

export interface OperationsDeps {
  readonly config: Config
  readonly self: PeerId
  readonly version: string
  readonly hypervisor: string
  readonly capture: CaptureNow | null
  readonly events: EventFeed
  readonly clock: Clock
  readonly redundancy: { status(): RedundancyStatus | null }
  readonly objectives: Pick<Objectives, 'outlooksOf'>
  readonly membership: MembershipAgent
  readonly directory: GroupDirectory
  readonly removal: Pick<RemovalNews, 'told'>
  readonly decisions: DecisionLog
  readonly groups: Groups
  readonly epochClock: Pick<EpochClock, 'propose'>
  readonly detector: FailureDetector
  readonly transport: Transport
  readonly storagePeers: Pick<StoragePeers, 'about'>
  readonly leases: Leases
  readonly voter: Pick<LeaseVoter, 'refusedClaims'>
  readonly network: Switch
  readonly store: ShardStore | undefined
  /** Of hosts, those that lack what VMs boot from; undefined: this peer cannot ask. */
  readonly lacking: ((vms: readonly VmSpec[], hosts: readonly PeerId[]) => Promise<LackingHost[]>) | undefined
  /** Writes of an older generation that this peer's store has refused; undefined: it stores nothing. */
  readonly refusedShards: (() => number) | undefined
}

function runningOf(vms: readonly LocalVm[]): Pick<GroupStatus, 'running' | 'captures'> {
  const running = vms.filter(vm => vm.running)
  const captures = running.flatMap(({ spec, capture }) => (capture === undefined ? [] : [[spec.id, capture] as const]))
  return { running: running.map(({ spec }) => spec.id), captures: Object.fromEntries(captures) }
}

class Operations implements PeerItself {
  readonly #deps: OperationsDeps
  readonly #startedMs: number

  constructor(deps: OperationsDeps) {
    this.#deps = deps
    this.#startedMs = deps.clock.now()
  }

  groups(): readonly GroupRecord[] {
    return this.#deps.directory.all().filter(record => !record.removed)
  }

  async status(): Promise<PeerStatus> {
    const { config, self, version, hypervisor, clock, detector, transport, leases, network, groups } = this.#deps
    const { storagePeers } = this.#deps
    const record = this.#deps.membership.record()
    const storage = storagePeers.about(placeable(record))
    const { k, m } = config.shards
    const removal = this.#deps.removal.told()
    return {
      name: config.peer.name,
      id: self,
      version,
      cluster: config.cluster.name,
      ...(removal && { removed: removal }),
      pid: process.pid,
      uptimeMs: clock.now() - this.#startedMs,
      hypervisor,
      capture: this.#deps.capture,
      members: record.members.map(({ id, name, address, role }) => ({
        id,
        name,
        address,
        role,
        votes: record.voters.ids.includes(id),
        liveness: detector.livenessOf(id),
        connected: id === self || transport.connected(id),
        ...placeOf(storagePeers.about([id]))
      })),
      code: { k, m, ...enduranceNow(storage, detector.alive(), { k, m }) },
      groups: this.groups().map(group => ({
        record: group,
        ...runningOf(groups.vmsOf(group.id)),
        leaseRemainingMs: leases.remainingMs(groupKey(group.id), group.generation),
        outlooks: this.#deps.objectives.outlooksOf(group.id)
      })),
      frames: network.stats(),
      refused: {
        frames: network.stats().refusedGeneration,
        reports: groups.refusedReports(),
        shards: this.#deps.refusedShards?.() ?? 0,
        claims: this.#deps.voter.refusedClaims,
        changes: this.#deps.directory.refusedChanges
      },
      store: await this.#storeStatus(),
      redundancy: this.#deps.redundancy.status(),
      standbys: groups.standbys
    }
  }

  async createGroup(wish: GroupRequest, { dryRun } = { dryRun: false }): Promise<GroupRecord> {
    const older = olderMembers(this.#deps)
    if (wish.policy !== undefined && older.length > 0) throw memberOlder(older, 'a policy')
    const request = { ...wish, vms: newVms(wish.vms, older) }
    const { detector, membership, events } = this.#deps
    const alive = new Set(detector.alive())
    const hosts = placeable(membership.record()).filter(id => alive.has(id))
    const absent = Object.values(request.owners).find(owner => !hosts.includes(owner))
    if (absent !== undefined)
      throw new DiapauseError('HOST_NOT_ALIVE', `${absent} is not alive; place the VM elsewhere or wait.`)
    const facts = { hosts, groups: this.groups(), known: this.#deps.storagePeers.about(hosts) }
    const { owners, homeless } = placeVms(request.vms, request.owners, facts)
    if (homeless.length > 0) throw new DiapauseError('NO_HOST', whyHomeless(homeless, facts))
    if (request.retention !== undefined) {
      const made = createGroup(request.id, request.vms, owners, 0, request)(null)
      if (made !== undefined) checkRoom(made, request.retention)
    }
    await this.#requireFiles(request.vms, owners)
    if (dryRun) return await this.#wouldMake(request, owners)
    const record = await this.#decide(request, owners)
    // By content: the register may have been changed by a try of ours whose answer came too late.
    const { vms, outputCommit, openFlow, retention, policy } = request
    const asked = [vms, owners, outputCommit, openFlow, retention, policy]
    const made = record && [
      record.vms,
      record.owners,
      record.outputCommit === true,
      record.openFlow === true,
      record.retention,
      record.policy
    ]
    const ours = record?.open === null && isDeepStrictEqual(made, asked)
    if (!ours) throw groupExists(request.id)
    events.emit('group.created', { group: record.id, owners: record.owners })
    return record
  }

  /** Only where they are to start: others may get the files later. */
  async #requireFiles(vms: readonly VmSpec[], owners: Readonly<Record<string, PeerId>>): Promise<void> {
    const { lacking, membership } = this.#deps
    if (lacking === undefined) return
    const asked = [...new Set(Object.values(owners))].map(owner =>
      lacking(
        vms.filter(({ id }) => owners[id] === owner),
        [owner]
      )
    )
    requireNoneLacking(membership.record(), (await Promise.all(asked)).flat())
  }

  async #wouldMake(
    { id, vms, ...settings }: GroupRequest,
    owners: Readonly<Record<string, PeerId>>
  ): Promise<GroupRecord> {
    const made = createGroup(id, vms, owners, 0, settings)(await this.#deps.directory.refresh(id))
    if (made === undefined) throw groupExists(id)
    return made
  }

  /** The floor is read after it was seen that there is no record; a record that is forgotten in between: once more. */
  async #decide(
    { id, vms, ...settings }: GroupRequest,
    owners: Readonly<Record<string, PeerId>>
  ): Promise<GroupRecord | null> {
    const { directory, membership } = this.#deps
    for (let tries = 0; ; tries++) {
      const found = await directory.refresh(id)
      const floor = found === null ? (await membership.refresh()).groupFloor : null
      const record = await directory.change(id, createGroup(id, vms, owners, floor, settings))
      if (record !== null || tries > 0) return record
    }
  }

  async removeGroup(id: string): Promise<void> {
    const before = this.#deps.directory.get(id) ?? (await this.#deps.directory.refresh(id))
    if (before === null || before.removed)
      throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${id}" in this cluster.`)
    await this.#deps.directory.change(id, removeGroup)
    this.#deps.events.emit('group.removed', { group: id })
  }

  takeEpoch(id: string): Promise<EpochResult> {
    return takeEpoch(this.#deps, id)
  }

  why(question: WhyQuestion): Promise<Story> {
    return this.#deps.decisions.why(question)
  }

  async #storeStatus(): Promise<StoreStatus> {
    const { store } = this.#deps
    if (store === undefined) return { streams: 0, manifests: 0, bytes: 0 }
    const [streams, manifests] = await Promise.all([store.streams(), store.manifests()])
    return {
      streams: streams.length,
      manifests: manifests.length,
      bytes: streams.reduce((sum, { bytes }) => sum + bytes, 0)
    }
  }
}

/** A peer as the API shows it: all of its parts, and what is asked of it as a whole. */
export const peerView = (parts: PeerParts, deps: OperationsDeps): PeerView => Object.assign(new Operations(deps), parts)

const groupExists = (id: string): DiapauseError =>
  new DiapauseError('GROUP_EXISTS', `There is a group "${id}" already.`)
