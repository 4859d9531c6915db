/** How much of one VM's traffic may wait in memory. Beyond it the oldest frame is dropped, as a full network card does. */
export interface QueueLimits {
  readonly frames: number
  readonly bytes: number
}

export interface WaitingFrame {
  readonly colour: number
  readonly frame: Uint8Array
}

/** A bounded first-in first-out queue of coloured frames. Taking from the front is amortised constant time. */
export class FrameQueue {
  readonly #limits: QueueLimits
  #items: WaitingFrame[] = []
  #head = 0
  #bytes = 0

  constructor(limits: QueueLimits) {
    this.#limits = limits
  }

  get length(): number {
    return this.#items.length - this.#head
  }

  /** Appends; the result is how many old frames had to go to make room. */
  push(colour: number, frame: Uint8Array): number {
    this.#items.push({ colour, frame })
    this.#bytes += frame.length
    let dropped = 0
    while (this.length > 1 && (this.length > this.#limits.frames || this.#bytes > this.#limits.bytes)) {
      this.shift()
      dropped++
    }
    return dropped
  }

  /** Puts `frames` before all others. Not bounded: they are part of an image, which has its own limit. */
  prepend(colour: number, frames: readonly Uint8Array[]): void {
    this.#items = [...frames.map(frame => ({ colour, frame })), ...this.values()]
    this.#head = 0
    for (const frame of frames) this.#bytes += frame.length
  }

  shift(): WaitingFrame | undefined {
    const item = this.#items[this.#head]
    if (item === undefined) return undefined
    this.#head++
    this.#bytes -= item.frame.length
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.values()
      this.#head = 0
    }
    return item
  }

  /** Removes and returns the frames of colour `colour` and older, in their order. */
  takeUpTo(colour: number): WaitingFrame[] {
    const all = this.values()
    this.clear()
    const taken: WaitingFrame[] = []
    for (const item of all) {
      if (item.colour <= colour) taken.push(item)
      else this.push(item.colour, item.frame)
    }
    return taken
  }

  values(): WaitingFrame[] {
    return this.#items.slice(this.#head)
  }

  clear(): void {
    this.#items = []
    this.#head = 0
    this.#bytes = 0
  }
}
