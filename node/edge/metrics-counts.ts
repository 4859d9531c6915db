/**
 * What a peer counts while it runs, of its own events and register requests. What all peers see of a group is counted by the one
 * that runs its first VM: the sum over a cluster is then what happened.
 */
import { collectDefaultMetrics, Counter, Histogram, Registry } from 'prom-client'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import type { PeerEvent } from './events.ts'

/** From a pause of a millisecond to one that a person sees. */
const PAUSE_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
/** Epochs and restores: from a fast one to the deadline. */
const SECONDS_BUCKETS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120]
/** A round trip in a rack, to what a person waits for. */
const ROUND_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
/** Groups and VMs that are told by name, each; those above are in what has no names. A guess: more than a host runs. */
export const MAX_NAMED = 500
/** What the event loop's delay is measured by, in milliseconds. A guess: a fifth of what a lease's renewal may be late by. */
const LOOP_PRECISION_MS = 20

export interface GroupCounts {
  committed: number
  aborted: number
  failovers: number
  rollbacks: number
  lastSeconds?: number
  lastSkewSeconds?: number
}

export interface VmCounts {
  readonly group: string
  readonly vm: string
  lastPauseSeconds?: number
  lastStoredBytes?: number
}

type Fields = Readonly<Record<string, unknown>>

const EVENTS = {
  'lease.lapsed': ['lease', 'lapsed'],
  'lease.regained': ['lease', 'regained'],
  'lease.lost': ['lease', 'lost'],
  'drill.passed': ['drill', 'passed'],
  'drill.failed': ['drill', 'failed'],
  'scrub.damaged': ['scrub', 'damaged'],
  'home.copied': ['home', 'copied'],
  'home.failed': ['home', 'failed'],
  'vm.failed': ['vm', 'failed'],
  'vm.rebooted': ['vm', 'rebooted'],
  'vm.powered-off': ['vm', 'powered-off'],
  'objective.missed': ['objective', 'missed'],
  'takeover.decided': ['takeover', 'decided'],
  'takeover.no-host': ['takeover', 'no-host'],
  'notification.failed': ['notification', 'failed'],
  'notification.lost': ['notification', 'lost']
} as const

export class MetricCounts {
  readonly registry = new Registry()
  readonly groups = new Map<string, GroupCounts>()
  readonly vms = new Map<string, VmCounts>()
  /** Whether this peer runs the group's first VM. */
  readonly #keeps: (group: string) => boolean
  readonly #events: Counter<'about' | 'event'>
  readonly #liveness: Counter<'liveness'>
  readonly #epochs: Counter<'outcome'>
  readonly #restores: Counter<'source'>
  readonly #requests: Counter<'kind' | 'outcome'>
  readonly #rounds: Counter
  readonly #stored: Counter
  readonly #changed: Counter
  readonly #inFlight: Counter
  readonly #seconds: Readonly<Record<'pause' | 'epoch' | 'skew' | 'restore' | 'request', Histogram>>

  constructor(keeps: (group: string) => boolean) {
    this.#keeps = keeps
    const registers = [this.registry]
    const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> =>
      new Counter<L>({ name: `diapause_${name}_total`, help, labelNames, registers })
    const histogram = (name: string, help: string, buckets: number[]): Histogram =>
      new Histogram({ name: `diapause_${name}_seconds`, help, buckets, registers })
    this.#events = counter('events', 'What happened here, by what it is about', ['about', 'event'])
    this.#liveness = counter('member_changes', 'Members that this peer held for something else than before', [
      'liveness'
    ])
    this.#epochs = counter('epochs', 'Snapshots of groups whose first VM runs here, by outcome', ['outcome'])
    this.#restores = counter('vm_restores', 'VMs that went on here from a snapshot, by where it was read', ['source'])
    this.#requests = counter('register_requests', 'Reads and changes of registers asked by this peer', [
      'kind',
      'outcome'
    ])
    this.#rounds = counter('register_rounds', 'Rounds of votes for them')
    this.#stored = counter('image_stored_bytes', 'Stored for the images of VMs here, with parity')
    this.#changed = counter('image_changed_pages', 'Pages of 4096 bytes that had changed since the image before')
    this.#inFlight = counter('image_frames', 'Frames in flight that are part of images')
    this.#seconds = {
      pause: histogram('vm_pause', 'How long a VM stood still for a snapshot', PAUSE_BUCKETS),
      epoch: histogram('epoch', 'From opening a snapshot to its commit', SECONDS_BUCKETS),
      skew: histogram(
        'epoch_skew',
        'From the first VM cut to the last of a snapshot, by the clocks of their hosts',
        PAUSE_BUCKETS
      ),
      restore: histogram(
        'vm_restore',
        'From starting a hypervisor to the VM running from its snapshot',
        SECONDS_BUCKETS
      ),
      request: histogram('register_request', 'A read or change of a register', ROUND_BUCKETS)
    }
    for (const [about, event] of Object.values(EVENTS)) this.#events.inc({ about, event }, 0)
    for (const outcome of ['committed', 'aborted']) this.#epochs.inc({ outcome }, 0)
    for (const source of ['shards', 'standby']) this.#restores.inc({ source }, 0)
    for (const liveness of ['alive', 'suspect', 'dead']) this.#liveness.inc({ liveness }, 0)
  }

  /** Of the process: memory, processor, event loop. Once a process. */
  measureProcess(): void {
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: LOOP_PRECISION_MS })
  }

  onEvent({ kind, ...fields }: PeerEvent): void {
    if (kind in EVENTS) {
      const [about, event] = EVENTS[kind as keyof typeof EVENTS]
      this.#events.inc({ about, event })
    }
    if (kind === 'liveness') this.#liveness.inc({ liveness: wordOf(fields, 'liveness') })
    else if (kind === 'epoch.committed' || kind === 'epoch.aborted') this.#onEpoch(kind, fields)
    else if (kind === 'cut') this.#onCut(fields)
    else if (kind === 'epoch.durable') this.#onDurable(fields)
    else if (kind === 'vm.resumed') {
      this.#restores.inc({ source: wordOf(fields, 'from') })
      observe(this.#seconds.restore, fields['spawnToRunMs'])
    }
  }

  onDecision({ kind, outcome, rounds, tookMs }: DecisionTrace): void {
    this.#requests.inc({ kind, outcome })
    this.#rounds.inc(rounds)
    this.#seconds.request.observe(tookMs / 1_000)
  }

  /** A group went back: `failover` because a host died. */
  onRestart(group: string, why: 'failover' | 'rollback'): void {
    if (!this.#keeps(group)) return
    const counts = this.#groupOf(group)
    if (counts === undefined) return
    if (why === 'failover') counts.failovers++
    else counts.rollbacks++
  }

  /** What is not there any more is not told of any more, and makes room. */
  keepOnly(groups: ReadonlySet<string>): void {
    for (const group of this.groups.keys()) if (!groups.has(group)) this.groups.delete(group)
    for (const [key, { group }] of this.vms) if (!groups.has(group)) this.vms.delete(key)
  }

  #onEpoch(kind: 'epoch.committed' | 'epoch.aborted', fields: Fields): void {
    const group = wordOf(fields, 'group')
    if (!this.#keeps(group)) return
    const outcome = kind === 'epoch.committed' ? 'committed' : 'aborted'
    this.#epochs.inc({ outcome })
    const counts = this.#groupOf(group)
    if (counts !== undefined) counts[outcome]++
    if (outcome === 'aborted') return
    const lastSeconds = observe(this.#seconds.epoch, fields['commitMs'])
    const lastSkewSeconds = observe(this.#seconds.skew, fields['skewMs'])
    if (counts === undefined) return
    if (lastSeconds !== undefined) counts.lastSeconds = lastSeconds
    if (lastSkewSeconds !== undefined) counts.lastSkewSeconds = lastSkewSeconds
  }

  #onCut(fields: Fields): void {
    const lastPauseSeconds = observe(this.#seconds.pause, fields['pauseMs'])
    const counts = this.#vmOf(fields)
    if (counts !== undefined && lastPauseSeconds !== undefined) counts.lastPauseSeconds = lastPauseSeconds
  }

  #onDurable(fields: Fields): void {
    const stats = fields['stats']
    if (typeof stats !== 'object' || stats === null) return
    const { bytesStored, pagesChanged, inFlightFrames } = stats as Fields
    this.#stored.inc(numberOf(bytesStored))
    this.#changed.inc(numberOf(pagesChanged))
    this.#inFlight.inc(numberOf(inFlightFrames))
    const counts = this.#vmOf(fields)
    if (counts !== undefined) counts.lastStoredBytes = numberOf(bytesStored)
  }

  #groupOf(group: string): GroupCounts | undefined {
    const known = this.groups.get(group)
    if (known !== undefined || this.groups.size >= MAX_NAMED) return known
    const made = { committed: 0, aborted: 0, failovers: 0, rollbacks: 0 }
    this.groups.set(group, made)
    return made
  }

  #vmOf(fields: Fields): VmCounts | undefined {
    const group = wordOf(fields, 'group')
    const vm = wordOf(fields, 'vm')
    const key = `${group}/${vm}`
    const known = this.vms.get(key)
    if (known !== undefined || this.vms.size >= MAX_NAMED) return known
    const made = { group, vm }
    this.vms.set(key, made)
    return made
  }
}

function observe(histogram: Histogram, ms: unknown): number | undefined {
  if (typeof ms !== 'number') return undefined
  histogram.observe(ms / 1_000)
  return ms / 1_000
}

const wordOf = (fields: Fields, name: string): string => {
  const value = fields[name]
  return typeof value === 'string' ? value : ''
}
const numberOf = (value: unknown): number => (typeof value === 'number' ? value : 0)
