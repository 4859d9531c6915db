/**
 * Inputs that reach more of a parser, found by what runs: those of a batch that reached a block that none before had reached are kept, and
 * mutated in their turn (as AFL does: Zalewski's technical whitepaper, "Evolving the input queue"). What fails is told and not mutated:
 * its children would fail the same way. At the end the fewest that reach all of it, by taking the one that reaches most of what is left
 * again and again.
 */
import { storedBytes } from './corpus.ts'
import { Blocks } from './coverage.ts'
import { idOf, MOST_FINDINGS } from './findings.ts'
import { inputOf } from './input.ts'
import { type Failure, runInput } from './run-input.ts'
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
}

export interface GrowOptions {
  readonly seed: number
  readonly ms: number
  /** Beside the target's own seeds. */
  readonly known: readonly Uint8Array[]
  /** Of mutated inputs, the first one's number: not 1 where some were tried before. */
  readonly from: number
  /** Only so many inputs as it takes, and not all that were kept. */
  readonly fewest: boolean
  /** Ids of inputs that failed before: they are not run. */
  readonly failed: readonly string[]
}

/** What is told while it grows; whoever listens sees to it that nothing is lost where an input takes the thread with it. */
export interface GrowEvents {
  /** `batch`: its first number, 0 for what was there before. */
  begins(input: Uint8Array, batch: number): void
  ends(): void
  /** A finding, once for each input. */
  failed(input: Uint8Array, failure: Failure): void
  kept(input: Uint8Array): void
}

/** Each input has the choices of this number, so that `--input FILE`, which has them too, runs it again as it was. */
export const CHOICES = 0

/** The number that follows those of a batch; 0: what was there before. */
export const behindBatch = (batch: number): number => (batch === 0 ? 1 : batch + BATCH)

export async function grow(target: Target, options: GrowOptions, events: GrowEvents): Promise<Grown> {
  const runner = new Runner(target, options, events)
  try {
    return await growWith(runner, target, options, events)
  } finally {
    runner.close()
  }
}

async function growWith(runner: Runner, target: Target, options: GrowOptions, events: GrowEvents): Promise<Grown> {
  const endMs = performance.now() + options.ms
  const { own } = runner
  const reached: Reached = inputs => runner.reached(inputs)
  await reached(own) // what is done once, at the first input
  await reached(options.known)
  const kept = options.known.filter(input => !runner.hasFailed(input))
  const seen = await reached([...own, ...kept])
  const take = async (inputs: readonly Uint8Array[]): Promise<void> => {
    const reach = await reached(inputs)
    const sound = inputs.filter(input => !runner.hasFailed(input))
    // What only those reach that fail is not seen yet.
    if (sound.length < inputs.length) return await take(sound)
    if ([...reach].every(block => seen.has(block))) return
    // A block may have been told apart just now that these have reached all along.
    for (const block of await reached([...own, ...kept])) seen.add(block)
    const fresh = [...reach].filter(block => !seen.has(block))
    for (const found of await search(inputs, new Set(fresh), reached)) {
      if (!isSmall(found) || runner.hasFailed(found)) continue
      kept.push(found)
      events.kept(found)
    }
    for (const block of fresh) seen.add(block)
  }
  let index = options.from
  // One batch in any case: a target that was given no time would look like one that nothing was found in.
  const more = (): boolean => index === options.from || performance.now() < endMs
  for (; runner.failures < MOST_FINDINGS && more(); index += BATCH) {
    const pool = [...own, ...kept]
    const numbers = Array.from({ length: BATCH }, (_, i) => ({ seed: options.seed, index: index + i }))
    runner.batch = index
    await take(numbers.map(number => inputOf(target, pool, number).input))
  }
  const ofSeeds = await reached(own)
  const inputs = options.fewest ? await fewest(kept, ofSeeds, reached) : kept
  return { inputs, tried: index - options.from, before: ofSeeds.size, after: seen.size }
}

/** Runs inputs, tells what fails, and looks at which blocks they reach. */
class Runner {
  readonly own: readonly Uint8Array[]
  /** Of the inputs that are mutated. */
  batch = 0
  readonly #blocks = new Blocks()
  readonly #target: Target
  readonly #seed: number
  readonly #events: GrowEvents
  readonly #failed: Set<string>

  constructor(target: Target, { seed, failed }: GrowOptions, events: GrowEvents) {
    this.own = target.seeds()
    this.#target = target
    this.#seed = seed
    this.#events = events
    this.#failed = new Set(failed)
  }

  get failures(): number {
    return this.#failed.size
  }

  hasFailed(input: Uint8Array): boolean {
    return this.#failed.size > 0 && this.#failed.has(idOf(input))
  }

  /** What these reach, but those that have failed. */
  async reached(inputs: readonly Uint8Array[]): Promise<Set<string>> {
    this.#blocks.taken()
    for (const given of inputs) {
      if (this.hasFailed(given)) continue
      const { input, random } = inputOf(this.#target, this.own, { seed: this.#seed, index: CHOICES }, given)
      this.#events.begins(given, this.batch)
      const { failure } = await runInput(this.#target, input, random)
      this.#events.ends()
      if (failure === undefined) continue
      this.#failed.add(idOf(given))
      this.#events.failed(given, failure)
    }
    return this.#blocks.taken()
  }

  close(): void {
    this.#blocks.close()
  }
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
