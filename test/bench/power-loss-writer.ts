/**
 * The process that loses its power: told where (`WriterOrder`), it opens the store there and puts columns and manifests,
 * drops old streams, and says on its output, line by line, what was acknowledged, until somebody kills it.
 *
 *   ready                    the store is open
 *   put STREAM GRID COLUMN   that put was acknowledged
 *   manifest NUMBER          so was that one
 *   drop STREAM              it is about to be dropped: nobody promises it any more
 */
import { hash } from 'node:crypto'
import { statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { messageOf } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import { type Files, nodeFiles, segmentFile } from '../../node/store/files.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { contentOf, manifestOf } from './shard-content.ts'

export interface WriterOrder {
  readonly dir: string
  /** In names: what a round puts is new. */
  readonly round: number
  /** Acknowledge without fdatasync: that must be found out. */
  readonly unsynced: boolean
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

/** Heard, whatever becomes of this process: where nobody reads for some hundred lines, they wait in its memory. */
const tell = (line: string): Promise<void> => new Promise(resolve => process.stdout.write(`${line}\n`, () => resolve()))

/**
 * For a moment after its shutdown, xfs may answer fsync with success for those that wait for its log: three were seen at
 * once, and what they had written was gone. A machine without power answers nobody. So whoever has an answer looks
 * whether the disk is still there (`stat` gives EIO) before it says a word.
 */
function acknowledge(dir: string, line: string): void {
  statSync(dir)
  say(line)
}

/** Puts under way at once: half of what one peer may have under way to another. */
const WORKERS = 8
/** Segments are rolled often, since a new file is a moment of its own. */
const SEGMENT_BYTES = 2 << 20
/** Streams beyond these are dropped, so that the disk is never full and drops are interrupted, too. */
const MOST_STREAMS = 6
const MOST_MANIFESTS = 20

const lazyFiles: Files = {
  ...nodeFiles,
  async openSegment(path, fresh) {
    return segmentFile(await open(path, fresh ? 'wx' : 'r+'))
  }
}

async function write({ dir, round, unsynced }: WriterOrder): Promise<void> {
  const files = unsynced ? lazyFiles : nodeFiles
  const store = await openShardStore(dir, { log: quietLog, clock, files, segmentBytes: SEGMENT_BYTES })
  const streams = (await store.streams()).slice(0, -MOST_STREAMS)
  const manifests = (await store.manifests()).slice(MOST_MANIFESTS)
  say('ready')
  let grid = 0
  const put = async (worker: number): Promise<void> => {
    const place = { stream: `g/v${worker % 2}/1/${round}`, grid: grid++, column: worker % 3 }
    await store.putColumn(place.stream, place.grid, place.column, contentOf(place))
    acknowledge(dir, `put ${place.stream} ${place.grid} ${place.column}`)
  }
  await Promise.all([
    ...Array.from({ length: WORKERS }, async (_, worker) => {
      for (;;) await put(worker)
    }),
    putManifests(store, dir, round),
    dropOld(
      store,
      streams.map(each => each.stream),
      manifests
    )
  ])
}

async function putManifests(store: ShardStore, dir: string, round: number): Promise<void> {
  for (let i = 0; i < 1_000; i++) {
    const bytes = manifestOf(round * 1_000 + i)
    await store.putManifest(hash('sha256', bytes), bytes)
    acknowledge(dir, `manifest ${round * 1_000 + i}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** All from before this round, so that nothing is acknowledged after it was given up. */
async function dropOld(store: ShardStore, streams: readonly string[], manifests: readonly string[]): Promise<void> {
  for (const stream of streams) {
    await tell(`drop ${stream}`)
    await store.dropStream(stream)
  }
  for (const manifest of manifests) {
    await tell(`forget ${manifest}`)
    await store.dropManifest(manifest)
  }
}

process.on('disconnect', () => process.exit())
process.on('message', (order: WriterOrder) => {
  // The disk is gone: what comes now says nothing, and this process is killed.
  write(order).catch(error => say(`failed ${messageOf(error)}`))
})
