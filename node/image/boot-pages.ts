/**
 * The contents of an image's working set, read by its boot part: all extents at once, those that lie end to end together, before
 * anything is known of the page table. When that has come the two are compared: a page that was sent cannot be taken back, so a VM
 * whose image contradicts itself must end.
 */
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { BootExtent, BootPart, BootPlace } from './boot-part.ts'
import { applyDelta, type PageDelta, readDeltas } from './delta.ts'
import { openDeltas } from './delta-extents.ts'
import { EXTENT_PAGES, openExtent } from './extents.ts'
import { blocksOf, sealOf, type VmFacts } from './facts.ts'
import { PAGES_PER_MIB, type PageTable, type Place, type StreamFacts } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import type { RestoredPage } from './restored-pages.ts'
import type { StreamSeal } from './seal.ts'

/** As in `table-reader.ts`: read in vain rather than read once more, and one read at most. Guesses. */
const GAP_BYTES = 64 << 10
const READ_BYTES = 1 << 20

export interface BootPages {
  readonly part: BootPart
  /** To be sent before the VM runs; `bytes` are undefined where the page is zero. */
  readonly pages: readonly (RestoredPage | { readonly page: number; readonly bytes: undefined })[]
  /** Sealed, as they were read. */
  readonly bytes: number
}

interface Source {
  readonly facts: VmFacts
  readonly streams: readonly StreamFacts[]
  readonly part: BootPart
  readonly read: ReadStream
}

/** IMAGE_SEAL, IMAGE_INVALID, and what `read` rejects with. */
export async function readBootPages(source: Source): Promise<BootPages> {
  const { facts, streams, part, read } = source
  const pagesOfAll = facts.memoryMiB * PAGES_PER_MIB + blocksOf(facts)
  const raws: Uint8Array[] = []
  const deltas: ReadonlyMap<number, PageDelta>[] = []
  const seals = new Map<number, StreamSeal>()
  const open = (index: number, { ordinal, kind, extent }: BootExtent, sealed: Uint8Array): void => {
    const [manifest, salt] = [streams[ordinal], part.salts[ordinal]]
    if (manifest === undefined || salt === undefined) throw invalid('an extent lies in no stream')
    const seal = seals.get(ordinal) ?? sealOf(facts, { manifest, salt })
    seals.set(ordinal, seal)
    if (kind === 'extent') raws[index] = openExtent(seal, extent, sealed)
    else
      deltas[index] = new Map(readDeltas(openDeltas(seal, extent, sealed), pagesOfAll).map(each => [each.page, each]))
  }
  const runs = runsOf(part.extents)
  await Promise.all(
    runs.map(async ({ ordinal, offset, end, indexes }) => {
      const bytes = await read(streams[ordinal]?.stream ?? '', offset, end - offset)
      for (const index of indexes) {
        const extent = part.extents[index]
        if (extent === undefined) continue
        const at = extent.offset - offset
        open(index, extent, bytes.subarray(at, at + extent.length))
      }
    })
  )
  const pages = part.pages.filter(({ cold }) => !cold).map(place => contentOf(place, raws, deltas))
  return { part, pages, bytes: runs.reduce((sum, { offset, end }) => sum + end - offset, 0) }
}

function contentOf(
  { page, extent, place, delta }: BootPlace,
  raws: readonly Uint8Array[],
  deltas: readonly ReadonlyMap<number, PageDelta>[]
): BootPages['pages'][number] {
  if (extent === undefined) return { page, bytes: undefined }
  const anchor = raws[extent]?.subarray(place * PAGE_BYTES, (place + 1) * PAGE_BYTES)
  if (anchor?.length !== PAGE_BYTES) throw invalid(`an extent lacks page ${page}`)
  if (delta === undefined) return { page, anchor, bytes: anchor }
  const found = deltas[delta]?.get(page)
  if (found === undefined) throw invalid(`page ${page} has no delta where it should`)
  return { page, anchor, bytes: applyDelta(found, anchor) }
}

interface Run {
  readonly ordinal: number
  readonly offset: number
  end: number
  readonly indexes: number[]
}

function runsOf(extents: readonly BootExtent[]): Run[] {
  const runs: Run[] = []
  const order = [...extents.entries()].sort(([, a], [, b]) => a.ordinal - b.ordinal || a.offset - b.offset)
  for (const [index, { ordinal, offset, length }] of order) {
    const last = runs.at(-1)
    const end = offset + length
    if (last?.ordinal === ordinal && offset - last.end <= GAP_BYTES && end - last.offset <= READ_BYTES) {
      last.end = Math.max(last.end, end)
      last.indexes.push(index)
    } else runs.push({ ordinal, offset, end, indexes: [index] })
  }
  return runs
}

/** IMAGE_INVALID where a page that was sent lies elsewhere by the page table, which is whole. */
export function compareWithTable(
  { extents, pages }: BootPart,
  table: PageTable,
  streams: readonly StreamFacts[]
): void {
  const same = (index: number | undefined, place: number | undefined, found: Place | undefined): boolean => {
    if (index === undefined || found === undefined) return index === undefined && found === undefined
    const extent = extents[index]
    return (
      extent !== undefined &&
      table.streams[found.slot]?.manifest.stream === streams[extent.ordinal]?.stream &&
      Math.floor(found.locator / EXTENT_PAGES) === extent.extent &&
      (place === undefined || found.locator % EXTENT_PAGES === place)
    )
  }
  for (const { page, extent, place, delta, cold } of pages) {
    if (cold) continue
    if (!same(extent, place, table.placeOf(page)) || !same(delta, undefined, table.deltaOf(page))) {
      throw invalid(`page ${page} lies elsewhere than its page table says`)
    }
  }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the boot part of the image is not valid: ${what}; restore another epoch`)
