/**
 * The input that a thread is in just now, in memory that it shares with whoever watches it: a thread that hangs or is dead cannot
 * be asked, and inputs that are mutated from what was kept before have no number by which they could be made again.
 */

/** Of 32 bits each: which run this is, 0 between runs; runs so far; bytes of the input; the batch that it is of. */
const [NOW, RUNS, LENGTH, BATCH] = [0, 1, 2, 3]
const HEAD_BYTES = 16
/** Only what is used is taken of the machine. A guess: five hundred times the largest input. */
const MOST_BYTES = 64 << 20

export class Running {
  readonly shared: SharedArrayBuffer
  readonly #head: Int32Array

  /** `shared`: of the other thread. */
  constructor(shared = new SharedArrayBuffer(HEAD_BYTES, { maxByteLength: MOST_BYTES })) {
    this.shared = shared
    this.#head = new Int32Array(shared, 0, HEAD_BYTES / 4)
  }

  // ---- the thread

  begins(input: Uint8Array, batch: number): void {
    const end = HEAD_BYTES + input.length
    if (this.shared.byteLength < end) this.shared.grow(end)
    new Uint8Array(this.shared, HEAD_BYTES, input.length).set(input)
    this.#head[LENGTH] = input.length
    this.#head[BATCH] = batch
    Atomics.store(this.#head, NOW, Atomics.add(this.#head, RUNS, 1) + 1)
  }

  ends(): void {
    Atomics.store(this.#head, NOW, 0)
  }

  // ---- who watches it

  /** Before the thread is given something else. */
  reset(): void {
    this.#head.fill(0)
  }

  /** Another number for each run; 0: in none. */
  get now(): number {
    return Atomics.load(this.#head, NOW)
  }

  /** Of the run that it is in or was in last. Undefined: there was none. */
  get last(): { readonly input: Uint8Array; readonly batch: number } | undefined {
    if (Atomics.load(this.#head, RUNS) === 0) return undefined
    const input = new Uint8Array(new Uint8Array(this.shared, HEAD_BYTES, this.#head[LENGTH]))
    return { input, batch: this.#head[BATCH] ?? 0 }
  }
}
