/** Shards at rest, and the code that makes them. */

/** One VM's data of one epoch: `GROUP/VM/GENERATION/EPOCH`. What a stream holds never changes once written. */
export type StreamId = string

/** One column of one grid of a stream. */
export interface ColumnPlace {
  readonly stream: StreamId
  readonly grid: number
  readonly column: number
}

/** Shards of this peer's disk. A resolved `put` survives power loss. */
export interface ShardStore {
  /** Stores column `column` of grid `grid`. Twice the same is fine; other bytes: SHARD_CONFLICT. Full disk: STORE_FULL. */
  putColumn(stream: StreamId, grid: number, column: number, bytes: Uint8Array): Promise<void>
  /** `length` bytes from `offset` of a column. SHARD_MISSING, or SHARD_CORRUPT where the checksum of the record fails. */
  readColumn(stream: StreamId, grid: number, column: number, offset: number, length: number): Promise<Uint8Array>
  /** The columns of a stream that are here, ascending, and in how many grids; what was found damaged is not counted. */
  columns(stream: StreamId): Promise<{ column: number; grids: number }[]>
  /** Every column that is here, whole or damaged, in an order that stays, behind `after` (which may be gone by now). */
  eachColumn(after?: ColumnPlace): AsyncIterable<ColumnPlace & { bytes: number }>
  /** Reads all of a column and checks it. A damaged one may be put again, and counts as not here until it is. */
  verifyColumn(stream: StreamId, grid: number, column: number): Promise<ColumnState>
  /** What is here is not what should have been put, whatever its checksums say: damaged from now on, for all that ask. */
  refuteColumn(stream: StreamId, grid: number, column: number): Promise<void>
  /** Of the disk, and of shards on it; `putColumn` gives STORE_FULL when nothing is free. */
  space(): Promise<StoreSpace>
  /** Manifests are named by the hex SHA-256 of their bytes; MANIFEST_HASH where they are not. */
  putManifest(hash: string, bytes: Uint8Array): Promise<void>
  getManifest(hash: string): Promise<Uint8Array | undefined>
  /** What is here, with bytes on disk. */
  streams(): Promise<{ stream: StreamId; bytes: number }[]>
  manifests(): Promise<string[]>
  dropStream(stream: StreamId): Promise<void>
  dropManifest(hash: string): Promise<void>
  close(): Promise<void>
}

export interface StoreSpace {
  /** Columns that are here, with what the store adds to them. */
  readonly liveBytes: number
  /** Taken by what is damaged and was put again, until it is worth giving back. */
  readonly deadBytes: number
  /** What may still be put; 0 also while the disk takes nothing, whatever room it has. */
  readonly freeBytes: number
}

export type ColumnState = 'whole' | 'damaged' | 'missing'

/** Reed-Solomon over equal symbols (a multiple of 8 bytes). Data is k symbols end to end, parity m. */
export interface Codec {
  encode(data: Uint8Array, parity: Uint8Array, shape: CodeShape): Promise<void>
  /**
   * Rebuilds the missing symbols in place; `dataOnly`: of the parity none that need not be. `present` has k + m entries, data
   * first. DECODE_IMPOSSIBLE below k.
   */
  decode(
    data: Uint8Array,
    parity: Uint8Array,
    shape: CodeShape,
    present: readonly boolean[],
    dataOnly?: boolean
  ): Promise<void>
}

export interface CodeShape {
  readonly k: number
  readonly m: number
  readonly symbolBytes: number
}
