/**
 * Inputs that reach more of a parser, found by what runs: those of a batch that reached a block that none before had reached are kept, and
 * mutated in their turn (as AFL does: Zalewski's technical whitepaper, "Evolving the input queue"). At the end the fewest that reach all
 * of it, by taking the one that reaches most of what is left again and again.
 */
import { generator } from '../sim/kernel.ts'
import { storedBytes } from './corpus.ts'
import { Blocks } from './coverage.ts'
import { inputOf } from './input.ts'
import type { Target } from './target.ts'

/** Few looks, and few inputs to search where something new was among them. */
const BATCH = 128
/** Of an input, and of what is stored of it. Larger ones say little more and cost much; a disk of some clusters has 32 KiB. */
const MOST_BYTES = 48 << 10
const MOST_STORED_BYTES = 4_096
/** Of one target, in its file. */
const MOST_KEPT = 60

export interface Grown {
  readonly inputs: readonly Uint8Array[]
  readonly tried: number
  /** Blocks that the seeds reached, and that all reach together. */
  readonly before: number
  readonly after: number
  /** Thrown by the target: a finding, which `npm run fuzz` reports with all that is needed to have it again. */
  readonly threw: number
}

export interface GrowOptions {
  readonly seed: number
  readonly untilMs: number
  /** Beside the target's own seeds. */
  readonly known: readonly Uint8Array[]
}

export async function grow(target: Target, { seed, untilMs, known }: GrowOptions): Promise<Grown> {
  const blocks = new Blocks()
  const own = target.seeds()
  let [tried, threw] = [0, 0]
  /** What these reach. */
  const reached = async (inputs: readonly Uint8Array[]): Promise<Set<string>> => {
    blocks.taken()
    for (const input of inputs) {
      try {
        await target.run(new Uint8Array(input), generator(1))
      } catch {
        threw++
      }
    }
    return blocks.taken()
  }
  await reached(own) // what is done once, at the first input
  const seen = await reached(own)
  const kept: Uint8Array[] = []
  const take = async (inputs: readonly Uint8Array[]): Promise<void> => {
    const reach = await reached(inputs)
    if ([...reach].every(block => seen.has(block))) return
    // A block may have been told apart just now that these have reached all along.
    for (const block of await reached([...own, ...kept])) seen.add(block)
    const fresh = [...reach].filter(block => !seen.has(block))
    for (const found of await search(inputs, new Set(fresh), reached)) if (isSmall(found)) kept.push(found)
    for (const block of fresh) seen.add(block)
  }
  await take(known)
  for (let index = 1; performance.now() < untilMs; index += BATCH) {
    const pool = [...own, ...kept]
    const inputs = Array.from({ length: BATCH }, (_, i) => inputOf(target, pool, { seed, index: index + i }).input)
    tried += inputs.length
    await take(inputs)
  }
  const ofSeeds = await reached(own)
  const chosen = await fewest(kept, ofSeeds, reached)
  blocks.close()
  return { inputs: chosen, tried, before: ofSeeds.size, after: seen.size, threw }
}

const isSmall = (input: Uint8Array): boolean => input.length <= MOST_BYTES && storedBytes(input) <= MOST_STORED_BYTES

type Reached = (inputs: readonly Uint8Array[]) => Promise<Set<string>>

/** Those that reach what is wanted, one for each part of it, by halves. What is not reached again was of the moment. */
async function search(
  inputs: readonly Uint8Array[],
  wanted: ReadonlySet<string>,
  reached: Reached
): Promise<Uint8Array[]> {
  if (inputs.length === 0 || wanted.size === 0) return []
  const hit = new Set([...(await reached(inputs))].filter(block => wanted.has(block)))
  if (hit.size === 0) return []
  if (inputs.length === 1) return [...inputs]
  const half = inputs.length >> 1
  const first = await search(inputs.slice(0, half), hit, reached)
  const inFirst = await reached(first)
  const rest = new Set([...hit].filter(block => !inFirst.has(block)))
  return [...first, ...(await search(inputs.slice(half), rest, reached))]
}

/** Of `inputs`, so many that together they reach what all of them do beyond `already`. */
async function fewest(
  inputs: readonly Uint8Array[],
  already: ReadonlySet<string>,
  reached: Reached
): Promise<Uint8Array[]> {
  const reach = new Map<Uint8Array, Set<string>>()
  for (const input of inputs) {
    const more = [...(await reached([input]))].filter(block => !already.has(block))
    if (more.length > 0) reach.set(input, new Set(more))
  }
  const chosen: Uint8Array[] = []
  while (reach.size > 0 && chosen.length < MOST_KEPT) {
    const [[best, most]] = [...reach].sort(([, a], [, b]) => b.size - a.size) as [[Uint8Array, Set<string>]]
    chosen.push(best)
    reach.delete(best)
    for (const [input, blocks] of reach) {
      for (const block of most) blocks.delete(block)
      if (blocks.size === 0) reach.delete(input)
    }
  }
  return chosen
}
