/**
 * From what was seen (events of the peers, audits of the banks, what was left at the end) to the report of the demo:
 * numbers, checks and nothing else. Pure; `text.ts` makes it pleasant to read.
 */
import { type BankReport, conservation } from '../guest/console.ts'
import type { Check } from '../measure.ts'
import type { EventOf, KnownEvent, SeenEvent } from './events.ts'

/** Everything the story saw. */
export interface Seen {
  readonly group: string
  readonly peers: readonly { readonly name: string; readonly id: string }[]
  readonly vms: readonly string[]
  /** What the VMs ran in, e.g. "QEMU 7.2.22, tcg"; undefined where no peer told. */
  readonly hypervisor: string | undefined
  /** Epochs that had to be committed, those after the restore included. */
  readonly epochsWanted: number
  /** Money of all banks together at their start. */
  readonly money: number
  readonly events: readonly SeenEvent[]
  /** The kill, on the wall clock; undefined where the story did not get there. */
  readonly kill: { readonly atMs: number; readonly peer: string; readonly vms: readonly string[] } | undefined
  /** Audits before the kill and after the restore: empty where not done. */
  readonly before: readonly BankReport[]
  readonly after: readonly BankReport[]
  /** Longest time, by the wall clock, in which a VM's console brought nothing after the kill. */
  readonly outageMs: number
  /** What peers and VMs left behind once told to stop; undefined where they were told to go on (--keep). */
  readonly leftovers: readonly string[] | undefined
  /** Why the story ended early. */
  readonly error: string | undefined
}

export interface CutReport {
  readonly vm: string
  readonly epoch: number
  readonly pauseMs: number
}

export interface EpochReport {
  readonly number: number
  readonly outcome: 'committed' | 'aborted' | 'open'
  /** By the wall clocks of the VMs' hosts: exact on one host, as in the demo; elsewhere with the difference of their clocks. */
  readonly skewMs: number | null
  readonly commitMs: number | null
  /** Changed pages and device state before compression; with parity, as stored by all peers together. */
  readonly bytesRaw: number
  readonly bytesStored: number
  readonly pagesChanged: number
  readonly inFlightFrames: number
  /** Why it was aborted. */
  readonly reason?: string
}

export interface FailureReport {
  readonly peer: string
  readonly vms: readonly string[]
  /** Milliseconds since the kill: first suspicion, first declared dead, takeover agreed, last VM running. */
  readonly suspectedMs: number | null
  readonly detectedMs: number | null
  readonly decidedMs: number | null
  readonly resumedMs: number | null
  readonly epoch: number | null
  readonly generation: number | null
  readonly resumed: readonly {
    readonly vm: string
    readonly host: string
    readonly afterMs: number
    readonly spawnToRunMs: number | null
  }[]
  readonly pagesFaulted: number | null
  readonly pagesPushed: number | null
}

export interface WorkloadReport {
  readonly conserved: boolean
  readonly money: number
  readonly moneyBefore: number
  readonly moneyAfter: number
  readonly gaps: number
  readonly connectionsBroken: number
  readonly sameNonce: boolean
  /** Longest silence an application saw, by the clock of its VM, which stands still while the VM does. */
  readonly stallMs: number
  /** Longest silence of a VM as seen from outside, from the kill on. */
  readonly outageMs: number
  readonly transfers: number
  readonly faults: readonly string[]
}

export interface DemoReport {
  readonly checks: readonly Check[]
  readonly ok: boolean
  readonly workload: WorkloadReport
  readonly cuts: readonly CutReport[]
  readonly epochs: readonly EpochReport[]
  readonly failure: FailureReport | null
  readonly leftovers: readonly string[] | null
  readonly error: string | null
}

export function makeReport(seen: Seen): DemoReport {
  const epochs = epochsOf(seen)
  const cuts = cutsOf(seen)
  const failure = seen.kill === undefined ? null : failureOf(seen, seen.kill)
  const workload = workloadOf(seen)
  const checks = checksOf(seen, { epochs, cuts, failure, workload })
  const ok = seen.error === undefined && checks.every(check => check.ok)
  return { ok, checks, workload, cuts, epochs, failure, leftovers: seen.leftovers ?? null, error: seen.error ?? null }
}

/** Events of one kind about the demo's group, in order of their time; the same told by two peers counts once. */
export function eventsOf<Kind extends KnownEvent['kind']>(
  seen: Pick<Seen, 'group' | 'events'>,
  kind: Kind
): (EventOf<Kind> & { by: string })[] {
  return seen.events
    .filter(({ event }) => event.kind === kind && (!('group' in event) || event.group === seen.group))
    .map(({ by, event }) => ({ ...(event as EventOf<Kind>), by }))
    .sort((a, b) => a.atMs - b.atMs)
}

/** The name of a peer that an event names by its id (or already by its name). */
export function peerName(seen: Seen, idOrName: string): string {
  return seen.peers.find(peer => peer.id === idOrName)?.name ?? idOrName
}

function cutsOf(seen: Seen): CutReport[] {
  const byKey = new Map(
    eventsOf(seen, 'cut').map(({ vm, epoch, pauseMs }) => [`${epoch}/${vm}`, { vm, epoch, pauseMs }])
  )
  return [...byKey.values()].sort((a, b) => a.epoch - b.epoch || a.vm.localeCompare(b.vm))
}

function epochsOf(seen: Seen): EpochReport[] {
  const numbers = new Set<number>()
  const last = <T extends { epoch: number }>(events: readonly T[]) => new Map(events.map(event => [event.epoch, event]))
  const commits = eventsOf(seen, 'epoch.committed')
  const committed = last(commits.toReversed())
  const aborted = last(eventsOf(seen, 'epoch.aborted').toReversed())
  const durable = new Map(eventsOf(seen, 'epoch.durable').map(event => [`${event.epoch}/${event.vm}`, event]))
  for (const list of [committed.keys(), aborted.keys(), eventsOf(seen, 'epoch.opened').map(event => event.epoch)])
    for (const number of list) numbers.add(number)
  return [...numbers]
    .sort((a, b) => a - b)
    .map(number => {
      const stats = [...durable.values()].filter(event => event.epoch === number).map(event => event.stats)
      const sum = (of: 'bytesRaw' | 'bytesStored' | 'pagesChanged' | 'inFlightFrames') =>
        stats.reduce((total, each) => total + each[of], 0)
      const commit = committed.get(number)
      const abort = aborted.get(number)
      return {
        number,
        outcome: commit !== undefined ? 'committed' : abort !== undefined ? 'aborted' : 'open',
        // A peer that has not heard of every cut cannot tell the skew; those that have, agree.
        skewMs: commits.find(each => each.epoch === number && each.skewMs !== undefined)?.skewMs ?? null,
        commitMs: commit?.commitMs ?? null,
        bytesRaw: sum('bytesRaw'),
        bytesStored: sum('bytesStored'),
        pagesChanged: sum('pagesChanged'),
        inFlightFrames: sum('inFlightFrames'),
        ...(commit === undefined && abort !== undefined ? { reason: abort.reason } : {})
      }
    })
}

function failureOf(seen: Seen, kill: NonNullable<Seen['kill']>): FailureReport {
  const since = (event: { atMs: number } | undefined) => (event === undefined ? null : event.atMs - kill.atMs)
  const liveness = (state: string) =>
    eventsOf(seen, 'liveness').find(
      event => event.atMs >= kill.atMs && event.liveness === state && peerName(seen, event.peer) === kill.peer
    )
  // A takeover that fails half-way is followed by another of a higher generation: the one that counts ran all VMs.
  const takeover = eventsOf(seen, 'takeover.decided')
    .filter(event => event.atMs >= kill.atMs)
    .sort((a, b) => b.generation - a.generation || a.atMs - b.atMs)
    .find((event, _, all) => event.generation === all[0]?.generation)
  const resumed = seen.vms.flatMap(vm => {
    const event = eventsOf(seen, 'vm.resumed').find(
      each => each.vm === vm && each.atMs >= kill.atMs && each.generation === takeover?.generation
    )
    if (event === undefined) return []
    return [{ vm, host: event.by, afterMs: event.atMs - kill.atMs, spawnToRunMs: event.spawnToRunMs ?? null }]
  })
  const complete = eventsOf(seen, 'vm.complete').filter(event => event.atMs >= kill.atMs)
  const allResumed = takeover !== undefined && resumed.length === seen.vms.length
  return {
    peer: kill.peer,
    vms: kill.vms,
    suspectedMs: since(liveness('suspect')),
    detectedMs: since(liveness('dead')),
    decidedMs: since(takeover),
    resumedMs: allResumed ? Math.max(...resumed.map(each => each.afterMs)) : null,
    epoch: takeover?.epoch ?? null,
    generation: takeover?.generation ?? null,
    resumed: resumed.sort((a, b) => a.afterMs - b.afterMs),
    pagesFaulted: complete.length === 0 ? null : complete.reduce((sum, event) => sum + event.pagesFaulted, 0),
    pagesPushed: complete.length === 0 ? null : complete.reduce((sum, event) => sum + event.pagesPushed, 0)
  }
}

function workloadOf(seen: Seen): WorkloadReport {
  const before = conservation(seen.before, seen.money)
  const after = conservation(seen.after, seen.money)
  const nonces = (audits: readonly BankReport[]) =>
    audits
      .map(audit => `${audit.vm}:${audit.nonce}`)
      .sort()
      .join()
  const complete = (audits: readonly BankReport[]) => audits.length === seen.vms.length
  return {
    conserved: complete(seen.before) && complete(seen.after) && before.conserved && after.conserved,
    money: seen.money,
    moneyBefore: before.money,
    moneyAfter: after.money,
    gaps: Math.max(before.gaps, after.gaps),
    connectionsBroken: Math.max(before.broken, after.broken),
    sameNonce: complete(seen.before) && complete(seen.after) && nonces(seen.before) === nonces(seen.after),
    stallMs: Math.max(before.stallMs, after.stallMs),
    outageMs: seen.outageMs,
    transfers: seen.after.reduce(
      (sum, audit) => sum + [...audit.received.values()].reduce((n, each) => n + each.count, 0),
      0
    ),
    faults: [
      ...(seen.before.length === 0 ? [] : before.faults.map(fault => `before the failure: ${fault}`)),
      ...(seen.after.length === 0 ? [] : after.faults.map(fault => `after the restore: ${fault}`))
    ]
  }
}

function checksOf(seen: Seen, made: Pick<DemoReport, 'workload' | 'cuts' | 'epochs' | 'failure'>): Check[] {
  const { workload, failure, cuts, epochs } = made
  const audited = seen.after.length === seen.vms.length
  const check = (name: string, value: number | boolean | null, unit: string, bound: string, ok: boolean): Check =>
    value === null ? { name, value: 'not reached', unit: '', bound, ok: false } : { name, value, unit, bound, ok }
  const isTrue = (name: string, value: boolean) => check(name, value, '', 'true', value)
  const below = (name: string, value: number | null, bound: number) =>
    check(name, value, 'ms', `< ${bound}`, value !== null && value >= 0 && value < bound)
  const zero = (name: string, value: number | null) => check(name, value, '', '= 0', value === 0)
  const committed = epochs.filter(epoch => epoch.outcome === 'committed').length
  const pauses = cuts.map(cut => cut.pauseMs)
  return [
    isTrue('workload.conserved', workload.conserved),
    zero('workload.gaps', audited ? workload.gaps : null),
    zero('workload.connectionsBroken', audited ? workload.connectionsBroken : null),
    isTrue('workload.sameNonce', workload.sameNonce),
    check('workload.stallMs', audited ? workload.stallMs : null, 'ms', 'reported', true),
    check('epochs.committed', committed, '', `>= ${seen.epochsWanted}`, committed >= seen.epochsWanted),
    below('cuts.pauseMs', pauses.length === 0 ? null : Math.max(...pauses), 60),
    below('failure.detectedMs', failure?.detectedMs ?? null, 5000),
    below('failure.decidedMs', failure?.decidedMs ?? null, 5000),
    below('failure.resumedMs', failure?.resumedMs ?? null, 5000),
    check('failure.pagesFaulted', failure?.pagesFaulted ?? null, 'pages', 'reported', true),
    // With --keep all goes on running on purpose, so there is nothing to check.
    ...(seen.leftovers === undefined ? [] : [zero('cleanup.leftovers', seen.leftovers.length)])
  ]
}
