/** As much of a list as an answer holds: pure. */
import { MAX_ANSWER_BYTES } from './messages.ts'

/** For what stands around the list. */
const AROUND_BYTES = 1_024

/** The last `limit` of `items` at the most, and no more than fit; in order. */
export function newestThatFit<T>(items: readonly T[], limit: number, bytes = MAX_ANSWER_BYTES - AROUND_BYTES): T[] {
  let first = items.length
  let room = bytes
  while (first > 0 && items.length - first < limit) {
    room -= Buffer.byteLength(JSON.stringify(items[first - 1])) + 1
    if (room < 0) break
    first -= 1
  }
  return items.slice(first)
}
