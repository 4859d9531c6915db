/** What a proposer was asked for, and every answer that it can give. */
import { DiapauseError } from '../../node/errors.ts'
import type { PeerId } from '../core.ts'
import type { Accepted } from './messages.ts'
import type { Round } from './round.ts'
import { valueOf } from './value.ts'

export interface ChangeOptions {
  /** Holders whose leases of older generations must have run out before voters accept `next`. */
  readonly fence?: (current: unknown, next: unknown) => PeerId[]
  /** The generation of `next`, which never falls. Without it the register keeps its generation (0 at first). */
  readonly generation?: (next: unknown) => number
}

/** What a change's `next` returns to delete the register. */
export const DELETED: unique symbol = Symbol('deleted')

/**
 * 'delete' is a change whose `next` may return DELETED. 'rewrite': the present value, prepared and accepted anew.
 * 'collect': if the register has no value, a tombstone on every voter, which then forget it; one try.
 */
export type RequestKind = 'read' | 'change' | 'delete' | 'rewrite' | 'collect'

export type Next = (current: unknown) => unknown

interface Asked {
  readonly id: number
  readonly key: string
}

export type ProposerRequest =
  | ({ readonly kind: 'read' | 'rewrite' | 'collect' } & Asked)
  /** `next` returning `undefined`: leave it. Throwing rejects the change with that error. */
  | ({ readonly kind: 'change' | 'delete'; readonly next: Next; readonly options: ChangeOptions } & Asked)

/** What those requests do with a value that are not given a `next`; null for a read, which changes nothing. */
export const NEXT: Readonly<Record<'read' | 'rewrite' | 'collect', Next | null>> = {
  read: null,
  rewrite: () => undefined,
  collect: current => (current === null ? DELETED : undefined)
}

export interface Request {
  readonly id: number
  readonly kind: RequestKind
  readonly key: string
  /** `null`: a read. */
  readonly next: Next | null
  readonly options: ChangeOptions
  readonly startedMs: number
  readonly deadlineMs: number
  /** Rounds so far. */
  rounds: number
  /** Conflicts so far. */
  attempts: number
  contended: boolean
  /** An accept was sent: the change may have happened although it failed. */
  uncertain: boolean
  /** The newest voter set that voters have refused it for; 0: none. */
  refusedFor: number
  /** The last round that ended without a result. */
  last: Round | undefined
}

export type Result =
  | { readonly kind: 'done'; readonly id: number; readonly value: unknown; readonly generation: number }
  | { readonly kind: 'failed'; readonly id: number; readonly error: unknown }

/** The answer to a request whose register holds `accepted`. */
export function done({ id }: Request, accepted: Accepted | null): Result {
  try {
    return { kind: 'done', id, value: valueOf(accepted), generation: accepted?.generation ?? 0 }
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
export function gaveUp(request: Request, giveUpMs: number, set: { version: number; voters: number }): DiapauseError {
  const { key, contended, uncertain, refusedFor } = request
  const outcome = uncertain ? '; the change may still take effect, read before you rely on either' : ''
  if (contended) {
    return new DiapauseError(
      'REGISTER_CONTENDED',
      `other peers kept changing register ${key} for ${giveUpMs} ms${outcome}: try again`,
      { details: { key, uncertain } }
    )
  }
  const why =
    refusedFor > set.version
      ? `voter set ${refusedFor} is in use and this peer has heard of ${set.version} only: is it connected to the others?`
      : 'are enough peers running and connected?'
  return new DiapauseError(
    'REGISTER_UNAVAILABLE',
    `no majority of the ${set.voters} voters answered for register ${key} within ${giveUpMs} ms${outcome}: ${why}`,
    { details: { key, uncertain, voters: set.voters } }
  )
}

/** REGISTER_LEASED: the leases that the change fences run for `retryMs` more. */
export function stillLeased({ key }: Request, retryMs: number): DiapauseError {
  const message = `register ${key} is held by a peer whose lease runs for ${retryMs} ms more: try again then, and read first`
  return new DiapauseError('REGISTER_LEASED', message, { details: { key, retryMs } })
}

/** REGISTER_UNCOLLECTED: not every voter took part, or somebody else is at it. Harmless, and usual where a voter is away. */
export function uncollected({ key }: Request): DiapauseError {
  return new DiapauseError(
    'REGISTER_UNCOLLECTED',
    `deleted register ${key} cannot be forgotten yet: it is tried again when all voters answer`
  )
}
