/** What this project calls of @ronomon/reed-solomon 6.0.0, which has no types of its own. */
export interface ReedSolomon {
  readonly MAX_K: number
  readonly MAX_M: number
  /** A coding context for k data and m parity shards; may be kept and used by several calls at once. */
  create(k: number, m: number): Buffer
  /**
   * Computes the shards whose bits are set in `targets` from those set in `sources` (bit i: data i, bit k + i: parity i)
   * on a thread of libuv's pool. Throws on bad lengths. Aborts the process on a Buffer of length 0.
   */
  encode(
    context: Buffer,
    sources: number,
    targets: number,
    buffer: Buffer,
    bufferOffset: number,
    bufferSize: number,
    parity: Buffer,
    parityOffset: number,
    paritySize: number,
    done: (error?: Error) => void
  ): void
}
