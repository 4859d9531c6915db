/**
 * What this peer must never forget, as entries of a `RegisterStore`. Every entry starts with its format.
 *
 * | name           | what                                                                          |
 * |----------------|-------------------------------------------------------------------------------|
 * | `voters`       | the newest voter set: messages of an older one are refused for good            |
 * | `register/KEY` | what was promised and accepted, and in which term of office as a voter         |
 * | `forgotten`    | registers without an entry refuse ballots up to this one                       |
 * | `ballots`      | counters of this peer's own ballots up to this one may have been used          |
 * | `grants`       | the longest that a lease may run that this peer granted, in milliseconds       |
 *
 * Of entries that are written together a crash may leave any on the disk, so nothing here relies on two at once: records
 * name their term, and an entry is removed only after what makes it void is on disk.
 */
import { Packr } from 'msgpackr'
import { DiapauseError } from '../../node/errors.ts'
import type { PeerId } from '../core.ts'
import type { Entry } from './durable-order.ts'
import { type Accepted, type Ballot, isKey, parseAccepted, parseBallot, ZERO_BALLOT } from './messages.ts'
import { parseVoterSet, termOf, type VoterSet } from './voters.ts'

/** An acceptor's state of one register. */
export interface AcceptorRecord {
  /** The voter-set version in which the term of office began that this belongs to (`termOf`). */
  readonly term: number
  /** No ballot below this one is promised or accepted any more. */
  readonly promised: Ballot
  readonly accepted: Accepted | null
}

export interface Remembered {
  /** Null in a store that is new, or older than versions of voter sets. */
  readonly voters: VoterSet | null
  /** Those of the present term. */
  readonly records: ReadonlyMap<string, AcceptorRecord>
  /** Registers of terms that are over: to be removed. */
  readonly over: readonly string[]
  readonly forgotten: Ballot
  /** Counters up to this one may have been used. */
  readonly reserved: number
  /** 0 in a store that is new, or older than this entry. */
  readonly longestGrantMs: number
}

const FORMAT = 1
const PREFIX = 'register/'
const RESERVED = 'ballots'
const VOTERS = 'voters'
const FORGOTTEN = 'forgotten'
const GRANTS = 'grants'
/** The term of records without one, which were written before sets had versions. */
const FIRST_TERM = 1
const packr = new Packr({ useRecords: false })

export const recordEntry = (key: string, record: AcceptorRecord): Entry => [PREFIX + key, encode(record)]
export const erasedEntry = (key: string): Entry => [PREFIX + key, null]
export const votersEntry = (set: VoterSet): Entry => [VOTERS, encode(set)]
export const forgottenEntry = (promise: Ballot): Entry => [FORGOTTEN, encode(promise)]
export const reservedEntry = (counter: number): Entry => [RESERVED, encode(counter)]
export const grantsEntry = (longestMs: number): Entry => [GRANTS, encode(Math.ceil(longestMs))]

/** Reads back a whole store. REGISTER_FORMAT where an entry was written by a newer diapause, REGISTER_CORRUPT else. */
export function remember(entries: Iterable<readonly [string, Uint8Array]>, self: PeerId): Remembered {
  const all = new Map<string, AcceptorRecord>()
  let voters: VoterSet | null = null
  let forgotten = ZERO_BALLOT
  let reserved = 0
  let longestGrantMs = 0
  for (const [name, bytes] of entries) {
    const body = decode(name, bytes)
    try {
      if (name === RESERVED) reserved = parseCounter(body)
      else if (name === VOTERS) voters = parseVoterSet(body)
      else if (name === FORGOTTEN) forgotten = parseBallot(body)
      else if (name === GRANTS) longestGrantMs = parseCounter(body)
      else all.set(parseName(name), parseRecord(body))
    } catch (cause) {
      throw corrupt(name, cause)
    }
  }
  const term = voters === null ? FIRST_TERM : termOf(voters, self)
  const records = new Map([...all].filter(([, record]) => record.term === term))
  const over = [...all.keys()].filter(key => !records.has(key))
  return { voters, records, over, forgotten, reserved, longestGrantMs }
}

function parseName(name: string): string {
  const key = name.slice(PREFIX.length)
  if (!name.startsWith(PREFIX) || !isKey(key)) throw new TypeError('no entry of ours')
  return key
}

function parseRecord(body: unknown): AcceptorRecord {
  if (typeof body !== 'object' || body === null) throw new TypeError('no record')
  const { promised, accepted, term = FIRST_TERM } = body as Record<string, unknown>
  return {
    term: parseCounter(term),
    promised: parseBallot(promised),
    accepted: accepted === null ? null : parseAccepted(accepted)
  }
}

function parseCounter(body: unknown): number {
  if (typeof body !== 'number' || !Number.isSafeInteger(body) || body < 0) throw new TypeError('no counter')
  return body
}

function encode(body: unknown): Uint8Array {
  return new Uint8Array(packr.pack([FORMAT, body]))
}

function decode(name: string, bytes: Uint8Array): unknown {
  let entry: unknown
  try {
    entry = packr.unpack(bytes)
  } catch (cause) {
    throw corrupt(name, cause)
  }
  if (!Array.isArray(entry) || entry.length !== 2) throw corrupt(name)
  if (entry[0] !== FORMAT) {
    throw new DiapauseError(
      'REGISTER_FORMAT',
      `register entry ${name} has format ${String(entry[0])}, this diapause knows ${FORMAT}: start the version that wrote it`,
      { details: { found: entry[0], known: FORMAT } }
    )
  }
  return entry[1]
}

function corrupt(name: string, cause?: unknown): DiapauseError {
  return new DiapauseError(
    'REGISTER_CORRUPT',
    `register entry ${name} on disk is damaged: this peer must not vote; remove it as a voter and join it anew`,
    { cause }
  )
}
