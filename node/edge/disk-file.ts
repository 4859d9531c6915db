/** What a file is that a disk is to begin with, by its size and its first bytes. qcow2: docs/interop/qcow2.txt of QEMU. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { DiskFacts, Qcow2Facts } from './adopt/adopt.ts'
import { hasCode, messageOf } from '../errors.ts'

const MAGIC = 0x514649fb
const HEADER_BYTES = 80
/** Of the incompatible features: another file holds the data. */
const EXTERNAL_DATA = 4n

/** Never rejects. Nothing but the header is read, and no other file that it may name. */
export async function diskFacts(path: string): Promise<DiskFacts> {
  try {
    // Without waiting for a pipe's other end.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const stat = await file.stat()
      if (!stat.isFile()) return { kind: 'unfit', why: 'it is no file on this host' }
      const header = Buffer.alloc(HEADER_BYTES)
      const { bytesRead } = await file.read(header, 0, HEADER_BYTES, 0)
      const qcow2 = bytesRead >= 72 && header.readUInt32BE(0) === MAGIC ? headerOf(header) : undefined
      return { kind: 'file', bytes: stat.size, qcow2 }
    } finally {
      await file.close()
    }
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return { kind: 'absent' }
    return { kind: 'unfit', why: `it cannot be read on this host: ${messageOf(error)}` }
  }
}

function headerOf(header: Buffer): Qcow2Facts {
  const version = header.readUInt32BE(4)
  const features = version >= 3 ? header.readBigUInt64BE(72) : 0n
  const flat = 'make one of it that stands for itself (qemu-img convert -O qcow2) and name that with --disk NAME=FILE'
  const cannot =
    version !== 2 && version !== 3
      ? `it is qcow2 of version ${version}, which is not known here`
      : header.readBigUInt64BE(8) !== 0n
        ? `it is a layer above another file: ${flat}`
        : header.readUInt32BE(32) !== 0
          ? `it is encrypted: ${flat}`
          : (features & EXTERNAL_DATA) !== 0n
            ? `its data is in another file: ${flat}`
            : undefined
  return { bytes: Number(header.readBigUInt64BE(24)), snapshots: header.readUInt32BE(60), cannot }
}
