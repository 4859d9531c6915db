/**
 * One round of `failover`, judged: when the fault was noticed, decided and mended, and whether the old owner was silent
 * before its successor spoke. Pure. All times are CLOCK_MONOTONIC of this machine, in milliseconds.
 *
 * Two sources that know nothing of each other say who spoke when:
 *   - the *trace* of every switch, which knows frames and generations, and is the peers' own word;
 *   - the *wire* of the old owner's host, which is nobody's word, but peers encrypt: it knows bytes on the connections that
 *     carry nothing but frames. An idle one carries none at all, so bytes on it after the takeover would be stale frames.
 *     Those that are dialled when the fault has ended begin with a handshake, which cannot be told from frames: what
 *     comes on them is known by the traces of those that it comes to.
 */
import type { EventOf, KnownEvent, SeenEvent } from '../demo/events.ts'
import type { TcpCounts } from '../guest/console.ts'
import type { Connection } from '../hosts/wire-log.ts'

/**
 * kill: -9, with its VMs. stop: SIGSTOP for 10 s, when the others have given its connections up. pause: SIGSTOP until its
 * successor has spoken, when they have not: what it says then would arrive. partition: its host is cut off from all others.
 */
export const FAULTS = ['kill', 'stop', 'pause', 'partition'] as const
export type Fault = (typeof FAULTS)[number]

/** A frame as a switch saw it: sent to another host, or come from one and taken, refused or left waiting. */
export interface TracedFrame {
  readonly atMs: number
  /** The name of the one that says so. */
  readonly peer: string
  /** The id of the one that it was sent to or has come from. */
  readonly other: string
  readonly what: 'sent' | 'accepted' | 'refused' | 'waits'
  readonly generation: number
}

/** What was seen of one round. */
export interface Observed {
  readonly number: number
  readonly fault: Fault
  /** The peer that the fault was done to, and the VMs that it owned. */
  readonly owner: { readonly name: string; readonly id: string; readonly vms: readonly string[] }
  /** All VMs of the group. */
  readonly vms: readonly string[]
  /** The generation before the fault. */
  readonly generation: number
  /** Just before the fault, and when it had ended (started again, SIGCONT, healed). */
  readonly faultMs: number
  readonly endedMs: number
  /** When the old owner was a member in good standing again. */
  readonly healthyMs: number
  /** When every connection of the workload had brought something again, and the longest silence by the guests' clocks. */
  readonly movingMs: number
  readonly stallMs: number
  /** What the TCP of each VM has counted since before the epoch that they went back to. */
  readonly tcp: readonly ({ readonly vm: string } & TcpCounts)[]
  /** What the workload complains of: lost or doubled transfers, broken connections, a VM that booted again. */
  readonly complaints: readonly string[]
  /** Processes of VMs that the old owner still has at the end. */
  readonly staleVms: readonly string[]
  /** With `atMs` on this clock. */
  readonly events: readonly SeenEvent[]
  readonly frames: readonly TracedFrame[]
  /** The connections that carried the old owner's frames when the fault came, by peer; undefined: not found. */
  readonly wire: readonly { readonly to: string; readonly connection: Connection | undefined }[]
}

/** Times are since the fault; null: never seen. */
export interface Round {
  readonly number: number
  readonly fault: Fault
  readonly owner: string
  readonly vms: readonly string[]
  readonly generation: number
  readonly epoch: number | null
  readonly suspectedMs: number | null
  readonly detectedMs: number | null
  readonly decidedMs: number | null
  /** The first VM runs, and the last. */
  readonly firstResumedMs: number | null
  readonly resumedMs: number | null
  /** All pages of all VMs are there. */
  readonly completeMs: number | null
  readonly movingMs: number
  readonly stallMs: number
  /** Retransmission timeouts in all guests, and those that a lost frame may have caused: see `timeoutsOfLost`. */
  readonly timeouts: number
  readonly timeoutsOfLost: number
  /** When the old owner's lease was over by its own reckoning. */
  readonly lapsedMs: number | null
  readonly endedMs: number
  readonly healthyMs: number
  readonly frames: FrameTimes
  readonly wire: WireTimes
  readonly failures: readonly string[]
  readonly violations: readonly string[]
}

export interface FrameTimes {
  readonly lastOldSentMs: number | null
  readonly lastOldAcceptedMs: number | null
  readonly firstNewMs: number | null
  /** Between the old owner's last frame, sent or accepted, and its successor's first. */
  readonly silenceMs: number | null
  readonly oldSentAfter: number
  readonly oldAcceptedAfter: number
  readonly oldRefused: number
  /** Of those the ones that the old owner had sent, and that came after its successor had spoken: on any connection. */
  readonly oldRefusedAfter: number
}

export interface WireTimes {
  readonly connections: number
  /** Before the first frame of the new generation. */
  readonly lastMs: number | null
  /** After it, in segments that could hold a frame. */
  readonly bytesAfter: number
  /** In smaller ones: the ends of streams. */
  readonly smallBytesAfter: number
}

/** The smallest frame is 42 bytes of ARP; a batch's head, yamux and Noise add 60 and more. A stream's end takes 30. */
const FRAME_SEGMENT_BYTES = 90

export function judge(seen: Observed): Round {
  const since = (ms: number | undefined) => (ms === undefined ? null : ms - seen.faultMs)
  const told = <Kind extends KnownEvent['kind']>(kind: Kind) =>
    seen.events
      .flatMap(({ by, event }) => (event.kind === kind ? [{ ...(event as EventOf<Kind>), by }] : []))
      .filter(event => event.atMs >= seen.faultMs)
      .sort((a, b) => a.atMs - b.atMs)
  const liveness = (state: string) =>
    told('liveness').find(event => event.peer === seen.owner.id && event.liveness === state)
  const decided = told('takeover.decided').filter(event => event.generation > seen.generation)
  // A VM that fails while it is restored takes the group to one more generation, which nobody has to decide.
  const newer = [...decided, ...told('vm.resumed')].map(event => event.generation)
  const generation = Math.max(seen.generation, ...newer)
  /** When the last VM of the newest generation had come so far. */
  const all = (kind: 'vm.resumed' | 'vm.complete') => {
    const events = told(kind).filter(event => event.generation === generation)
    return seen.vms.every(vm => events.some(event => event.vm === vm)) ? since(events.at(-1)?.atMs) : null
  }
  const lapsed = told('lease.lapsed').find(
    event => event.by === seen.owner.name && event.generation === seen.generation
  )
  const firstNewMs = earliest(seen.frames.filter(frame => frame.generation > seen.generation))
  const round = {
    number: seen.number,
    fault: seen.fault,
    owner: seen.owner.name,
    vms: seen.owner.vms,
    generation,
    epoch: decided.at(-1)?.epoch ?? null,
    suspectedMs: since(liveness('suspect')?.atMs),
    detectedMs: since(liveness('dead')?.atMs),
    decidedMs: since(decided[0]?.atMs),
    firstResumedMs: since(told('vm.resumed').find(event => event.generation === generation)?.atMs),
    resumedMs: all('vm.resumed'),
    completeMs: all('vm.complete'),
    movingMs: seen.movingMs - seen.faultMs,
    stallMs: seen.stallMs,
    timeouts: seen.tcp.reduce((sum, { timeouts }) => sum + timeouts, 0),
    timeoutsOfLost: timeoutsOfLost(seen.tcp),
    lapsedMs: since(lapsed?.atMs),
    endedMs: seen.endedMs - seen.faultMs,
    healthyMs: seen.healthyMs - seen.faultMs,
    frames: frameTimes(seen, firstNewMs),
    wire: wireTimes(seen, firstNewMs),
    failures: told('vm.failed').map(event => `${event.vm} on ${event.by}: ${event.reason}`)
  }
  return { ...round, violations: [...violations(seen, round), ...seen.complaints] }
}

/**
 * What was sent again after a timeout and had been there before, the receiver says so (duplicate SACK): then the timeout came
 * of a guest that stood still, for its pages or for a processor. One that nobody says this of was caused by a lost frame.
 * Tail-loss probes are answered in the same way, and may hide one: lost frames are also seen by the bank's gaps and stalls.
 */
const timeoutsOfLost = (tcp: Observed['tcp']): number =>
  tcp.reduce((sum, { timeouts, duplicates }) => sum + Math.max(0, timeouts - duplicates), 0)

const earliest = (list: readonly { readonly atMs: number }[]): number | undefined =>
  list.length === 0 ? undefined : list.reduce((least, { atMs }) => Math.min(least, atMs), Number.POSITIVE_INFINITY)

const latest = (list: readonly { readonly atMs: number }[]): number | undefined =>
  list.length === 0 ? undefined : list.reduce((most, { atMs }) => Math.max(most, atMs), Number.NEGATIVE_INFINITY)

function frameTimes(seen: Observed, firstNewMs: number | undefined): FrameTimes {
  const old = seen.frames.filter(frame => frame.generation <= seen.generation)
  const sent = old.filter(frame => frame.what === 'sent' && frame.peer === seen.owner.name)
  const accepted = old.filter(frame => frame.what === 'accepted')
  const refused = old.filter(frame => frame.what === 'refused')
  const lastMs = latest([...sent, ...accepted])
  const since = (ms: number | undefined) => (ms === undefined ? null : ms - seen.faultMs)
  const after = (list: readonly TracedFrame[]) => list.filter(({ atMs }) => atMs >= (firstNewMs ?? Infinity)).length
  return {
    lastOldSentMs: since(latest(sent)),
    lastOldAcceptedMs: since(latest(accepted)),
    firstNewMs: since(firstNewMs),
    silenceMs: lastMs === undefined || firstNewMs === undefined ? null : firstNewMs - lastMs,
    oldSentAfter: after(sent),
    oldAcceptedAfter: after(accepted),
    oldRefused: refused.length,
    oldRefusedAfter: after(refused.filter(({ other }) => other === seen.owner.id))
  }
}

function wireTimes(seen: Observed, firstNewMs = Number.POSITIVE_INFINITY): WireTimes {
  const sent = seen.wire.flatMap(({ connection }) => connection?.sent ?? [])
  // Where a VM failed on its way, the group may have come back to the old owner, which speaks again by right.
  const own = seen.frames.filter(({ peer, what }) => peer === seen.owner.name && what === 'sent')
  const againMs = earliest(own.filter(({ generation }) => generation > seen.generation)) ?? Number.POSITIVE_INFINITY
  const after = sent.filter(({ atMs }) => atMs >= firstNewMs && atMs < againMs)
  const bytes = (small: boolean) =>
    after.filter(each => each.bytes < FRAME_SEGMENT_BYTES === small).reduce((sum, each) => sum + each.bytes, 0)
  const lastMs = latest(sent.filter(({ atMs }) => atMs < firstNewMs))
  return {
    connections: seen.wire.filter(({ connection }) => connection !== undefined).length,
    lastMs: lastMs === undefined ? null : lastMs - seen.faultMs,
    bytesAfter: bytes(false),
    smallBytesAfter: bytes(true)
  }
}

function violations(seen: Observed, round: Omit<Round, 'violations'>): string[] {
  const { frames, wire } = round
  const found: string[] = []
  const broken = (condition: boolean, what: string) => condition && found.push(what)
  broken(round.decidedMs === null, 'no survivor got a takeover decided')
  broken(round.resumedMs === null, 'not every VM was resumed in the new generation')
  broken(frames.firstNewMs === null, 'no frame of the new generation was traced')
  broken(frames.lastOldAcceptedMs === null, 'no frame of the old generation was traced')
  broken(frames.oldSentAfter > 0, `the old owner sent ${frames.oldSentAfter} frames after its successor had spoken`)
  broken(
    frames.oldAcceptedAfter > 0,
    `${frames.oldAcceptedAfter} frames of the old generation were accepted after the first of the new one`
  )
  // After a partition they may be what its kernel sends again; after a pause, of the one system call that was under way.
  broken(
    (seen.fault === 'kill' || seen.fault === 'stop') && frames.oldRefusedAfter > 0,
    `${frames.oldRefusedAfter} frames of the old owner came, and were refused, after its successor had spoken`
  )
  const unseen = seen.wire.filter(({ connection }) => connection === undefined).map(({ to }) => to)
  broken(unseen.length > 0, `the connections for frames to ${unseen.join(', ')} could not be told on the wire`)
  broken(
    wire.bytesAfter > 0,
    `${wire.bytesAfter} bytes left the old owner's host on connections for frames after its successor had spoken`
  )
  // A stopped process can say nothing at the time, a killed one nothing at all.
  const late = round.lapsedMs === null || round.lapsedMs >= (round.decidedMs ?? 0)
  broken(round.fault === 'partition' && late, 'the old owner did not see its lease end before the takeover was decided')
  broken(seen.staleVms.length > 0, `the old owner still runs ${seen.staleVms.join(', ')}`)
  return found
}
