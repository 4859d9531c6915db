/** Changes of one register go one after another, in the order in which they were asked for; registers do not wait for each other. */
import type { Request } from './request.ts'

/** Changes of one register that may wait for their turn. A guess: each is a closure of this process, not data. */
export const MAX_WAITING = 256

export class ChangeQueue {
  /** Has an entry, empty or not, for every register of which a change is under way. */
  readonly #waiting = new Map<string, Request[]>()

  /** 'now': it is this change's turn. 'later': `next` will return it. 'full': MAX_WAITING others wait already. */
  add(request: Request): 'now' | 'later' | 'full' {
    const waiting = this.#waiting.get(request.key)
    if (waiting === undefined) {
      this.#waiting.set(request.key, [])
      return 'now'
    }
    if (waiting.length >= MAX_WAITING) return 'full'
    waiting.push(request)
    return 'later'
  }

  /** The change under way has ended: whose turn it is now. */
  next(key: string): Request | undefined {
    const next = this.#waiting.get(key)?.shift()
    if (next === undefined) this.#waiting.delete(key)
    return next
  }
}
