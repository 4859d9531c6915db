/**
 * A thread of `pool.ts`: runs one batch of inputs after the other. Before each input it writes the input's number to shared
 * memory, so that whoever watches knows which one a thread hangs in or died of.
 */
import { performance } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'
import { parentPort, workerData } from 'node:worker_threads'
import { messageOf } from '../../node/errors.ts'
import { seedsOf } from './corpus.ts'
import { inputOf } from './input.ts'
import type { Batch, BatchResult, ThreadData } from './pool.ts'
import { MEMORY_BYTES, type Target } from './target.ts'

const { module, shared } = workerData as ThreadData
const { targets } = (await import(module)) as { targets: readonly Target[] }
const now = new Int32Array(shared)
const seedsBy = new Map<string, readonly Uint8Array[]>()

parentPort?.on('message', (batch: Batch) => void runBatch(batch).then(result => parentPort?.postMessage(result)))
parentPort?.postMessage('ready')

async function runBatch(batch: Batch): Promise<BatchResult> {
  const target = targets.find(({ name }) => name === batch.target)
  if (target === undefined) throw new TypeError(`no target ${batch.target}`)
  let seeds = seedsBy.get(target.name)
  if (seeds === undefined) seedsBy.set(target.name, (seeds = seedsOf(target)))
  const result: BatchResult = { inputs: 0, refused: {}, slowest: { index: 0, ms: 0 }, largest: { index: 0, bytes: 0 } }
  for (let index = batch.from; index < batch.from + batch.count; index++) {
    now[0] = index
    const { input, random } = inputOf(target, seeds, { seed: batch.seed, index }, batch.input)
    const [bytes, ms] = [memory(), performance.now()]
    let refused: string | undefined
    try {
      const outcome = target.run(input, random)
      refused = outcome instanceof Promise ? await outcome : outcome
    } catch (error) {
      return { ...result, failed: { index, kind: 'threw', what: textOf(error) } }
    }
    const took = { ms: performance.now() - ms, bytes: memory() - bytes }
    result.inputs++
    if (refused !== undefined) result.refused[refused] = (result.refused[refused] ?? 0) + 1
    if (took.ms > result.slowest.ms) result.slowest = { index, ms: took.ms }
    if (took.bytes > result.largest.bytes) result.largest = { index, bytes: took.bytes }
    const limit = target.memoryBytes ?? MEMORY_BYTES
    if (took.bytes > limit) {
      const what = `took ${took.bytes} bytes of memory; ${limit} are allowed`
      return { ...result, failed: { index, kind: 'memory', what } }
    }
  }
  return result
}

/** Of this thread, garbage included: what a collection took away in the meantime is missing. */
function memory(): number {
  const { used_heap_size, external_memory } = getHeapStatistics()
  return used_heap_size + external_memory
}

const textOf = (error: unknown): string => (error instanceof Error && error.stack) || messageOf(error)
