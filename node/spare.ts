/**
 * One of something that takes long to make, made ahead: who needs one does not wait. The next is made when the host has had time
 * for what the last was taken for.
 */

/** After one was taken. A guess: by then its VM runs and has most of its pages. */
const REST_MS = 5_000

export interface SpareParts<T> {
  /** Makes one that keeps no process alive. `lost` is called when one has ended by itself, and says whether nobody had taken it. */
  make(lost: () => boolean): Promise<T>
  /** Ends one that nobody has taken. */
  end(thing: T): Promise<void>
}

export class Spare<T extends object> {
  readonly #parts: SpareParts<T>
  #waiting: T | undefined
  #resting: NodeJS.Timeout | undefined
  #preparing: Promise<void> | undefined
  #closed = false

  /** None is made before one was asked for, or `prepare` is called. */
  constructor(parts: SpareParts<T>) {
    this.#parts = parts
  }

  /** Makes one now, where none waits. One that cannot be made is not heard of: who needs one makes it then, and hears why not. */
  prepare(): void {
    if (this.#closed || this.#waiting !== undefined || this.#preparing !== undefined) return
    this.#preparing = this.#make()
      .catch(() => {})
      .finally(() => (this.#preparing = undefined))
  }

  /** Undefined where none waits. */
  take(): T | undefined {
    clearTimeout(this.#resting)
    if (!this.#closed) this.#resting = setTimeout(() => this.prepare(), REST_MS).unref()
    const taken = this.#waiting
    this.#waiting = undefined
    return taken
  }

  /** None waits when this resolves, and none is made after it. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#resting)
    await this.#preparing
    const left = this.#waiting
    this.#waiting = undefined
    if (left !== undefined) await this.#parts.end(left)
  }

  async #make(): Promise<void> {
    const one: { thing?: T; ended: boolean } = { ended: false }
    one.thing = await this.#parts.make(() => {
      one.ended = true
      const untaken = one.thing === undefined || one.thing === this.#waiting
      if (untaken) this.#waiting = undefined
      return untaken
    })
    if (!one.ended) this.#waiting = one.thing
  }
}
