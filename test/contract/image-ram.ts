import { readWholeTable } from '../../node/image/boot-set.ts'
import { LiveDeltas } from '../../node/image/delta-extents.ts'
import { EXTENT_PAGES, extentStarts, openExtent } from '../../node/image/extents.ts'
import { sealOf, type VmFacts } from '../../node/image/facts.ts'
import type { ReadStream } from '../../node/image/place-reader.ts'
import { SALT_BYTES } from '../../node/image/seal.ts'
import { PAGE_BYTES } from '../../node/hypervisor/migration-stream.ts'
import type { ImageManifest, ShardCluster } from '../../node/ports.ts'

/** The whole RAM of an image and its disks behind it, read from its shards page by page: the plain way, to compare with. */
export async function pagesOfImage(facts: VmFacts, image: ImageManifest, cluster: ShardCluster): Promise<Buffer> {
  const read: ReadStream = (stream, offset, length) => {
    const manifest = image.streams.find(each => each.stream === stream)
    if (!manifest) throw new Error(`no stream ${stream}`)
    return cluster.readData(manifest, offset, length)
  }
  const table = await readWholeTable(facts, image, read)
  const deltas = await LiveDeltas.read({ facts, table, read })
  const all = Buffer.alloc(table.pages * PAGE_BYTES)
  const extents = new Map<string, Uint8Array>()
  for (let page = 0; page < table.pages; page++) {
    const place = table.placeOf(page)
    if (!place) continue
    const stream = table.streams[place.slot]
    if (!stream) throw new Error(`page ${page} lies in no stream`)
    const extent = Math.floor(place.locator / EXTENT_PAGES)
    const name = `${place.slot}:${extent}`
    let pages = extents.get(name)
    if (!pages) {
      const offset = extentStarts(stream.extentLengths, SALT_BYTES)[extent] ?? 0
      const sealed = await read(stream.manifest.stream, offset, stream.extentLengths[extent] ?? 0)
      pages = openExtent(sealOf(facts, stream), extent, sealed)
      extents.set(name, pages)
    }
    const at = (place.locator % EXTENT_PAGES) * PAGE_BYTES
    all.set(deltas.contentOf(page, pages.subarray(at, at + PAGE_BYTES)), page * PAGE_BYTES)
  }
  return all
}

export async function ramOfImage(facts: VmFacts, image: ImageManifest, cluster: ShardCluster): Promise<Buffer> {
  return (await pagesOfImage(facts, image, cluster)).subarray(0, facts.memoryMiB << 20)
}
