import { type ReadStream, readBootSet } from '../../node/image/boot-set.ts'
import type { VmFacts } from '../../node/image/capture.ts'
import { EXTENT_PAGES, extentStarts, openExtent } from '../../node/image/extents.ts'
import { ZERO_SLOT } from '../../node/image/page-state.ts'
import { SALT_BYTES, StreamSeal } from '../../node/image/seal.ts'
import { PAGE_BYTES } from '../../node/hypervisor/migration-stream.ts'
import type { ImageManifest, ShardCluster } from '../../node/ports.ts'

/** The whole RAM of an image, read from its shards page by page: the plain way, to compare with. */
export async function ramOfImage(facts: VmFacts, image: ImageManifest, cluster: ShardCluster): Promise<Buffer> {
  const read: ReadStream = (stream, offset, length) => {
    const manifest = image.streams[stream]
    if (!manifest) throw new Error(`no stream ${stream}`)
    return cluster.readData(manifest, offset, length)
  }
  const { table } = await readBootSet(facts, image, read)
  const ram = Buffer.alloc(table.slots.length * PAGE_BYTES)
  const extents = new Map<string, Uint8Array>()
  for (const [page, slot] of table.slots.entries()) {
    const stream = table.streams[slot]
    if (slot === ZERO_SLOT || !stream) continue
    const locator = table.locators[page] ?? 0
    const extent = Math.floor(locator / EXTENT_PAGES)
    const name = `${slot}:${extent}`
    let pages = extents.get(name)
    if (!pages) {
      const offset = extentStarts(stream.extentLengths, SALT_BYTES)[extent] ?? 0
      const seal = new StreamSeal(facts.key, stream.manifest.stream, stream.salt)
      pages = openExtent(seal, extent, await read(slot, offset, stream.extentLengths[extent] ?? 0))
      extents.set(name, pages)
    }
    const at = (locator % EXTENT_PAGES) * PAGE_BYTES
    ram.set(pages.subarray(at, at + PAGE_BYTES), page * PAGE_BYTES)
  }
  return ram
}
