/**
 * The file formats the guest's builder needs, so that it needs neither the cpio nor the lz4 program. Pure.
 *
 * cpio "newc": a header of hex fields a file, name and data padded to 4 bytes (kernel: early-userspace/buffer-format).
 * bzImage: Debian's cloud kernel is LZ4-compressed (legacy frame: magic, then blocks of u32 length and LZ4 block data),
 * and a guest under TCG takes 1.4 s to decompress itself, while QEMU starts the ELF file inside directly (PVH).
 * Modules: Debian signs them, behind their end. A kernel that has not loaded its certificates (`bankAppend`) takes those that nobody
 * has signed as well, and need not find first that it cannot know.
 */

export interface ArchiveFile {
  /** Without a leading slash. */
  readonly path: string
  /** e.g. 0o100755 for a program, 0o040755 for a directory. */
  readonly mode: number
  readonly data: Uint8Array
}

/** An initramfs of `files` in order; directories must precede what is in them. The same files give the same bytes. */
export function cpioArchive(files: readonly ArchiveFile[]): Buffer {
  const parts: Buffer[] = []
  const entry = (index: number, path: string, mode: number, data: Uint8Array) => {
    const name = Buffer.from(`${path}\0`)
    const fields = [index, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length, 0]
    const head = `070701${fields.map(field => field.toString(16).padStart(8, '0')).join('')}`
    parts.push(pad(Buffer.concat([Buffer.from(head, 'latin1'), name])), pad(Buffer.from(data)))
  }
  for (const [index, file] of files.entries()) entry(index + 1, file.path, file.mode, file.data)
  entry(0, 'TRAILER!!!', 0, new Uint8Array())
  return Buffer.concat(parts)
}

function pad(bytes: Buffer): Buffer {
  const short = -bytes.length & 3
  return short === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(short)])
}

const SIGNED = Buffer.from('~Module signature appended~\n')
/** struct module_signature of the kernel: five bytes and three to fill, then how long the signature is before it. */
const SIGNATURE_FACTS_BYTES = 12

/** A kernel module as it was before somebody signed it. */
export function unsigned(module: Buffer): Buffer {
  const facts = module.length - SIGNED.length - SIGNATURE_FACTS_BYTES
  if (facts < 0 || !module.subarray(-SIGNED.length).equals(SIGNED)) return module
  return module.subarray(0, Math.max(0, facts - module.readUInt32BE(facts + 8)))
}

const LZ4_LEGACY = 0x184c2102

/** The ELF kernel inside an LZ4-compressed bzImage; undefined where it is compressed in another way. */
export function kernelElf(bzImage: Buffer): Buffer | undefined {
  if (bzImage.length < 0x250 || bzImage.toString('latin1', 0x202, 0x206) !== 'HdrS') return undefined
  const start = (bzImage.readUInt8(0x1f1) + 1) * 512 + bzImage.readUInt32LE(0x248)
  const end = start + bzImage.readUInt32LE(0x24c)
  if (end > bzImage.length || end - start < 12 || bzImage.readUInt32LE(start) !== LZ4_LEGACY) return undefined
  const out = Buffer.alloc(bzImage.readUInt32LE(end - 4)) // the build appends the size to the payload
  let written = 0
  for (let at = start + 4; at + 4 < end && written < out.length; ) {
    const length = bzImage.readUInt32LE(at)
    written += lz4Block(bzImage.subarray(at + 4, Math.min(at + 4 + length, end)), out.subarray(written))
    at += 4 + length
  }
  return written === out.length && out.readUInt32BE(0) === 0x7f454c46 ? out : undefined
}

/** Decodes one LZ4 block into `out`; the number of bytes written. Throws RangeError on a block that is no LZ4. */
export function lz4Block(block: Uint8Array, out: Uint8Array): number {
  let from = 0
  let to = 0
  const length = (nibble: number) => {
    let sum = nibble
    if (nibble === 15) {
      let byte: number
      do {
        byte = block[from++] ?? fail()
        sum += byte
      } while (byte === 255)
    }
    return sum
  }
  while (from < block.length) {
    const token = block[from++] ?? fail()
    const literals = length(token >> 4)
    if (from + literals > block.length || to + literals > out.length) fail()
    out.set(block.subarray(from, from + literals), to)
    from += literals
    to += literals
    if (from === block.length) return to
    const distance = (block[from++] ?? fail()) | ((block[from++] ?? fail()) << 8)
    const match = length(token & 15) + 4
    if (distance === 0 || distance > to || to + match > out.length) fail()
    if (distance >= match) out.copyWithin(to, to - distance, to - distance + match)
    else for (let i = 0; i < match; i++) out[to + i] = out[to + i - distance] ?? fail()
    to += match
  }
  return to
}

function fail(): never {
  throw new RangeError('not an LZ4 block: a length or distance points outside of it')
}
