/** The time of day, a value that changes every second, so that ages grow without a request. */
import { valueOf } from './store.ts'

export const now = valueOf(Date.now())

export function beginClock(): void {
  setInterval(() => {
    if (!document.hidden) now.set(Date.now())
  }, 1_000)
  document.addEventListener('visibilitychange', () => now.set(Date.now()))
}
