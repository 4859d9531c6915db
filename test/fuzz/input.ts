/** Which input has which number: the same for the same target, seed and number, on every machine. */
import { crc32 } from 'node:zlib'
import type { Random } from '../../protocols/core.ts'
import { generator } from '../sim/kernel.ts'
import { below, mutate } from './mutate.ts'
import type { Target } from './target.ts'

/** Every so many inputs one is as it was: what is whole must be taken. */
const WHOLE_EVERY = 64

/** `given`: these bytes instead, with the same choices beside them. */
export function inputOf(
  target: Target,
  seeds: readonly Uint8Array[],
  { seed, index }: { readonly seed: number; readonly index: number },
  given?: Uint8Array
): { readonly input: Uint8Array; readonly random: Random } {
  const random = generator(crc32(`${seed} ${target.name} ${index}`))
  const chosen = seeds[below(random, seeds.length)] as Uint8Array
  const changed = index % WHOLE_EVERY === 0 ? chosen : changedOf(target, chosen, random, seeds)
  // In memory of its own, and no Buffer: what writes to it, or keeps a view of it, does no harm to others.
  return { input: new Uint8Array(given ?? changed), random }
}

/** A target's own mutations know its seeds; what was found to reach more need not be of their shape. */
function changedOf(target: Target, chosen: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  try {
    return (target.mutate ?? mutate)(chosen, random, seeds)
  } catch {
    return mutate(chosen, random, seeds)
  }
}
