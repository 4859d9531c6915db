/**
 * What really changed in a VM's RAM between two cuts, without asking the product: in the pause of each cut all of RAM is read
 * and compared with what it was in the one before. The VM stands still meanwhile; its clock, too, so that the load is the same.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'

const PAGE_BYTES = 4096
const PIECE_BYTES = 1 << 20

export interface Changes {
  /** Pages with at least one byte that differs, and bytes that do. */
  readonly pages: number
  readonly bytes: number
}

/** Where RAM is: a file, or else the memory of a QEMU. */
export interface RamPlace {
  readonly bytes: number
  readonly pid: number
  readonly ramPath?: string
}

export class RamTruth {
  #before: Buffer | undefined
  readonly #piece = Buffer.allocUnsafeSlow(PIECE_BYTES)

  /** Since the last call; at the first against zeros. */
  look(place: RamPlace): Changes {
    this.#before ??= Buffer.alloc(place.bytes)
    const { ramPath, start } =
      place.ramPath === undefined
        ? {
            ramPath: `/proc/${place.pid}/mem`,
            start: ramAddress(readFileSync(`/proc/${place.pid}/maps`, 'latin1'), place.bytes)
          }
        : { ramPath: place.ramPath, start: 0 }
    const fd = openSync(ramPath, 'r')
    const total = { pages: 0, bytes: 0 }
    try {
      for (let at = 0; at < place.bytes; at += PIECE_BYTES) {
        if (readSync(fd, this.#piece, 0, PIECE_BYTES, start + at) !== PIECE_BYTES) throw new Error(`RAM ends at ${at}`)
        const before = this.#before.subarray(at, at + PIECE_BYTES)
        if (before.equals(this.#piece)) continue
        const { pages, bytes } = changesBetween(before, this.#piece)
        total.pages += pages
        total.bytes += bytes
        before.set(this.#piece)
      }
    } finally {
      closeSync(fd)
    }
    return total
  }
}

/** Of two pieces of RAM of the same length, whole pages. */
export function changesBetween(before: Buffer, after: Buffer): Changes {
  let [pages, bytes] = [0, 0]
  for (let page = 0; page < after.length; page += PAGE_BYTES) {
    const end = page + PAGE_BYTES
    if (before.compare(after, page, end, page, end) === 0) continue
    pages++
    for (let at = page; at < end; at++) if (before[at] !== after[at]) bytes++
  }
  return { pages, bytes }
}

/** Where a QEMU has its guest's RAM: its one writable mapping of that size, or one that begins with it. */
export function ramAddress(maps: string, bytes: number): number {
  const sizes: { start: number; size: number }[] = []
  for (const [, from = '', to = ''] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)) {
    const start = Number.parseInt(from, 16)
    sizes.push({ start, size: Number.parseInt(to, 16) - start })
  }
  const found = sizes.filter(({ size }) => size === bytes)
  if (found.length !== 1) throw new Error(`${found.length} mappings of ${bytes} bytes`)
  return found[0]?.start ?? 0
}
