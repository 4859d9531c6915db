/**
 * VMs of a group on one simulated host that lean on each other's streams, as `node/image/shared-contents.ts` lets them: an image
 * refers to some that a neighbour has committed, and goes on doing so for some epochs, whatever the neighbour does. Which
 * pages lie there does not matter here; whether all that an image refers to stays readable does.
 */
import type { ImageManifest, StreamManifest } from '../../node/ports.ts'
import type { Life } from './world-host.ts'

/** Foreign streams of an image at most. */
const MOST = 4
/** An image gives up all that it leans on in every epoch with such a number. */
const GIVES_UP = 5

const hosts = new WeakMap<Life, Set<SimNeighbour>>()

export class SimNeighbour {
  /** Leans on what neighbours had committed before their last epoch: a mistake. */
  careless = false
  readonly #group: string
  readonly #others: Set<SimNeighbour>
  #image: ImageManifest | undefined
  #before: ImageManifest | undefined
  #leans: readonly StreamManifest[] = []

  constructor(group: string, life: Life) {
    const others = hosts.get(life) ?? new Set()
    hosts.set(life, others.add(this))
    this.#group = group
    this.#others = others
  }

  leave(): void {
    this.#others.delete(this)
  }

  /** Streams that a capture which begins now leans on, of those that bear as many losses as its own. */
  leans(epoch: number, isStrong: (stream: StreamManifest) => boolean): StreamManifest[] {
    const own = this.#image
    if (own === undefined || epoch % GIVES_UP === 0) return []
    const found = [...this.#others].flatMap(other => {
      const image = other === this || other.#group !== this.#group ? undefined : other.#image
      if (image?.generation !== own.generation || image.epoch !== own.epoch) return []
      const { streams } = other.#lent(image)
      return streams[epoch % streams.length] ?? []
    })
    const there = new Map([...this.#leans, ...found].filter(isStrong).map(stream => [stream.stream, stream]))
    return [...there.values()].slice(0, MOST)
  }

  /** `leans`: the foreign streams among the image's. */
  committed(image: ImageManifest, leans: readonly StreamManifest[]): void {
    this.#before = this.#image
    this.#image = image
    this.#leans = leans
  }

  #lent(image: ImageManifest): ImageManifest {
    return this.careless ? (this.#before ?? image) : image
  }
}
