/** One input of a target, and what came of it: the same judgement wherever inputs are run. */
import { performance } from 'node:perf_hooks'
import { setImmediate } from 'node:timers/promises'
import { getHeapStatistics } from 'node:v8'
import { messageOf } from '../../node/errors.ts'
import type { Random } from '../../protocols/core.ts'
import { MEMORY_BYTES, type Target } from './target.ts'

/** `hang` and `died` are seen from outside of the thread only. */
export interface Failure {
  readonly kind: 'threw' | 'memory' | 'hang' | 'died'
  readonly what: string
}

export interface Ran {
  /** The code with which it was refused; undefined: it gave a value, or failed. */
  readonly refused?: string | undefined
  readonly failure?: Failure
  readonly ms: number
  readonly bytes: number
}

/** A promise that the target left behind, and that nobody awaits, takes the thread with it before this resolves: so it is known whose it was. */
export async function runInput(target: Target, input: Uint8Array, random: Random): Promise<Ran> {
  const ran = await judged(target, input, random)
  await setImmediate()
  return ran
}

async function judged(target: Target, input: Uint8Array, random: Random): Promise<Ran> {
  const [held, startedMs] = [heldBytes(), performance.now()]
  const cost = () => ({ ms: performance.now() - startedMs, bytes: heldBytes() - held })
  let refused: string | undefined
  try {
    const outcome = target.run(input, random)
    refused = outcome instanceof Promise ? await outcome : outcome
  } catch (error) {
    return { ...cost(), failure: { kind: 'threw', what: textOf(error) } }
  }
  const took = cost()
  const limit = target.memoryBytes ?? MEMORY_BYTES
  if (took.bytes <= limit) return { ...took, refused }
  const what = `took ${took.bytes} bytes of memory; ${limit} are allowed`
  return { ...took, refused, failure: { kind: 'memory', what } }
}

/** Of this thread, garbage included: what a collection took away in the meantime is missing. */
function heldBytes(): number {
  const { used_heap_size, external_memory } = getHeapStatistics()
  return used_heap_size + external_memory
}

const textOf = (error: unknown): string => (error instanceof Error && error.stack) || messageOf(error)
