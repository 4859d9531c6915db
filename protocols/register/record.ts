/**
 * What this peer must never forget, as entries of a `RegisterStore`: one record a register (`register/KEY`), and the
 * number below which all its ballot counters may have been used (`ballots`). Every entry starts with its format.
 */
import { Packr } from 'msgpackr'
import { DiapauseError } from '../../node/errors.ts'
import { type Accepted, type Ballot, isKey, parseAccepted, parseBallot } from './messages.ts'

/** An acceptor's state of one register. */
export interface AcceptorRecord {
  /** No ballot below this one is promised or accepted any more. */
  readonly promised: Ballot
  readonly accepted: Accepted | null
}

export interface Remembered {
  readonly records: ReadonlyMap<string, AcceptorRecord>
  /** Counters up to this one may have been used. */
  readonly reserved: number
}

const FORMAT = 1
const PREFIX = 'register/'
const RESERVED = 'ballots'
const packr = new Packr({ useRecords: false })

export function recordEntry(key: string, record: AcceptorRecord): readonly [string, Uint8Array] {
  return [PREFIX + key, encode(record)]
}

export function reservedEntry(counter: number): readonly [string, Uint8Array] {
  return [RESERVED, encode(counter)]
}

/** Reads back a whole store. REGISTER_FORMAT where an entry was written by a newer diapause, REGISTER_CORRUPT else. */
export function remember(entries: Iterable<readonly [string, Uint8Array]>): Remembered {
  const records = new Map<string, AcceptorRecord>()
  let reserved = 0
  for (const [name, bytes] of entries) {
    const body = decode(name, bytes)
    if (name === RESERVED) {
      if (typeof body !== 'number' || !Number.isSafeInteger(body) || body < 0) throw corrupt(name)
      reserved = body
      continue
    }
    const key = name.slice(PREFIX.length)
    if (!name.startsWith(PREFIX) || !isKey(key) || typeof body !== 'object' || body === null) throw corrupt(name)
    const { promised, accepted } = body as Record<string, unknown>
    try {
      records.set(key, {
        promised: parseBallot(promised),
        accepted: accepted === null ? null : parseAccepted(accepted)
      })
    } catch (cause) {
      throw corrupt(name, cause)
    }
  }
  return { records, reserved }
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
