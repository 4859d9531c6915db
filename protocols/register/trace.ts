/** How a request ended and by whose votes: what a decision log keeps. Made only where somebody asks for it. */
import type { PeerId } from '../core.ts'
import type { Ballot } from './messages.ts'
import type { Request, RequestKind } from './request.ts'
import type { Phase, Round } from './round.ts'

/** What a voter answered last in a round; one that is not named was silent. 'state': to a read, what it has accepted. */
export type Vote = 'promised' | 'accepted' | 'state' | 'leased' | 'conflict' | 'stale'

/**
 * 'chosen': a majority accepted what was proposed. 'learned': the value that was there is the answer, nothing written.
 * 'leased', 'conflict', 'unavailable': it failed with REGISTER_LEASED, _CONTENDED, _UNAVAILABLE. 'rejected': with
 * another error, by the change itself.
 */
export type DecisionOutcome = 'chosen' | 'learned' | 'leased' | 'conflict' | 'unavailable' | 'rejected'

export interface DecisionTrace {
  readonly key: string
  readonly kind: RequestKind
  readonly outcome: DecisionOutcome
  /** Of the voter set of the last round; undefined, as ballot, phase and votes, where it had no round. */
  readonly version: number | undefined
  readonly ballot: Ballot | undefined
  readonly phase: Phase | undefined
  readonly votes: Readonly<Record<PeerId, Vote>>
  /** Voter → for how long the lease runs there that it refused for. */
  readonly leaseMs: Readonly<Record<PeerId, number>>
  /** Of 'leased': when a majority may be free to accept it. */
  readonly retryMs: number | undefined
  /** Of the register, where it was learned. */
  readonly generation: number | undefined
  readonly rounds: number
  readonly tookMs: number
}

/** How a request ended, for its trace. `round` is its last. */
export interface Ending {
  readonly outcome: DecisionOutcome
  readonly round?: Round | undefined
  readonly retryMs?: number
  readonly generation?: number
}

export function traceOf(
  request: Request,
  { outcome, round, retryMs, generation }: Ending,
  nowMs: number
): DecisionTrace {
  const { key, kind, rounds, startedMs } = request
  return {
    key,
    kind,
    outcome,
    version: round?.version,
    ballot: round?.ballot,
    phase: round?.phase,
    ...(round?.votes(nowMs) ?? { votes: {}, leaseMs: {} }),
    retryMs,
    generation,
    rounds,
    tookMs: nowMs - startedMs
  }
}
