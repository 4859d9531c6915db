/** What a proposer was asked for, and every answer that it can give. */
import { DiapauseError } from '../../node/errors.ts'
import type { PeerId } from '../core.ts'
import type { Accepted } from './messages.ts'
import { decodeValue } from './value.ts'

export interface ChangeOptions {
  /** Holders whose leases of older generations must have run out before voters accept `next`. */
  readonly fence?: (current: unknown, next: unknown) => PeerId[]
  /** The generation of `next`, which never falls. Without it the register keeps its generation (0 at first). */
  readonly generation?: (next: unknown) => number
}

export interface Request {
  readonly id: number
  readonly key: string
  /** `null`: a read. */
  readonly next: ((current: unknown) => unknown) | null
  readonly options: ChangeOptions
  readonly deadlineMs: number
  attempts: number
  contended: boolean
  /** An accept was sent: the change may have happened although it failed. */
  uncertain: boolean
}

export type Result =
  | { readonly kind: 'done'; readonly id: number; readonly value: unknown; readonly generation: number }
  | { readonly kind: 'failed'; readonly id: number; readonly error: unknown }

/** The answer to a request whose register holds `accepted`. */
export function done({ id }: Request, accepted: Accepted | null): Result {
  if (accepted === null) return { kind: 'done', id, value: null, generation: 0 }
  try {
    return { kind: 'done', id, value: decodeValue(accepted.value), generation: accepted.generation }
  } catch (error) {
    return { kind: 'failed', id, error }
  }
}

/** The answer to a request that failed for this reason. */
export function failed({ id }: Request, error: unknown): Result {
  return { kind: 'failed', id, error }
}

/** REGISTER_BUSY: `waiting` changes of the register stand in front already. */
export function busy({ key }: Request, waiting: number): DiapauseError {
  return new DiapauseError('REGISTER_BUSY', `${waiting} changes of register ${key} wait already: slow down`)
}

/** The deadline passed: REGISTER_CONTENDED where others were quicker each time, else REGISTER_UNAVAILABLE. */
export function gaveUp({ key, contended, uncertain }: Request, giveUpMs: number, voters: number): DiapauseError {
  const outcome = uncertain ? '; the change may still take effect, read before you rely on either' : ''
  if (contended) {
    return new DiapauseError(
      'REGISTER_CONTENDED',
      `other peers kept changing register ${key} for ${giveUpMs} ms${outcome}: try again`,
      { details: { key, uncertain } }
    )
  }
  return new DiapauseError(
    'REGISTER_UNAVAILABLE',
    `no majority of the ${voters} voters answered for register ${key} within ${giveUpMs} ms${outcome}: are enough peers running and connected?`,
    { details: { key, uncertain, voters } }
  )
}

/** REGISTER_LEASED: the leases that the change fences run for `retryMs` more. */
export function stillLeased({ key }: Request, retryMs: number): DiapauseError {
  const message = `register ${key} is held by a peer whose lease runs for ${retryMs} ms more: try again then, and read first`
  return new DiapauseError('REGISTER_LEASED', message, { details: { key, retryMs } })
}
