/** RAM as images tell it, kept up to date from one image to the next: pages whose place has changed are read from their streams. */
import { readWholeTable } from '../../node/image/boot-set.ts'
import type { VmFacts } from '../../node/image/facts.ts'
import type { PageTable } from '../../node/image/page-table.ts'
import { PlaceReader, type ReadStream } from '../../node/image/place-reader.ts'
import type { ImageManifest, ShardCluster } from '../../node/ports.ts'

const PAGE_BYTES = 4096

export class ImageCopy {
  readonly ram: Buffer
  readonly #facts: VmFacts
  readonly #cluster: ShardCluster
  /** Page → where it lies, in words; '': it is zero. */
  readonly #places: string[]

  constructor(facts: VmFacts, cluster: ShardCluster) {
    this.#facts = facts
    this.#cluster = cluster
    this.ram = Buffer.alloc(facts.memoryMiB << 20)
    this.#places = new Array<string>(this.ram.length / PAGE_BYTES).fill('')
  }

  /** Makes it the RAM of `image`; how many pages were read for that. */
  async follow(image: ImageManifest): Promise<number> {
    const read: ReadStream = (stream, offset, length) => {
      const manifest = image.streams.find(each => each.stream === stream)
      if (!manifest) throw new Error(`image ${image.epoch} names no stream ${stream}`)
      return this.#cluster.readData(manifest, offset, length)
    }
    const table = await readWholeTable(this.#facts, image, read)
    const moved: number[] = []
    for (let page = 0; page < this.#places.length; page++) {
      const place = placeText(table, page)
      if (place === this.#places[page]) continue
      this.#places[page] = place
      if (place === '') this.ram.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
      else moved.push(page)
    }
    const reader = new PlaceReader({ facts: this.#facts, table, read })
    for await (const { page, bytes } of reader.contents(moved)) this.ram.set(bytes, page * PAGE_BYTES)
    return moved.length
  }
}

/** By the names of streams: their slots may change hands. */
function placeText(table: PageTable, page: number): string {
  const place = table.placeOf(page)
  if (place === undefined) return ''
  const delta = table.deltaOf(page)
  const words = [place, ...(delta === undefined ? [] : [delta])].map(
    ({ slot, locator }) => `${table.streams[slot]?.manifest.stream}:${locator}`
  )
  return words.join(' ')
}
