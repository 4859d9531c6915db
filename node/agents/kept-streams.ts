/**
 * Which streams the images that are kept lean on, from the groups' records and the manifests. Every peer that stores columns
 * also has all these manifests: those that are not here are fetched from others and kept, because without its manifest no
 * column is worth anything.
 */
import type { PeerId } from '../../protocols/core.ts'
import { keptImages } from '../../protocols/group.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { ImageManifest, Log, ShardCluster, ShardStore, StreamId, StreamManifest } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'

/** An image whose streams' manifests may be elsewhere, by their hashes. */
export type ImageHead = Pick<ImageManifest, 'group' | 'vm' | 'generation' | 'epoch'> & {
  readonly streams: readonly (StreamManifest | { readonly stream: StreamId; readonly manifest: string })[]
}

export interface KeptStreamsDeps {
  readonly directory: Pick<GroupDirectory, 'all'>
  readonly store: Pick<ShardStore, 'getManifest' | 'putManifest' | 'manifests'>
  readonly shards: Pick<ShardCluster, 'getManifest'>
  readonly log: Log
  /** MANIFEST_INVALID, as the other. */
  decodeImage(bytes: Uint8Array): ImageHead
  decodeStream(bytes: Uint8Array): StreamManifest
}

export interface KeptImage {
  readonly group: string
  readonly vm: string
  readonly generation: number
  readonly epoch: number
  readonly streams: readonly StreamId[]
}

export interface KeptStream {
  readonly stream: StreamId
  readonly k: number
  readonly m: number
  readonly holders: readonly PeerId[]
  /** Number of grids. */
  readonly grids: number
  /** Hash of its manifest, or of the image whose manifest has it inside (older formats). */
  readonly manifest: string
}

export interface Kept {
  readonly images: readonly KeptImage[]
  /** The oldest first. */
  readonly streams: readonly KeptStream[]
  /** Images that cannot be read: their manifest, or that of one of their streams, is nowhere within reach. */
  readonly unread: readonly { readonly group: string; readonly image: string; readonly why: string }[]
}

interface Described extends KeptImage {
  readonly manifests: readonly string[]
}

export class KeptStreams {
  readonly #deps: KeptStreamsDeps
  /** A name is a hash, and a stream never changes: what was read once is not read again. */
  #images: ReadonlyMap<string, Described> = new Map()
  #streams: ReadonlyMap<StreamId, KeptStream> = new Map()

  constructor(deps: KeptStreamsDeps) {
    this.#deps = deps
  }

  async read(): Promise<Kept> {
    const { directory, store, log } = this.#deps
    const here = new Set(await store.manifests())
    const images = new Map<string, Described>()
    const streams = new Map<StreamId, KeptStream>()
    const unread: { group: string; image: string; why: string }[] = []
    for (const record of directory.all()) {
      if (record.removed) continue
      for (const image of keptImages(record)) {
        try {
          const described = await this.#describe(image, streams)
          for (const hash of [image, ...described.manifests]) if (!here.has(hash)) await this.bytes(hash)
          images.set(image, described)
        } catch (error) {
          unread.push({ group: record.id, image, why: messageOf(error) })
          log.debug({ group: record.id, image, error: messageOf(error) }, 'what an image leans on cannot be read')
        }
      }
    }
    this.#images = images
    this.#streams = streams
    return { images: [...images.values()], streams: [...streams.values()].sort(byAge), unread }
  }

  /** As of the last `read`. */
  find(stream: StreamId): KeptStream | undefined {
    return this.#streams.get(stream)
  }

  /** What an image leans on, though it may be newer than the last `read`. MANIFEST_MISSING, MANIFEST_INVALID. */
  async of(image: string): Promise<readonly KeptStream[]> {
    const streams = new Map<StreamId, KeptStream>()
    await this.#describe(image, streams)
    return [...streams.values()]
  }

  /** With the hashes of all symbols. MANIFEST_MISSING, MANIFEST_INVALID. */
  async manifest({ stream, manifest }: KeptStream): Promise<StreamManifest> {
    const { decodeImage, decodeStream } = this.#deps
    const bytes = await this.bytes(manifest)
    const inside = this.#images.has(manifest)
      ? decodeImage(bytes).streams.find(each => each.stream === stream)
      : decodeStream(bytes)
    if (inside !== undefined && 'grids' in inside && inside.stream === stream) return inside
    throw new DiapauseError('MANIFEST_INVALID', `what should be the manifest of ${stream} is another`)
  }

  /** Of a manifest, which is here afterwards. MANIFEST_MISSING. */
  async bytes(hash: string): Promise<Uint8Array> {
    const { store, shards } = this.#deps
    const own = await store.getManifest(hash)
    if (own !== undefined) return own
    const bytes = await shards.getManifest(hash)
    await store.putManifest(hash, bytes)
    return bytes
  }

  /** Adds its streams to `streams`. */
  async #describe(image: string, streams: Map<StreamId, KeptStream>): Promise<Described> {
    const known = this.#images.get(image)
    const found = known?.streams.map(stream => streams.get(stream) ?? this.#streams.get(stream))
    if (known !== undefined && found?.every(stream => stream !== undefined)) {
      for (const stream of found) streams.set(stream.stream, stream)
      return known
    }
    const head = this.#deps.decodeImage(await this.bytes(image))
    const read: KeptStream[] = []
    for (const each of head.streams) {
      const known = streams.get(each.stream) ?? this.#streams.get(each.stream)
      read.push(known ?? (await this.#readStream(each, image)))
    }
    for (const stream of read) streams.set(stream.stream, stream)
    const { group, vm, generation, epoch } = head
    const manifests = read.flatMap(({ manifest }) => (manifest === image ? [] : [manifest]))
    return { group, vm, generation, epoch, streams: read.map(({ stream }) => stream), manifests }
  }

  async #readStream(each: ImageHead['streams'][number], image: string): Promise<KeptStream> {
    const whole = 'grids' in each ? each : this.#deps.decodeStream(await this.bytes(each.manifest))
    const { stream, k, m, holders, grids } = whole
    return { stream, k, m, holders, grids: grids.length, manifest: 'grids' in each ? image : each.manifest }
  }
}

/** Streams of different groups have no common time: by generation and epoch, and then by name, so that all agree. */
function byAge(a: KeptStream, b: KeptStream): number {
  const [ageA, ageB] = [a, b].map(({ stream }) => stream.split('/').slice(2).map(Number))
  const [generation = 0, epoch = 0] = [0, 1].map(i => (ageA?.[i] ?? 0) - (ageB?.[i] ?? 0))
  return generation || epoch || (a.stream < b.stream ? -1 : 1)
}
