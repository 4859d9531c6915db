/** A thread of `pool.ts`: runs the seeds that it is given, one after the other. */
import { parentPort } from 'node:worker_threads'
import { CLUSTER_BUGS } from './cluster-bugs.ts'
import { runClusterSeed } from './cluster-run.ts'
import type { Done, SeedOutcome, Task } from './pool.ts'
import { BUGS } from './register-bugs.ts'
import { runSeed } from './register-run.ts'

// Thousands of errors are made and handled in a seed: a long trace of each would cost a twentieth of the time.
Error.stackTraceLimit = 3

parentPort?.on('message', (task: Task) => void answer(task))

async function answer(task: Task): Promise<void> {
  const startedMs = performance.now()
  const outcome = await run(task)
  const done: Done = { ...outcome, world: task.world, tookMs: performance.now() - startedMs }
  parentPort?.postMessage(done)
}

function run({ world, seed, peers, bug }: Task): Promise<SeedOutcome> {
  if (world === 'registers') return runSeed(seed, { peers, wiring: BUGS[bug], focus: BUGS[bug]?.focus })
  return runClusterSeed(seed, { peers, wiring: CLUSTER_BUGS[bug]?.wiring })
}
