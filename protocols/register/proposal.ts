/** What a proposer was asked for, and the accept that it makes of it. */
import type { PeerId } from '../core.ts'
import { type Accepted, type Ballot, type Fence, MAX_FENCE } from './messages.ts'
import { decodeValue, encodeValue } from './value.ts'

export interface ChangeOptions {
  /** Holders whose leases of older generations must have run out before voters accept `next`. */
  readonly fence?: (current: unknown, next: unknown) => PeerId[]
  /** The generation of `next`, which never falls. Without it the register keeps its generation (0 at first). */
  readonly generation?: (next: unknown) => number
}

export interface Request {
  readonly id: number
  readonly key: string
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

/** The accept for `next` on top of `base`; `undefined` is the identity, under whatever fence `base` still waits for. */
export function compose(
  request: Request,
  ballot: Ballot,
  base: Accepted | null,
  carried: readonly Fence[],
  current: unknown,
  next: unknown
): Accepted {
  const before = base?.generation ?? 0
  if (next === undefined) {
    return { ballot, value: base?.value ?? encodeValue(null), generation: before, fence: carried }
  }
  const generation = request.options.generation?.(next) ?? before
  if (!Number.isSafeInteger(generation) || generation < before) {
    throw new TypeError(`generation of ${request.key} must not fall: ${before} to ${generation}`)
  }
  const holders = request.options.fence?.(current, next) ?? []
  if (holders.length > 0 && generation === before) {
    throw new TypeError(`a fenced change of ${request.key} must raise its generation, which is ${before}`)
  }
  const below = new Map(carried.map(fence => [fence.holder, fence.below]))
  for (const holder of holders) below.set(holder, generation)
  if (below.size > MAX_FENCE) throw new TypeError(`a change of ${request.key} fences more than ${MAX_FENCE} holders`)
  const fence = [...below].map(([holder, limit]) => ({ holder, below: limit }))
  return { ballot, value: encodeValue(next), generation, fence }
}
