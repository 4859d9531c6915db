/** The decision log of the whole cluster: why VMs were moved or not; part of `ReadModels`. `why` tells it of one VM. */
import type { PeerId } from '../../protocols/core.ts'
import type { Told } from '../../protocols/decisions/facts.ts'
import { MAX_AGO_MS } from '../../protocols/decisions/merge.ts'
import { UsageError } from '../errors.ts'

export interface DecisionsView {
  decisions(wish: DecisionsWish): Promise<ToldDecisions>
}

/** As `DecisionList`, in facts instead of sentences. */
export interface ToldDecisions extends Omit<DecisionList, 'decisions'> {
  readonly told: readonly Told[]
}

export interface DecisionsWish {
  /** How far back; a duration, since clocks of hosts differ. */
  readonly agoMs: number
  readonly limit: number
}

/** What a person scrolls through, and what fits the answers of a few peers. A guess. */
export const MAX_DECISIONS = 1_000

export interface DecisionList {
  readonly by: PeerId
  /** Its wall clock; all times are by it. */
  readonly nowMs: number
  readonly names: Readonly<Record<PeerId, string>>
  /** The newest `limit`, the oldest of them first. */
  readonly decisions: readonly DecisionLine[]
  /** Older ones that were not sent. */
  readonly left: number
  readonly silent: readonly { readonly peer: PeerId; readonly why: string }[]
}

export interface DecisionLine {
  /** Of the teller and among its own entries: unique. */
  readonly by: PeerId
  readonly seq: number
  readonly atMs: number
  readonly lastAtMs: number
  /** How often the same was noted from `atMs` to `lastAtMs`. */
  readonly times: number
  /** As in `protocols/decisions/facts.ts`. */
  readonly kind: string
  /** What it is about: a group, one of its VMs, or a member. */
  readonly group?: string | undefined
  readonly vm?: string | undefined
  readonly peer?: PeerId | undefined
  /** A sentence whose subject is the teller, e.g. 'suspects p1: no ack, …'. */
  readonly text: string
}

/** Of `GET /v1/decisions`. UsageError API_BAD_REQUEST. */
export function parseDecisionsWish(query: URLSearchParams): DecisionsWish {
  const agoMs = Number(query.get('agoMs') ?? MAX_AGO_MS)
  const limit = Number(query.get('limit') ?? MAX_DECISIONS)
  const isCount = Number.isSafeInteger(limit) && limit > 0 && limit <= MAX_DECISIONS
  if (isCount && agoMs >= 0 && agoMs <= MAX_AGO_MS) return { agoMs, limit }
  throw new UsageError(
    'API_BAD_REQUEST',
    `?agoMs is a number of milliseconds up to ${MAX_AGO_MS}, &limit one from 1 to ${MAX_DECISIONS}`
  )
}
