/** The value that a change proposes, with its generation and its fence. */
import { type Accepted, type Ballot, type Fence, MAX_FENCE } from './messages.ts'
import { DELETED, type Request } from './request.ts'
import { encodeValue, isTombstone, TOMBSTONE } from './value.ts'

/**
 * The accept for `next` on top of `base`; `undefined` is the identity, under whatever fence `base` still waits for. A
 * deletion raises the generation, so that voters refuse leases of the one that it ends.
 */
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
    return { ballot, value: base?.value ?? TOMBSTONE, generation: before, fence: carried }
  }
  const generation = next === DELETED ? afterDeletion(base) : (request.options.generation?.(next) ?? before)
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
  return { ballot, value: next === DELETED ? TOMBSTONE : encodeValue(next), generation, fence }
}

function afterDeletion(base: Accepted | null): number {
  if (base === null) return 0
  return isTombstone(base) ? base.generation : base.generation + 1
}
