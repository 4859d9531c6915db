/** The value that a change proposes, with its generation and its fence. */
import { type Accepted, type Ballot, type Fence, MAX_FENCE } from './messages.ts'
import type { Request } from './request.ts'
import { encodeValue } from './value.ts'

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
