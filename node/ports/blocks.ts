/** Disks whose blocks are read when they are asked for, and their way to machines of this host. */

/** A disk that never changes. */
export interface BlockSource {
  readonly bytes: number
  /** Exactly `length` bytes of the disk. Rejects where they cannot be had now (SHARD_LOST); a later try may do. */
  read(offset: number, length: number): Promise<Uint8Array>
  /**
   * What lies in [offset, offset + length): ranges end to end from `offset` on, at most `most` of them, so that they may end
   * early, but at least one. None is empty.
   */
  extents(offset: number, length: number, most: number): Promise<readonly BlockExtent[]>
}

export interface BlockExtent {
  readonly length: number
  /** Nothing but zeros. Where false: it was not looked at. */
  readonly zero: boolean
}

/** Serves disks, by name, to QEMU on a unix socket that only this user may use. Resolves when it listens. */
export type ServeBlocks = (socketPath: string, disks: ReadonlyMap<string, BlockSource>) => Promise<BlockServer>

export interface BlockServer {
  /** Ends all connections; what is being read is not answered. Never rejects. */
  close(): Promise<void>
}
