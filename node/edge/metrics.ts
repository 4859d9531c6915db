/**
 * What a peer knows as metrics, in Prometheus' text format: `GET /metrics`. Names and units as OpenMetrics has them (seconds,
 * bytes, `_total` of what only grows); what is not known is absent. A VM is told of by who runs it, or should; what a group's record
 * has by every peer alike. What is counted of a group is counted by who runs its first VM, and told by every peer (see `aboutGroups`).
 * At most MAX_NAMED groups and VMs are told by name, and `diapause_unnamed` says how many are not.
 */
import { Counter, Gauge, Registry } from 'prom-client'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { PeerEvent } from './events.ts'
import { MAX_NAMED, MetricCounts } from './metrics-counts.ts'
import type { GroupStatus, PeerStatus } from './view.ts'

export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE

/** Messages to people. */
export interface ToldCounts {
  readonly delivered: number
  readonly failed: number
  readonly lost: number
}

/** By the wall clock, since 1970. */
type CommittedMs = (group: string, epoch: number) => number | undefined

/** Part of `PeerView`. */
export interface MetricsView {
  text(status: PeerStatus): Promise<string>
}

/** `keeps`: whether this peer runs the first VM of a group. */
export class Metrics implements MetricsView {
  /** Set when there is somebody who tells. */
  told: ToldCounts | undefined
  /** When this peer saw an epoch committed, where the group's record does not say it. Set when there is somebody who knows. */
  committedMs: CommittedMs = () => undefined
  readonly #counts: MetricCounts

  constructor(keeps: (group: string) => boolean) {
    this.#counts = new MetricCounts(keeps)
  }

  measureProcess(): void {
    this.#counts.measureProcess()
  }

  onEvent(event: PeerEvent): void {
    this.#counts.onEvent(event)
  }

  onDecision(trace: DecisionTrace): void {
    this.#counts.onDecision(trace)
  }

  onRestart(group: string, why: 'failover' | 'rollback'): void {
    this.#counts.onRestart(group, why)
  }

  async text(status: PeerStatus): Promise<string> {
    this.#counts.keepOnly(new Set(status.groups.map(({ record }) => record.id)))
    const now = new Now()
    aboutPeer(now, status, this.told)
    aboutGroups(now, status, this.#counts, this.committedMs)
    aboutVms(now, status, this.#counts)
    aboutStore(now, status)
    return `${await now.registry.metrics()}${await this.#counts.registry.metrics()}`
  }
}

/** Of one look. */
class Now {
  readonly registry = new Registry()

  gauge<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Gauge<L> {
    return new Gauge<L>({ name: `diapause_${name}`, help, labelNames, registers: [this.registry] })
  }

  counter<L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> {
    return new Counter<L>({ name: `diapause_${name}_total`, help, labelNames, registers: [this.registry] })
  }
}

function aboutPeer(now: Now, status: PeerStatus, told: ToldCounts | undefined): void {
  const { name, version, cluster, hypervisor, frames, refused } = status
  const info = now.gauge('peer_info', 'Always 1', ['name', 'version', 'cluster', 'hypervisor'])
  info.set({ name, version, cluster, hypervisor }, 1)
  const members = now.gauge('members', 'Members of the cluster as this peer sees them', ['liveness'])
  for (const liveness of ['alive', 'suspect', 'dead'] as const) {
    members.set({ liveness }, status.members.filter(member => member.liveness === liveness).length)
  }
  const voters = status.members.filter(({ votes }) => votes)
  now.gauge('voters', 'Members that vote').set(voters.length)
  const there = voters.filter(({ liveness }) => liveness !== 'dead').length
  now.gauge('voters_reached', 'Of them, those that this peer does not hold for dead').set(there)
  const links = status.members.filter(({ id, connected }) => id !== status.id && connected).length
  now.gauge('links', 'Members that this peer is connected with').set(links)
  const passed = now.counter('frames', 'Frames of VMs, by what became of them', ['outcome'])
  const { delivered, heldEarly, recordedInFlight, heldFenced, droppedUnknown, outputReleased, outputDiscarded } = frames
  const outcomes = {
    delivered,
    heldEarly,
    recordedInFlight,
    heldFenced,
    droppedUnknown,
    outputReleased,
    outputDiscarded
  }
  for (const [outcome, count] of Object.entries(outcomes)) passed.inc({ outcome: snake(outcome) }, count)
  now.gauge('output_waiting_frames', 'Frames to the outside that wait for their snapshot').set(frames.outputWaiting)
  now.gauge('output_waiting_bytes', 'What they take').set(frames.outputWaitingBytes)
  now.gauge('output_longest_seconds', 'The longest that one waited').set(frames.outputLongestMs / 1_000)
  const late = now.counter('refused', 'What came of a generation that is over, or from who does not own it', ['what'])
  for (const [what, count] of Object.entries(refused)) late.inc({ what }, count)
  if (told === undefined) return
  const messages = now.counter('notifications', 'Messages to people, by what became of them', ['outcome'])
  for (const [outcome, count] of Object.entries(told)) messages.inc({ outcome }, count)
}

function aboutGroups(now: Now, { groups, id: self }: PeerStatus, counts: MetricCounts, committedMs: CommittedMs): void {
  const named = groups.slice(0, MAX_NAMED)
  const group = ['group'] as const
  const epoch = now.gauge('group_epoch', 'The committed snapshot', group)
  const at = now.gauge('group_committed_timestamp_seconds', 'When it was committed, since 1970', group)
  const generation = now.gauge('group_generation', 'Grows with each restore', group)
  const resting = now.gauge('group_resting', '1: it rests, and none of its VMs is to run', group)
  const vms = now.gauge('group_vms', 'VMs of the group', group)
  const drill = now.gauge('drill_failed', '1: the last drill of the group failed', group)
  const drilled = now.gauge(
    'drill_ended_timestamp_seconds',
    'When the last drill of the group ended, since 1970',
    group
  )
  const last = now.gauge('group_last_epoch_seconds', 'How long the last snapshot took', group)
  const skew = now.gauge('group_last_epoch_skew_seconds', 'How far apart its VMs were cut', group)
  const epochs = now.counter('group_epochs', 'Snapshots, by outcome', ['group', 'outcome'])
  const restarts = now.counter('group_restarts', 'Restores, by why', ['group', 'why'])
  for (const { record } of named) {
    const labels = { group: record.id }
    const { committed, drills } = record
    epoch.set(labels, committed?.epoch ?? 0)
    const atMs = committed === null ? undefined : (committed.wallMs ?? committedMs(record.id, committed.epoch))
    if (atMs !== undefined) at.set(labels, atMs / 1_000)
    generation.set(labels, record.generation)
    resting.set(labels, record.resting ? 1 : 0)
    vms.set(labels, record.vms.length)
    if (drills?.last !== undefined) {
      drill.set(labels, drills.last.failed === undefined ? 0 : 1)
      drilled.set(labels, drills.last.atMs / 1_000)
    }
    const counted = counts.groups.get(record.id)
    // 0 where nothing was counted: a series that begins at 1, as a new owner's would after a failover, is no increase to Prometheus.
    for (const outcome of ['committed', 'aborted'] as const) epochs.inc({ ...labels, outcome }, counted?.[outcome] ?? 0)
    restarts.inc({ ...labels, why: 'failover' }, counted?.failovers ?? 0)
    restarts.inc({ ...labels, why: 'rollback' }, counted?.rollbacks ?? 0)
    if (ownerOfFirst(record) !== self) continue
    if (counted?.lastSeconds !== undefined) last.set(labels, counted.lastSeconds)
    if (counted?.lastSkewSeconds !== undefined) skew.set(labels, counted.lastSkewSeconds)
  }
  const running = groups.reduce((sum, each) => sum + each.running.length, 0)
  now.gauge('vms_running', 'VMs that run here').set(running)
  const owned = groups.reduce(
    (sum, { record }) => sum + record.vms.filter(vm => !record.resting && record.owners[vm.id] === self).length,
    0
  )
  now.gauge('vms_owned', 'VMs that should run here').set(owned)
  const unnamed = now.gauge('unnamed', 'How many of them are not told by name here', ['what'])
  unnamed.set({ what: 'groups' }, groups.length - named.length)
  unnamed.set({ what: 'vms' }, Math.max(0, ownedVms(groups, self).length - MAX_NAMED))
}

const ownedVms = (groups: readonly GroupStatus[], self: string) =>
  groups.flatMap(({ record, outlooks = {}, running, leaseRemainingMs }) =>
    record.vms.flatMap(spec => {
      const isOurs = !record.resting && (record.owners[spec.id] === self || spec.id in outlooks)
      return isOurs
        ? [{ record, spec, outlook: outlooks[spec.id], runs: running.includes(spec.id), leaseRemainingMs }]
        : []
    })
  )

function aboutVms(now: Now, { groups, id: self }: PeerStatus, counts: MetricCounts): void {
  const vm = ['group', 'vm'] as const
  const back = now.gauge(
    'vm_back_seconds',
    'From the death of its host to the VM running, by what was measured before',
    vm
  )
  const loss = now.gauge('vm_loss_seconds', 'By how much the VM would go back if its host died now', vm)
  const most = now.gauge('vm_objective_seconds', 'What its objective allows', [...vm, 'objective'])
  const missed = now.gauge('vm_objective_missed', '1: it would miss its objective if its host died now', [
    ...vm,
    'objective'
  ])
  const runs = now.gauge('vm_running', '1: it runs here; 0: it should', vm)
  const lease = now.gauge('vm_lease_remaining_seconds', 'How long its host may go on without another renewal', vm)
  const pause = now.gauge('vm_last_pause_seconds', 'How long it stood still for the last snapshot', vm)
  const bytes = now.gauge('vm_last_image_bytes', 'What was stored for its last image, with parity', vm)
  for (const { record, spec, outlook, ...is } of ownedVms(groups, self).slice(0, MAX_NAMED)) {
    const labels = { group: record.id, vm: spec.id }
    runs.set(labels, is.runs ? 1 : 0)
    lease.set(labels, is.leaseRemainingMs / 1_000)
    const counted = counts.vms.get(`${record.id}/${spec.id}`)
    if (counted?.lastPauseSeconds !== undefined) pause.set(labels, counted.lastPauseSeconds)
    if (counted?.lastStoredBytes !== undefined) bytes.set(labels, counted.lastStoredBytes)
    if (outlook === undefined) continue
    if (outlook.backMs !== null) back.set(labels, outlook.backMs / 1_000)
    loss.set(labels, outlook.lossMs / 1_000)
    for (const name of ['backMs', 'lossMs'] as const) {
      const ms = spec.objective?.[name]
      if (ms === undefined) continue
      const one = { ...labels, objective: name === 'backMs' ? 'back' : 'loss' }
      most.set(one, ms / 1_000)
      missed.set(one, outlook.missed.includes(name) ? 1 : 0)
    }
  }
}

function aboutStore(now: Now, { store, redundancy, standbys = [], members, id }: PeerStatus): void {
  now.gauge('store_bytes', 'Bytes of the shard store').set(store.bytes)
  now.gauge('store_streams', 'Streams of which it has columns').set(store.streams)
  now.gauge('store_manifests', 'Manifests in it').set(store.manifests)
  const { freeBytes } = members.find(member => member.id === id) ?? {}
  if (freeBytes !== undefined) now.gauge('store_free_bytes', 'What it may still take, at least').set(freeBytes)
  const copies = now.gauge('standby_copies', 'Standby copies here, by whether a VM could go on from it at once', [
    'ready'
  ])
  for (const ready of [true, false]) {
    copies.set({ ready: `${ready}` }, standbys.filter(({ state }) => (state === 'ready') === ready).length)
  }
  if (redundancy === null) return
  const { exposed, repaired, scrubbed } = redundancy
  now.gauge('images_exposed', 'Kept images that bear fewer losses than they should').set(exposed.length)
  now
    .gauge('images_lost', 'Of them, those that cannot be read now')
    .set(exposed.filter(image => image.tolerates < 0).length)
  now.counter('repaired_columns', 'Columns that were rebuilt here').inc(repaired.columns)
  now.counter('repaired_bytes', 'Their bytes').inc(repaired.bytes)
  now.counter('repair_failures', 'Tries that came to nothing').inc(repaired.failures)
  now.gauge('repair_due_columns', 'Columns that this peer is to rebuild').set(repaired.due)
  now
    .gauge('damaged_columns', 'Columns that were found damaged here and are not rebuilt yet')
    .set(repaired.damaged ?? 0)
  if (scrubbed === null) return
  now.gauge('scrub_columns', 'Columns that the pass under way has read').set(scrubbed.columns)
  now.gauge('scrub_damaged', 'Columns and manifests that it found damaged').set(scrubbed.damaged)
  if (scrubbed.last === null) return
  now.gauge('scrub_last_damaged', 'Those of the last whole pass').set(scrubbed.last.damaged)
  const ended = now.gauge('scrub_last_ended_timestamp_seconds', 'When the last whole pass ended, since 1970')
  ended.set(scrubbed.last.endedMs / 1_000)
}

const ownerOfFirst = ({ vms, owners }: GroupRecord): string | undefined => owners[vms[0]?.id ?? '']
const snake = (name: string): string => name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)
