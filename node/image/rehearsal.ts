/**
 * What a thread does before it has a VM: it opens the boot part and the pages of an image that is none, a few times over. Code that
 * has not run is interpreted at first, and a VM whose image is opened by it waits.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { MAIN_BLOCK, PAGE_BYTES, postcopyPages } from '../hypervisor/migration-stream.ts'
import { type BootPart, type BootPlace, decodeBootPart, encodeBootPart } from './boot-part.ts'
import { BootPages } from './boot-pages.ts'
import { EXTENT_PAGES, ExtentWriter, extentStarts } from './extents.ts'
import { sealOf, type VmFacts } from './facts.ts'
import { PAGES_PER_MIB, type StreamFacts } from './page-table.ts'
import { SALT_BYTES } from './seal.ts'

/** Enough for the compiler to take notice. Guesses. */
const TIMES = 4
const PAGES = 1024

const facts: VmFacts = {
  group: 'none',
  vm: 'none',
  memoryMiB: (2 * PAGES) / PAGES_PER_MIB,
  accel: 'tcg',
  key: new Uint8Array(32),
  shape: { k: 1, m: 0, symbolBytes: PAGE_BYTES },
  disks: []
}

/** Until it is done or nobody wants it any more, which is asked between pieces of a few milliseconds. */
export async function rehearse(goesOn: () => boolean): Promise<void> {
  const { streams, part, sealed } = imageOfNothing()
  for (let time = 0; time < TIMES && goesOn(); time++) {
    const decoded = decodeBootPart(encodeBootPart(part), 2 * PAGES, streams)
    await nextTurn()
    const read = async (_: string, offset: number, length: number) => sealed.slice(offset, offset + length)
    const boot = new BootPages({ facts, streams, part: decoded, read })
    await boot.first
    while (goesOn() && (await boot.more())) {
      const pages = boot.take()
      for (let at = 0; at < pages.length; at += EXTENT_PAGES) {
        const some = pages.slice(at, at + EXTENT_PAGES)
        postcopyPages(
          0,
          MAIN_BLOCK,
          some.map(({ page, bytes }) => ({ offset: page * PAGE_BYTES, bytes }))
        )
      }
      await nextTurn()
    }
  }
}

/** All pages of one stream but every seventh, which are zero. */
function imageOfNothing(): { streams: StreamFacts[]; part: BootPart; sealed: Uint8Array } {
  const salt = new Uint8Array(SALT_BYTES)
  const pieces: Uint8Array[] = [salt]
  const manifest = { stream: 'none/none/0/0', k: 1, m: 0, holders: [], dataBytes: 0 }
  const writer = new ExtentWriter(sealOf(facts, { manifest, salt }), bytes => pieces.push(bytes))
  const content = new Uint8Array(PAGE_BYTES)
  const pages = Array.from({ length: PAGES }, (_, page): BootPlace => {
    const known = { page, how: 'asked', atMs: page, age: 0, delta: undefined, cold: false } as const
    if (page % 7 === 0) return { ...known, extent: undefined, place: 0 }
    content.fill(page, 0, page)
    const locator = writer.add(content)
    return { ...known, extent: Math.floor(locator / EXTENT_PAGES), place: locator % EXTENT_PAGES }
  })
  writer.flush()
  const lengths = Uint32Array.from(writer.lengths)
  const starts = extentStarts(lengths, SALT_BYTES)
  const extents = writer.lengths.map((length, extent) => {
    return { ordinal: 0, kind: 'extent', extent, offset: starts[extent] ?? 0, length } as const
  })
  const sealed = new Uint8Array(Buffer.concat(pieces))
  return { streams: [{ ...manifest, dataBytes: sealed.length }], part: { salts: [salt], extents, pages }, sealed }
}
