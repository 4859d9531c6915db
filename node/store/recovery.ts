/**
 * What happens at open: segments and index are made to agree, and the segments are right. For each segment, what lies
 * behind the last indexed record is scanned and indexed, and a torn tail is cut off; a segment without an index is
 * scanned whole, and so is one of which the index holds another number of columns than it says; an index without its
 * segment is forgotten. Everything acknowledged was fsynced, so it is found. Counting reads the whole index: a second
 * for about half a million columns (LIBRARIES' level figures), and nothing else at a start grows with what is stored.
 */
import { open, readdir, rename, truncate, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError } from '../errors.ts'
import type { Log } from '../ports.ts'
import { readUpTo } from './blocks.ts'
import type { Catalog, IndexedSegment, IndexedUse } from './catalog.ts'
import { encodeSegmentHeader, MAX_SEGMENT_HEADER_BYTES, parseSegmentHeader, streamHash } from './record.ts'
import { type ScannedRecord, scanSegment } from './scan.ts'
import { recordBytes } from './stream-state.ts'

const NAME = /^([0-9a-f]{8})\.segment$/
/** Records indexed in one batch: a batch lives in memory. */
const BATCH_RECORDS = 1_000

export const segmentName = (segment: number): string => `${segment.toString(16).padStart(8, '0')}.segment`

export interface RecoveredSegment extends IndexedSegment {
  /** Of the file, and no record of the index. */
  readonly deadBytes: number
}

export interface Recovered {
  readonly segments: readonly RecoveredSegment[]
  /** No file and no index entry has this number or a higher one. */
  readonly nextSegment: number
}

/** STORE_VERSION where a segment is of a newer format. */
export async function recover(directory: string, catalog: Catalog, log: Log): Promise<Recovered> {
  const indexed = new Map((await catalog.segments()).map(entry => [entry.segment, entry]))
  const uses = await catalog.uses()
  const found: RecoveredSegment[] = []
  const files = new Map((await readdir(directory)).sort().flatMap(name => numberOf(name)))
  for (const { segment, stream } of indexed.values()) {
    if (files.has(segment)) continue
    log.warn({ segment, stream }, 'a segment in the index is gone from the disk')
    await catalog.forget(streamHash(stream).toString('hex'), new Set([segment]))
  }
  const unknown = [...uses.keys()].filter(segment => !files.has(segment) && !indexed.has(segment))
  if (unknown.length > 0) {
    // First of all: they would pass for newer than what is read below.
    log.warn({ segments: unknown }, 'the index places columns in segments that are not there; it forgets them')
    await catalog.forget(undefined, new Set(unknown))
  }
  // What is indexed from here on lies below what is read after it, so nothing else can be newer than what is read.
  const highest = [...uses.keys()].filter(segment => files.has(segment)).reduce((most, one) => Math.max(most, one), 0)
  for (const [segment, name] of files) {
    const known = indexed.get(segment)
    const use = { columns: 0, bytes: 0, ...uses.get(segment), mayBeNewer: segment < highest }
    const entry = await recoverSegment(join(directory, name), segment, known, use, catalog, log)
    if (entry !== undefined) found.push(entry)
  }
  const numbers = [...indexed.keys(), ...uses.keys(), ...files.keys()]
  return { segments: found, nextSegment: numbers.reduce((most, number) => Math.max(most, number), 0) + 1 }
}

function numberOf(name: string): [segment: number, name: string][] {
  const number = NAME.exec(name)?.[1]
  return number === undefined ? [] : [[Number.parseInt(number, 16), name]]
}

async function recoverSegment(
  path: string,
  segment: number,
  known: IndexedSegment | undefined,
  use: IndexedUse & { /** Columns of later segments are in the index already. */ readonly mayBeNewer: boolean },
  catalog: Catalog,
  log: Log
): Promise<RecoveredSegment | undefined> {
  const complete = (known?.records ?? 0) === use.columns
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    const deadOf = (bytes: number, stream: string, live: number): number =>
      Math.max(0, bytes - encodeSegmentHeader(stream).length - live)
    if (known?.bytes === size && complete) return { ...known, deadBytes: deadOf(size, known.stream, use.bytes) }
    const header = parseSegmentHeader(await readUpTo(file, 0, Math.min(size, MAX_SEGMENT_HEADER_BYTES)))
    if (header === 'version') {
      throw new DiapauseError('STORE_VERSION', `${path} was written by a newer diapause; start that version`)
    }
    if (header === undefined && known === undefined) {
      await setAside(path, size, log)
      return undefined
    }
    const stream = header?.stream ?? known?.stream ?? ''
    const hash = streamHash(stream)
    const hex = hash.toString('hex')
    let from = known?.bytes ?? header?.end ?? 0
    let before = known?.records ?? 0
    let liveBytes = use.bytes
    if (!complete || (known !== undefined && size < known.bytes)) {
      // The index is not to be believed, or acknowledged bytes are gone: what is there is indexed anew.
      log.warn({ path, size, indexed: known?.bytes }, 'a segment and its index disagree; it is read again')
      await catalog.forget(hex, new Set([segment]))
      from = header?.end ?? 0
      before = 0
      liveBytes = 0
    }
    const scan = await scanSegment(file, from, size, hash)
    if (scan.damaged > 0) log.error({ path, places: scan.damaged }, 'a segment is damaged before its end')
    if (scan.end < size) {
      log.info({ path, bytes: size - scan.end }, 'a torn tail was cut off')
      await truncate(path, scan.end)
    }
    const last = [...new Map(scan.records.map(record => [`${record.grid} ${record.column}`, record])).values()]
    const records = use.mayBeNewer ? await notPutAgain(last, segment, hex, catalog) : last
    const entry = { segment, stream, bytes: scan.end, records: before + records.length }
    for (let at = 0; at === 0 || at < records.length; at += BATCH_RECORDS) {
      const some = records.slice(at, at + BATCH_RECORDS).map(record => ({ ...record, segment }))
      // Only with the last batch is the segment indexed to its end.
      const upTo = at + BATCH_RECORDS < records.length ? { ...entry, bytes: from, records: before } : entry
      catalog.add(hex, some, upTo)
      await catalog.flush()
    }
    for (const { payloadBytes } of records) liveBytes += recordBytes(payloadBytes)
    return { ...entry, deadBytes: deadOf(scan.end, stream, liveBytes) }
  } finally {
    await file.close()
  }
}

/**
 * Of the records of a segment, each of its place the last here, those that count: not what was put again in a later segment, because
 * it was damaged or refuted. A refuted record is whole by its checksums: indexed again it would take the place of the right one.
 */
async function notPutAgain(
  records: readonly ScannedRecord[],
  segment: number,
  hex: string,
  catalog: Catalog
): Promise<ScannedRecord[]> {
  const counting: ScannedRecord[] = []
  for (const record of records) {
    const indexed = await catalog.get(hex, record.grid, record.column)
    if (indexed === undefined || indexed.segment <= segment) counting.push(record)
  }
  return counting
}

/** A file without a readable header: the first write of a segment torn (nothing was acknowledged), or a sick disk. */
async function setAside(path: string, size: number, log: Log): Promise<void> {
  if (size <= MAX_SEGMENT_HEADER_BYTES) {
    await unlink(path)
    return
  }
  log.error({ path, size }, 'a segment without a readable header was renamed and is not used')
  await rename(path, `${path}.damaged`)
}
