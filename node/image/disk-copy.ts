/**
 * Blocks of a VM's disks for one capture, out of the files that hold what was written: the newest file that has a block counts,
 * so files are read from the newest on, and no block twice. They do not change while they are read.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError, messageOf } from '../errors.ts'
import { BLOCK_BYTES, type BlockRun, qcow2Blocks, type Qcow2Source } from '../hypervisor/qcow2.ts'
import type { DiskFile } from '../ports.ts'
import type { DiskPlace } from './facts.ts'
import { PageSet } from './page-set.ts'
import type { PageSink } from './ram-copy.ts'

/** Of a raw file, read between two turns of the event loop. */
const READ_BYTES = 1 << 20
const ZEROS = Buffer.alloc(BLOCK_BYTES)

/**
 * Passes every block of `files` (the oldest first) to `sink`. A raw file is a base, and its disk held zeros before it: its
 * zeros are not passed. `places`: of the disks in their order. IMAGE_DISK where a file cannot be read, or is of another disk.
 */
export async function copyDisks(
  files: readonly DiskFile[],
  places: readonly DiskPlace[],
  sink: PageSink
): Promise<void> {
  for (const [disk, place] of places.entries()) {
    const seen = new PageSet(place.blocks)
    for (const file of files.filter(each => each.disk === disk).reverse()) await copyFile(file, place, { seen, sink })
  }
}

async function copyFile(
  { disk, path, format }: DiskFile,
  { firstPage, blocks }: DiskPlace,
  { seen, sink }: { readonly seen: PageSet; readonly sink: PageSink }
): Promise<void> {
  let source: FileSource | undefined
  const failed = (cause: unknown): DiapauseError =>
    new DiapauseError('IMAGE_DISK', `Disk ${disk} cannot be captured from ${path}: ${messageOf(cause)}`, { cause })
  try {
    source = new FileSource(path)
    const wanted = (block: number): boolean => !seen.has(block)
    const maxBytes = blocks * BLOCK_BYTES
    const runs = format === 'raw' ? rawBlocks(source, maxBytes) : qcow2Blocks(source, { wanted, maxBytes })
    for (;;) {
      const run = runs.next()
      if (run.done === true) return
      pass(run.value, { firstPage, seen, sink })
      await sink.congestion()
      await nextTurn()
    }
  } catch (cause) {
    throw cause instanceof DiapauseError && cause.code.startsWith('IMAGE_') ? cause : failed(cause)
  } finally {
    source?.close()
  }
}

function pass(
  { first, count, bytes }: BlockRun,
  { firstPage, seen, sink }: { readonly firstPage: number; readonly seen: PageSet; readonly sink: PageSink }
): void {
  for (let i = 0; i < count; i++) {
    if (!seen.add(first + i)) continue
    const block = bytes?.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
    sink.page(firstPage + first + i, block && ZEROS.equals(block) ? undefined : block)
  }
}

/** Blocks that are not zeros, in runs that lie within one read. */
function* rawBlocks(source: FileSource, maxBytes: number): Generator<BlockRun> {
  if (source.bytes > maxBytes)
    throw new DiapauseError('IMAGE_DISK', `a base of ${source.bytes} bytes for a disk of ${maxBytes}`)
  for (let at = 0; at < source.bytes; at += READ_BYTES) {
    const length = Math.min(READ_BYTES, source.bytes - at)
    const bytes = source.read(at, Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES)
    const blocks = bytes.length / BLOCK_BYTES
    const zero = (block: number) =>
      bytes.compare(ZEROS, 0, BLOCK_BYTES, block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES) === 0
    for (let from = 0; from < blocks; ) {
      while (from < blocks && zero(from)) from++
      let end = from
      while (end < blocks && !zero(end)) end++
      if (end > from) {
        const run = bytes.subarray(from * BLOCK_BYTES, end * BLOCK_BYTES)
        yield { first: at / BLOCK_BYTES + from, count: end - from, bytes: run }
      }
      from = end
    }
  }
}

class FileSource implements Qcow2Source {
  readonly bytes: number
  readonly #fd: number
  #buffer: Buffer = Buffer.allocUnsafeSlow(READ_BYTES)

  constructor(path: string) {
    this.#fd = openSync(path, 'r')
    this.bytes = fstatSync(this.#fd).size
  }

  /** What lies beyond the end of the file are zeros. */
  read(offset: number, length: number): Buffer {
    if (length > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(length)
    const into = this.#buffer.subarray(0, length)
    const read = readSync(this.#fd, into, 0, length, offset)
    if (read < length && offset + read < this.bytes) throw new RangeError(`the file ends at ${offset + read}`)
    return into.fill(0, read)
  }

  close(): void {
    closeSync(this.#fd)
  }
}
