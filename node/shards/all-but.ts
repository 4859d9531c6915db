/** Waiting for many, of which some may be missing. */
import type { Clock } from '../ports.ts'

/**
 * Resolves when all of `tasks` have, or when all but `spare` have and the others have taken `patienceMs` longer. Rejects with
 * the last one's error when more than `spare` have failed.
 */
export function allBut(
  spare: number,
  tasks: readonly Promise<unknown>[],
  clock: Clock,
  patienceMs: number
): Promise<void> {
  return new Promise((resolve, reject) => {
    let [left, failed, done] = [tasks.length, 0, 0]
    let cancel = (): void => {}
    const ended = (): void => {
      if (--left > 0) return
      cancel()
      resolve()
    }
    if (tasks.length === 0) resolve()
    for (const task of tasks) {
      task.then(
        () => {
          if (++done === tasks.length - spare) cancel = clock.after(patienceMs, resolve)
          ended()
        },
        (error: Error) => {
          if (++failed > spare) reject(error)
          ended()
        }
      )
    }
  })
}
