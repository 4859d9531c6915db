/**
 * What the peers say to each other about leases (control channel, protocol "lease"), and its limits. `session` names
 * one life of a holder's process and `round` one of its messages: an answer counts for the round that it answers only,
 * because a lease runs from the moment its claim was *sent*.
 */
import { DiapauseError } from '../../node/errors.ts'
import { isKey } from '../register/messages.ts'

export const LEASE_PROTOCOL = 'lease'

/** Claims in one message; a holder with more sends several. */
export const MAX_CLAIMS = 256

export interface Claim {
  readonly key: string
  readonly generation: number
}

export interface Refusal extends Claim {
  /** The generation that the voter has accepted; 0: it knows of no value. */
  readonly newer: number
}

export type LeaseMessage =
  | {
      readonly kind: 'claim'
      /** Of the holder's voter set. A voter of another version grants nothing: see `stale`. */
      readonly version: number
      readonly session: number
      readonly round: number
      /** The holder will act this long; a voter whose own setting is shorter does not answer. */
      readonly durationMs: number
      readonly claims: readonly Claim[]
    }
  /** All claims of the round are granted but the refused ones. */
  | { readonly kind: 'granted'; readonly session: number; readonly round: number; readonly refused: readonly Refusal[] }
  /** Nothing was granted: the claim is of older voters than `version`. To a claim of newer ones there is no answer. */
  | { readonly kind: 'stale'; readonly session: number; readonly round: number; readonly version: number }
  /** The holder acts no more on what it claimed up to this round. Taken by voters of any version. */
  | { readonly kind: 'release'; readonly session: number; readonly round: number; readonly key: string }

/** Throws LEASE_MESSAGE on anything that is not a message within the limits. */
export function parseLeaseMessage(raw: unknown): LeaseMessage {
  const m = object(raw)
  const session = natural(m['session'], 'session')
  const round = natural(m['round'], 'round')
  switch (m['kind']) {
    case 'claim':
      return {
        kind: 'claim',
        version: natural(m['version'], 'version'),
        session,
        round,
        durationMs: natural(m['durationMs'], 'durationMs'),
        claims: list(m['claims']).map(claim)
      }
    case 'granted':
      return {
        kind: 'granted',
        session,
        round,
        refused: list(m['refused']).map(entry => ({ ...claim(entry), newer: natural(object(entry)['newer'], 'newer') }))
      }
    case 'stale':
      return { kind: 'stale', session, round, version: natural(m['version'], 'version') }
    case 'release':
      return { kind: 'release', session, round, key: keyOf(m) }
    default:
      throw malformed('kind')
  }
}

function claim(raw: unknown): Claim {
  const c = object(raw)
  return { key: keyOf(c), generation: natural(c['generation'], 'generation') }
}

function keyOf(m: Record<string, unknown>): string {
  const key = m['key']
  if (!isKey(key)) throw malformed('key')
  return key
}

function list(raw: unknown): unknown[] {
  if (!Array.isArray(raw) || raw.length > MAX_CLAIMS) throw malformed('list')
  return raw
}

function natural(raw: unknown, field: string): number {
  if (typeof raw !== 'number' || !Number.isSafeInteger(raw) || raw < 0) throw malformed(field)
  return raw
}

function object(raw: unknown): Record<string, unknown> {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw malformed('shape')
  return raw as Record<string, unknown>
}

function malformed(field: string): DiapauseError {
  return new DiapauseError('LEASE_MESSAGE', `lease message with a bad ${field}: dropped`, { details: { field } })
}
