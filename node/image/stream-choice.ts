/**
 * Which streams of an image are retired. A page whose content is as before stays where it is, however old that stream; so
 * an image leans on several streams, and two things bound that. Beyond FEW_STREAMS those with the fewest live pages are
 * retired before a capture, that is, their live pages are written again as they pass. Retiring the one with the *fewest*
 * pages, rather than the oldest, leaves the large first stream alone for as long as it is worth it. And a stream that is mostly
 * dead (below a quarter live) is retired as well, so that an image never keeps more than about four times its own size alive.
 *
 * What is written again should not be much more than what changes. A VM that changes 200 of its 50,000 pages in each epoch
 * would soon write 7,400 again in each, with eight streams of about one size (measured: five epochs a second did not keep up). So
 * a retirement that costs more than an epoch waits, until there are MAX_STREAMS: at most 1,200 pages then (simulated).
 *
 * And an image is as safe as its weakest stream: one that was written while peers were away, or whose holders have gone
 * since, is retired as soon as the holders of the new stream bear more losses than its own.
 *
 * Pages of RAM are copied again from RAM. Blocks of disks have to be read out of the old stream, and a disk may be
 * larger than what is read before an epoch's deadline. So an epoch moves a part of them (`blocksToRewrite`), the stream stays
 * until its last is moved, and streams with as many blocks as such a part, of which there are few, are not retired for
 * their number. Pure.
 */

/** Streams of an image, the present one included. 8: a guess between bytes rewritten and manifests read at a restore. */
const FEW_STREAMS = 8
/** Never more but for those with much of disks: manifests have room for MAX_INDEX_STREAMS. */
export const MAX_STREAMS = 48
/** Pages written again for each that the epoch before changed, where there are fewer than MAX_STREAMS. A guess. */
const AGAIN = 2
const DEAD_BELOW = 0.25

/** A stream with so many blocks has much of disks: a sixteenth of all, 256 MiB at least. Guesses. */
const LARGE_PART = 16
const LARGE_BLOCKS = 1 << 16
/** Others that are kept beside such ones, however many those are. A guess. */
const MIN_OTHERS = 3

/** Deltas that take as much of a stream as a page does: those of two or three blocks of 64 bytes. A guess. */
const DELTAS_A_PAGE = 16

/** What `places` take of a stream, in pages, where so many of them are `deltas`. */
export const inPages = (places: number, deltas: number): number => places - deltas + Math.ceil(deltas / DELTAS_A_PAGE)

/** What there is of a stream: places that lie in it, of these those of blocks of disks, and all that was written to it. */
export interface StreamUse {
  readonly live: number
  readonly pages: number
  readonly blocks?: number
  /** Others lean on it, too: given up here, it would stay all the same. */
  readonly shared?: boolean
}

/**
 * Which streams to retire before one more: the mostly dead; and, but for those with much of disks, those with fewest live
 * pages (the older where equal): all that are more than MAX_STREAMS, and of those that are more than FEW_STREAMS as many as have
 * AGAIN times the pages that were `changed` lately (`inPages`). Streams without live pages are not
 * asked about: they go by themselves. Shared ones stay, and leave that many fewer of MAX_STREAMS.
 */
export function streamsToRetire(streams: readonly StreamUse[], changed: number): number[] {
  const live = streams
    .map((stream, index) => ({ ...stream, index }))
    .filter(stream => stream.live > 0 && stream.shared !== true)
  const shared = streams.filter(stream => stream.live > 0 && stream.shared === true).length
  const dead = live.filter(stream => stream.live < DEAD_BELOW * stream.pages)
  const rest = live.filter(stream => !dead.includes(stream)).sort((a, b) => a.live - b.live || a.index - b.index)
  const large = largeOf(streams)
  const small = rest.filter(({ blocks = 0 }) => blocks < large)
  const over = (max: number) => small.length - Math.max(MIN_OTHERS, max - 1 - (rest.length - small.length))
  let left = AGAIN * changed
  const surplus = small.slice(0, Math.max(0, over(FEW_STREAMS))).filter(({ live: cost }, at) => {
    left -= cost
    return left >= 0 || at < over(MAX_STREAMS - shared)
  })
  return [...dead, ...surplus].map(stream => stream.index).sort((a, b) => a - b)
}

/** How many blocks of retired streams an epoch writes again. */
export function blocksToRewrite(streams: readonly StreamUse[], retired: readonly boolean[]): number {
  const large = largeOf(streams)
  const wanted = streams.map(({ blocks = 0 }, i) => (retired[i] === true ? Math.min(blocks, large) : 0))
  return Math.min(
    2 * large,
    wanted.reduce((sum, blocks) => sum + blocks, 0)
  )
}

function largeOf(streams: readonly StreamUse[]): number {
  const blocks = streams.reduce((sum, { blocks = 0 }) => sum + blocks, 0)
  return Math.max(LARGE_BLOCKS, Math.ceil(blocks / LARGE_PART))
}

/**
 * How many more of the peers in `alive` may be lost, whichever, until fewer than k of a stream's columns are left; columns
 * at other peers count as lost already. Below 0: it cannot be read now.
 */
export function toleratedLosses(holders: readonly string[], m: number, alive: readonly string[]): number {
  const columns = new Map(alive.map(peer => [peer, 0]))
  let left = m
  for (const holder of holders) {
    const count = columns.get(holder)
    if (count === undefined) left--
    else columns.set(holder, count + 1)
  }
  let tolerated = left < 0 ? -1 : 0
  for (const count of [...columns.values()].filter(each => each > 0).sort((a, b) => b - a)) {
    left -= count
    if (left < 0) break
    tolerated++
  }
  return tolerated
}
