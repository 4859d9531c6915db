/** What is told of an image in numbers: stands in its manifest, and in what its owner says when it is durable. */
import { z } from 'zod'

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

export const imageStatsSchema = z.strictObject({
  pages: count,
  pagesNonZero: count,
  pagesChanged: count,
  bytesRaw: count,
  bytesData: count,
  bytesStored: count,
  inFlightFrames: count,
  /** Absent in images that were made before pages were looked for elsewhere, and before deltas. */
  pagesSeen: count.optional(),
  pagesDelta: count.optional(),
  /** Absent where none is. */
  columnsMissing: count.min(1).optional()
})
