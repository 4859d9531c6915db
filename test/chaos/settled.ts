/** What must come to be so by itself after the last heal: looked at until it is, or until the objective is over. */
import { setTimeout as sleep } from 'node:timers/promises'
import { OBJECTIVE_MS } from './promises.ts'

/** To read all processes of a busy machine takes 50 ms. */
const LOOK_AGAIN_MS = 500

/** What was still wrong then; empty: nothing. */
export async function settled(
  look: () => string[] | Promise<string[]>,
  { withinMs = OBJECTIVE_MS, againMs = LOOK_AGAIN_MS } = {}
): Promise<string[]> {
  const deadlineMs = performance.now() + withinMs
  for (;;) {
    const faults = await look()
    if (faults.length === 0 || performance.now() > deadlineMs) return faults
    await sleep(againMs)
  }
}
