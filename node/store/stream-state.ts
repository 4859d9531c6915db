/** What a store knows of one stream while it is open. */
import type { StreamId } from '../ports.ts'
import { blocksOf, RECORD_HEADER_BYTES } from './record.ts'
import type { StreamWriter } from './writer.ts'

export interface StreamState {
  readonly stream: StreamId
  /** Of its hash, as in the index. */
  readonly hex: string
  readonly segments: Map<number, SegmentUse>
  readonly writer: StreamWriter
  /** Puts under way, by grid and column: a second put of the same place waits for the first. */
  readonly puts: Map<string, Promise<void>>
  /** Column → the last of its grids that was put; undefined for a stream that was here before this run of the store. */
  readonly highest: Map<number, number> | undefined
  /** Grids and columns that were found damaged and not put again. */
  readonly damaged: Set<string>
  /** Those of them whose checksums are right. */
  readonly refuted: Set<string>
  compacting: Promise<void> | undefined
  dropping: Promise<void> | undefined
}

/** Bytes of a segment file, and those of them that are no record of the index: damaged, or put again elsewhere. */
export interface SegmentUse {
  bytes: number
  deadBytes: number
}

export const placeKey = (grid: number, column: number): string => `${grid} ${column}`

/** What a column takes in its segment. */
export const recordBytes = (payloadBytes: number): number =>
  RECORD_HEADER_BYTES + 4 * blocksOf(payloadBytes) + payloadBytes
