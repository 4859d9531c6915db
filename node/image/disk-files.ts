/** Disks of images as qcow2 files: out of an image's blocks, and into a file that a capture reads. */
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { UsageError } from '../errors.ts'
import { QCOW2_CLUSTER_BYTES, qcow2Layout } from '../hypervisor/qcow2-writer.ts'
import { type Qcow2Header, readQcow2Header } from '../hypervisor/qcow2.ts'
import type { BlockSource } from '../ports.ts'

/** More than any header. */
const HEAD_BYTES = 4096
/** Asked for at once. */
const MAX_EXTENTS = 1024
/** Read at once: extents of an image are mostly of neighbours, and each read opens those that it needs. A guess. */
const READ_CLUSTERS = 16
/** What an imported file may have beyond its disk: tables, and clusters that are used no more. Guesses. */
const FILE_TIMES_DISK = 1.25
const FILE_BYTES_BESIDES = 64 << 20

/**
 * A disk as qcow2, in clusters: those with anything in them besides what is known to be zeros, in the order of the disk, so
 * that neighbours are read together. What reading it rejects with.
 */
export async function* exportDisk(disk: BlockSource): AsyncGenerator<Uint8Array> {
  const clusters = await clustersOf(disk)
  yield* qcow2Layout(disk.bytes, clusters).tables()
  for (let at = 0; at < clusters.length; ) {
    const first = clusters[at] ?? 0
    let count = 1
    while (count < READ_CLUSTERS && clusters[at + count] === first + count) count++
    const offset = first * QCOW2_CLUSTER_BYTES
    const bytes = await disk.read(offset, Math.min(count * QCOW2_CLUSTER_BYTES, disk.bytes - offset))
    yield bytes
    const missing = count * QCOW2_CLUSTER_BYTES - bytes.length
    if (missing > 0) yield new Uint8Array(missing) // behind the end of a disk whose last cluster is not whole
    at += count
  }
}

/** Numbers of the clusters that are not known to be zeros, ascending. */
async function clustersOf(disk: BlockSource): Promise<Uint32Array> {
  const clusters = new Uint32Array(Math.ceil(disk.bytes / QCOW2_CLUSTER_BYTES))
  let count = 0
  let next = 0
  for (let at = 0; at < disk.bytes; ) {
    for (const { length, zero } of await disk.extents(at, disk.bytes - at, MAX_EXTENTS)) {
      const first = Math.max(next, Math.floor(at / QCOW2_CLUSTER_BYTES))
      at += length
      if (zero) continue
      next = Math.ceil(at / QCOW2_CLUSTER_BYTES)
      for (let cluster = first; cluster < next; cluster++) clusters[count++] = cluster
    }
    await nextTurn()
  }
  return clusters.subarray(0, count)
}

/** A file of its own in `folder`, for as long as a capture needs it. */
export interface SavedDisk {
  readonly path: string
  remove(): Promise<void>
}

/**
 * Keeps a qcow2 file, which nobody vouches for, while it is imported. UsageErrors IMPORT_SIZE, IMPORT_DISK where it is of a
 * disk of another size, or has a backing file, which is not here: it would read as zeros. QCOW2_… where it is none.
 */
export async function saveDisk(
  folder: string,
  parts: AsyncIterable<Uint8Array>,
  diskBytes: number
): Promise<SavedDisk> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const path = join(await mkdtemp(join(folder, 'import-')), 'disk')
  const remove = () => rm(dirname(path), { recursive: true, force: true })
  try {
    const file = await open(path, 'wx', 0o600)
    try {
      const maxBytes = FILE_TIMES_DISK * diskBytes + FILE_BYTES_BESIDES
      let bytes = 0
      for await (const part of parts) {
        bytes += part.length
        if (bytes > maxBytes)
          throw new UsageError('IMPORT_SIZE', `the file of a disk of ${diskBytes} bytes is larger than ${maxBytes}`)
        await file.appendFile(part)
      }
      requireDisk(await headOf(path, bytes), diskBytes)
    } finally {
      await file.close()
    }
    return { path, remove }
  } catch (error) {
    await remove()
    throw error
  }
}

async function headOf(path: string, fileBytes: number): Promise<Qcow2Header> {
  const file = await open(path)
  try {
    const head = Buffer.alloc(Math.min(fileBytes, HEAD_BYTES))
    await file.read(head, 0, head.length, 0)
    return readQcow2Header({ bytes: fileBytes, read: (offset, length) => head.subarray(offset, offset + length) })
  } finally {
    await file.close()
  }
}

function requireDisk({ diskBytes, hasBacking }: Qcow2Header, expectedBytes: number): void {
  const problem =
    diskBytes !== expectedBytes
      ? `it is of a disk of ${diskBytes} bytes, and the VM has one of ${expectedBytes}`
      : 'it has a backing file, which is not here'
  if (diskBytes === expectedBytes && !hasBacking) return
  throw new UsageError('IMPORT_DISK', `this disk cannot be imported: ${problem}`)
}
