/**
 * What is fuzzed: a parser of foreign bytes, whole inputs to begin with, and what must hold of every input. It gives a
 * value or refuses with a code of its own; anything else that is thrown, a hang, or memory beyond a bound is a finding.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { Random } from '../../protocols/core.ts'

export interface Target {
  readonly name: string
  readonly group: 'images' | 'messages' | 'texts'
  /** One line: whose bytes these are. */
  readonly summary: string
  /** Inputs that are mutated: whole and small. Made once in each thread. */
  seeds(): readonly Uint8Array[]
  /**
   * Parses one input and checks what must hold of it: throws where that does not. Undefined: it gave a value, else the code
   * with which it was refused. `random` is for choices that are no part of the input, such as where chunks end.
   */
  run(input: Uint8Array, random: Random): string | undefined | Promise<string | undefined>
  /** Where not `mutate`. */
  mutate?(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array
  /** Memory that one input may take, held or thrown away. MEMORY_BYTES unless told. */
  readonly memoryBytes?: number
}

/** A guess: a hundred times the largest input. */
export const MEMORY_BYTES = 32 << 20

/** The code of a refusal that `codes` allows; throws `error` itself where it is none. */
export function refusal(error: unknown, codes: RegExp): string {
  if (error instanceof DiapauseError && codes.test(error.code)) return error.code
  throw error
}

/** Reads, and checks the value. The code where it is refused. */
export function attempt<T>(codes: RegExp, read: () => T, holds: (value: T) => void = () => {}): string | undefined {
  let value: T
  try {
    value = read()
  } catch (error) {
    return refusal(error, codes)
  }
  holds(value)
  return undefined
}

/** `bytes` in up to `most` chunks, each in memory of its own, some of them empty. */
export function chunksOf(bytes: Uint8Array, random: Random, most = 12): Uint8Array[] {
  const count = Math.floor(random() * most)
  const cuts = Array.from({ length: count }, () => Math.floor(random() * (bytes.length + 1))).sort((a, b) => a - b)
  return [...cuts, bytes.length].map((end, i) => new Uint8Array(bytes.subarray(cuts[i - 1] ?? 0, end)))
}

/**
 * What `read` makes of `input` must be the same in one piece and in many: the code where it is refused. `reasons`: also why,
 * which is not to be asked where a whole chunk is taken apart before any of it is read.
 */
export function inAnyChunks(
  codes: RegExp,
  {
    input,
    random,
    reasons = true
  }: { readonly input: Uint8Array; readonly random: Random; readonly reasons?: boolean },
  read: (chunks: readonly Uint8Array[]) => string
): string | undefined {
  const most = random() < 0.1 ? 400 : 12
  const whole = outcomeOf(codes, () => read([new Uint8Array(input)]))
  const parts = outcomeOf(codes, () => read(chunksOf(input, random, most)))
  const same = parts.text === whole.text || (!reasons && parts.refused !== undefined && whole.refused !== undefined)
  if (!same) throw new Error(`in other chunks it reads otherwise:\n  ${brief(parts.text)}\n  ${brief(whole.text)}`)
  return whole.refused
}

const brief = (text: string): string => JSON.stringify(text.slice(0, 300))

/** What `read` gives, or how it refuses, as text: to compare two ways of reading the same. */
function outcomeOf(codes: RegExp, read: () => string): { readonly text: string; readonly refused?: string } {
  try {
    return { text: read() }
  } catch (error) {
    const refused = refusal(error, codes)
    return { text: `${refused}: ${(error as Error).message}`, refused }
  }
}
