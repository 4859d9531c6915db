/**
 * A thread of `pool.ts`: runs one batch of inputs after the other. Before each input it writes the input's number to shared
 * memory, so that whoever watches knows which one a thread hangs in or died of.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { seedsOf } from './corpus.ts'
import { inputOf } from './input.ts'
import type { Batch, BatchResult, ThreadData } from './pool.ts'
import { runInput } from './run-input.ts'
import type { Target } from './target.ts'

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
    const { refused, failure, ms, bytes } = await runInput(target, input, random)
    if (failure !== undefined && failure.kind !== 'memory') return { ...result, failed: { index, ...failure } }
    result.inputs++
    if (refused !== undefined) result.refused[refused] = (result.refused[refused] ?? 0) + 1
    if (ms > result.slowest.ms) result.slowest = { index, ms }
    if (bytes > result.largest.bytes) result.largest = { index, bytes }
    if (failure !== undefined) return { ...result, failed: { index, ...failure } }
  }
  return result
}
