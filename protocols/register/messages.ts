/**
 * What the peers say to each other about registers (control channel, protocol "register"), and its limits. A proposer
 * sends prepare, accept and read; an acceptor answers each at most once. Every answer repeats the ballot of its
 * question, and ballots are never used twice, so an answer finds its round however late or often it comes.
 *
 * Every question carries the version of the voter set that its sender counts majorities in. An acceptor of another
 * version does nothing about it: to an older one it answers `stale`, to a newer one nothing, for it must learn first.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { PeerId } from '../core.ts'

export const REGISTER_PROTOCOL = 'register'

/** Bytes of a key. Keys are names such as `group/bank`, written by the program and not by people. */
export const MAX_KEY_BYTES = 200
/** Bytes of an encoded value: a register holds a decision, not data. A value crosses the net twice a change. */
export const MAX_VALUE_BYTES = 64 * 1024
/** Keys in one answer to `list`: at most 203 KB of the 256 KiB that a message may have. */
export const MAX_LISTED = 1_000
/** Holders that one change may wait for, those carried from unfinished changes included. */
export const MAX_FENCE = 256

/**
 * Ballots above this are of nobody who keeps the rules (900 years at 10,000 a second) and are dropped: whoever believed in one near 2^53
 * could never go beyond it. How those below are kept from being used up: leaps.ts.
 */
export const MAX_COUNTER = 2 ** 48

/** Ordered by counter, then by peer. Zero is below every ballot that was ever used. */
export interface Ballot {
  readonly counter: number
  readonly peer: PeerId
}

/** The change must wait until `holder` has no unexpired lease of the key under a generation below `below`. */
export interface Fence {
  readonly holder: PeerId
  readonly below: number
}

/** What an acceptor has accepted. `fence` stays with the value, for whoever has to finish the change in our stead. */
export interface Accepted {
  readonly ballot: Ballot
  /** Encoded (value.ts); acceptors never look inside. Empty: a tombstone, the register was deleted. */
  readonly value: Uint8Array
  readonly generation: number
  readonly fence: readonly Fence[]
}

interface Question {
  /** Of the sender's voter set. */
  readonly version: number
}

interface About extends Question {
  readonly key: string
  readonly ballot: Ballot
}

export type ProposerMessage =
  | ({ readonly kind: 'prepare' } & About)
  /** Section 2.2.1: accepting also promises `promise`, so that this proposer may skip its next prepare. */
  | ({
      readonly kind: 'accept'
      readonly key: string
      readonly accepted: Accepted
      readonly promise: Ballot
    } & Question)
  /** Asks what is accepted, promises nothing. `ballot` only names the question. */
  | ({ readonly kind: 'read' } & About)
  /** Every voter has accepted the tombstone `ballot`: forget the register, if nothing came after. Not answered. */
  | ({ readonly kind: 'forget' } & About)
  /** The keys after `after` that are accepted or promised. Answers need no name: any answer to the same words will do. */
  | ({ readonly kind: 'list'; readonly after: string } & Question)

export type AcceptorMessage =
  | { readonly kind: 'promised'; readonly key: string; readonly ballot: Ballot; readonly accepted: Accepted | null }
  | { readonly kind: 'accepted'; readonly key: string; readonly ballot: Ballot }
  | { readonly kind: 'state'; readonly key: string; readonly ballot: Ballot; readonly accepted: Accepted | null }
  /** `seen` was promised or accepted before. */
  | {
      readonly kind: 'conflict'
      readonly key: string
      readonly ballot: Ballot
      readonly of: 'prepare' | 'accept'
      readonly seen: Ballot
    }
  /** Not yet: a fenced holder's grant runs for `retryMs` more. */
  | { readonly kind: 'leased'; readonly key: string; readonly ballot: Ballot; readonly retryMs: number }
  /** Nothing was done: the question is of older voters than `version`. `ballot` is null where the question had none. */
  | { readonly kind: 'stale'; readonly ballot: Ballot | null; readonly version: number }
  /** Sorted; the first after `after`. `more`: they go on behind the last one. */
  | {
      readonly kind: 'keys'
      readonly version: number
      readonly after: string
      readonly keys: readonly string[]
      readonly more: boolean
    }

export type RegisterMessage = ProposerMessage | AcceptorMessage

export const ZERO_BALLOT: Ballot = Object.freeze({ counter: 0, peer: '' })

/** Negative where `a` is lower, 0 where they are the same ballot. */
export function compareBallots(a: Ballot, b: Ballot): number {
  return a.counter - b.counter || (a.peer < b.peer ? -1 : a.peer > b.peer ? 1 : 0)
}

const KEY = /^[a-z0-9][A-Za-z0-9._:/-]*$/

export function isKey(key: unknown): key is string {
  return typeof key === 'string' && key.length <= MAX_KEY_BYTES && KEY.test(key)
}

/** Throws REGISTER_MESSAGE on anything that is not a message within the limits. */
export function parseRegisterMessage(raw: unknown): RegisterMessage {
  const m = object(raw)
  switch (m['kind']) {
    case 'prepare':
    case 'read':
    case 'forget':
      return { kind: m['kind'], version: versionOf(m), key: keyOf(m['key']), ballot: ballot(m['ballot']) }
    case 'accept':
      return {
        kind: 'accept',
        version: versionOf(m),
        key: keyOf(m['key']),
        accepted: parseAccepted(m['accepted']),
        promise: ballot(m['promise'])
      }
    case 'list':
      return { kind: 'list', version: versionOf(m), after: m['after'] === '' ? '' : keyOf(m['after']) }
    default:
      return parseAnswer(m)
  }
}

function parseAnswer(m: Record<string, unknown>): AcceptorMessage {
  switch (m['kind']) {
    case 'accepted':
      return { kind: 'accepted', key: keyOf(m['key']), ballot: ballot(m['ballot']) }
    case 'promised':
    case 'state':
      return {
        kind: m['kind'],
        key: keyOf(m['key']),
        ballot: ballot(m['ballot']),
        accepted: m['accepted'] === null ? null : parseAccepted(m['accepted'])
      }
    case 'conflict': {
      const of = m['of']
      if (of !== 'prepare' && of !== 'accept') throw malformed('of')
      return { kind: 'conflict', key: keyOf(m['key']), ballot: ballot(m['ballot']), of, seen: ballot(m['seen']) }
    }
    case 'leased': {
      const retryMs = m['retryMs']
      if (typeof retryMs !== 'number' || !(retryMs >= 0 && retryMs <= 86_400_000)) throw malformed('retryMs')
      return { kind: 'leased', key: keyOf(m['key']), ballot: ballot(m['ballot']), retryMs }
    }
    case 'stale':
      return { kind: 'stale', ballot: m['ballot'] === null ? null : ballot(m['ballot']), version: versionOf(m) }
    case 'keys': {
      const { keys, more } = m
      if (!Array.isArray(keys) || keys.length > MAX_LISTED) throw malformed('keys')
      if (typeof more !== 'boolean' || (more && keys.length === 0)) throw malformed('more')
      const after = m['after'] === '' ? '' : keyOf(m['after'])
      return { kind: 'keys', version: versionOf(m), after, keys: keys.map(keyOf), more }
    }
    default:
      throw malformed('kind')
  }
}

/** Also for records read from disk. */
export function parseAccepted(raw: unknown): Accepted {
  const a = object(raw)
  const value = a['value']
  if (!(value instanceof Uint8Array) || value.byteLength > MAX_VALUE_BYTES) throw malformed('value')
  const fence = a['fence']
  if (!Array.isArray(fence) || fence.length > MAX_FENCE) throw malformed('fence')
  return {
    ballot: ballot(a['ballot']),
    // A copy: what came over the net is a view that would keep its whole packet alive.
    value: new Uint8Array(value),
    generation: integer(a['generation'], 'generation'),
    fence: fence.map(entry => {
      const f = object(entry)
      return { holder: peer(f['holder']), below: integer(f['below'], 'below') }
    })
  }
}

export function parseBallot(raw: unknown): Ballot {
  return ballot(raw)
}

function ballot(raw: unknown): Ballot {
  const b = object(raw)
  const counter = integer(b['counter'], 'counter')
  if (counter === 0 || counter > MAX_COUNTER) throw malformed('counter')
  return { counter, peer: peer(b['peer']) }
}

function keyOf(raw: unknown): string {
  if (!isKey(raw)) throw malformed('key')
  return raw
}

function versionOf(m: Record<string, unknown>): number {
  const version = integer(m['version'], 'version')
  if (version === 0) throw malformed('version')
  return version
}

function peer(raw: unknown): PeerId {
  if (typeof raw !== 'string' || raw.length === 0 || raw.length > 128) throw malformed('peer')
  return raw
}

function integer(raw: unknown, field: string): number {
  if (typeof raw !== 'number' || !Number.isSafeInteger(raw) || raw < 0) throw malformed(field)
  return raw
}

function object(raw: unknown): Record<string, unknown> {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw) || raw instanceof Uint8Array)
    throw malformed('shape')
  return raw as Record<string, unknown>
}

function malformed(field: string): DiapauseError {
  return new DiapauseError('REGISTER_MESSAGE', `register message with a bad ${field}: dropped`, { details: { field } })
}
