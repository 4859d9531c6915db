/** Promises that were rejected, with nobody there to hear of it. Node ends a process over one, and a peer takes its VMs with it. */
import { setTimeout as pause } from 'node:timers/promises'

/** What is left so by `work`, until a moment after its end. Vitest fails over it, too. */
export async function leftRejected(work: () => unknown, forMs = 100): Promise<unknown[]> {
  const left: unknown[] = []
  const note = (error: unknown): void => void left.push(error)
  process.on('unhandledRejection', note)
  try {
    await work()
    await pause(forMs)
  } finally {
    process.off('unhandledRejection', note)
  }
  return left
}
