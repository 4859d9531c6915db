/**
 * Copies an epoch: chunks, then the streams that name them, then the epoch that names the streams; each is durable before the
 * next. So an epoch that is there has all that it needs, whenever the copier died. Chunks of streams that the newest epoch there
 * has are not looked at; of others each is, by its name: where an earlier copy came some way, only reading is done twice.
 * Two chunks are in memory at a time, one being read and one being sent.
 */
import { hash } from 'node:crypto'
import { DiapauseError } from '../errors.ts'
import type { Clock, HomeCopy, HomeCopying, HomeWish, ImageManifest, ObjectStore, StreamManifest } from '../ports.ts'
import { type FileNote, sealFile, type Sent } from './boot-files.ts'
import { encodeEpoch, type EpochHeader, unreadable } from './epoch-object.ts'
import {
  ABOUT_NAME,
  aboutText,
  chunkName,
  epochName,
  epochsOf,
  type GroupPlace,
  hashIn,
  parseEpochName,
  streamName,
  streamsOf as streamsIn
} from './layout.ts'
import { type ImageHead, readHeader } from './read.ts'
import { encodeStream } from './stream-object.ts'
import { GRACE_MS } from './sweep-plan.ts'
import { waitWanted, whileWanted } from './wanted.ts'

/** 4 MiB: a request of a few milliseconds to a near server and a second over 32 Mb/s; a guess. */
export const CHUNK_BYTES = 4 << 20

export interface CopyDeps {
  readonly store: ObjectStore
  readonly clock: Clock
  /** Of all streams, on average from the begin of each copy on. */
  readonly bytesPerSecond: number
  wallMs(): number
  randomBytes(count: number): Uint8Array
  /** Sealed bytes of a stream, from the shards. */
  readData(manifest: StreamManifest, offset: number, length: number): Promise<Uint8Array>
  /** The hash of a stream's manifest. */
  nameOf(stream: StreamManifest): string
  /** An image's manifest without those of its streams, which it names. */
  encodeImage(manifest: ImageManifest): Uint8Array
  /** The opposite of `encodeImage`. MANIFEST_INVALID. */
  decodeImage(bytes: Uint8Array): ImageHead
}

type Named = EpochHeader['streams'][number]

/** `deps.store` heeds `how.signal` by itself (`wanted.ts`): here it ends waiting for shards and for the pace. */
export async function copyEpoch(deps: CopyDeps, wish: HomeWish, how: HomeCopying): Promise<HomeCopy> {
  const { wallMs, store } = deps
  const { cluster, group, epoch, vms, outputCommit, openFlow, retention, images, keys } = wish
  const place = { cluster: cluster.id, group }
  const startedMs = deps.clock.now()
  const newest = await newestName(store, place)
  const isBehind = newest > epochName({ ...place, generation: wish.generation, epoch })
  const generation = isBehind ? wish.groupGeneration : wish.generation
  const there = how.all === true ? new Map<string, Named>() : await streamsOf(store, place, newest)
  const { streams, files } = sentOf(deps, wish)
  const missing = [...streams].filter(([name]) => !there.has(name))
  const sender = new Sender(
    deps,
    place,
    how,
    missing.reduce((sum, [, { dataBytes }]) => sum + dataBytes, 0)
  )
  if ((await store.stat(ABOUT_NAME)) === undefined) await store.put(ABOUT_NAME, Buffer.from(aboutText()))
  for (const [name, stream] of missing) there.set(name, await sender.send(name, stream))
  if (deps.clock.now() - startedMs > GRACE_MS / 2) {
    const message = `epoch ${epoch} took too long to be copied to ${store.url}: allow it more bandwidth`
    throw new DiapauseError('HOME_SLOW', message)
  }
  const encoded = Object.fromEntries(Object.entries(images).map(([vm, image]) => [vm, deps.encodeImage(image)]))
  for (const image of Object.values(encoded)) requireStreams(wish, deps.decodeImage(image), there)
  const bytes = encodeEpoch(
    {
      cluster,
      group,
      epoch,
      generation,
      copiedMs: Math.floor(wallMs()),
      vms: vms.map(vm => vm.id),
      streams: [...streams.keys()].flatMap(name => there.get(name) ?? [])
    },
    {
      vms,
      outputCommit,
      openFlow,
      retention,
      images: encoded,
      keys,
      files
    },
    { recoveryPart: wish.recovery, once: deps.randomBytes(32) }
  )
  await sender.mend()
  await store.put(epochName({ ...place, generation, epoch }), bytes)
  return { generation, streams: streams.size, streamsCopied: missing.length, bytesSent: sender.sentBytes }
}

/** All that the epoch needs, by the names that its header has for it: streams of images, and what VMs boot from. */
function sentOf({ nameOf, readData }: CopyDeps, { images, keys, files = [] }: HomeWish) {
  const streams = new Map<string, Sent>()
  for (const image of Object.values(images)) {
    for (const each of image.streams) {
      const { stream, dataBytes, key = 0 } = each
      streams.set(nameOf(each), { stream, dataBytes, key, read: (...range) => readData(each, ...range) })
    }
  }
  const notes: FileNote[] = []
  const newest = keys.at(-1)
  for (const file of files) {
    if (newest === undefined) break // nothing is sealed then
    const { note, sent } = sealFile(file, newest, CHUNK_BYTES)
    notes.push(note)
    streams.set(note.stream, sent)
  }
  return { streams, files: notes }
}

/** HOME_UNREADABLE where whoever opens the image would not find a stream. */
function requireStreams(wish: HomeWish, { vm, streams }: ImageHead, named: ReadonlyMap<string, Named>): void {
  const lost = streams.find(({ stream, manifest }) => named.get(manifest)?.stream !== stream)
  if (lost !== undefined) throw unreadable(wish, new Error(`the image of ${vm} needs stream ${lost.stream}`))
}

/** '' where there is none. */
async function newestName(store: ObjectStore, place: GroupPlace): Promise<string> {
  let newest = ''
  for await (const { name } of store.list(epochsOf(place)))
    if (parseEpochName(name) !== undefined && name > newest) newest = name
  return newest
}

/** Of the newest epoch, by the hashes of their manifests. Nobody removes what that needs. */
async function streamsOf(store: ObjectStore, place: GroupPlace, newest: string): Promise<Map<string, Named>> {
  if (newest === '') return new Map()
  try {
    const { streams } = await readHeader(store, newest)
    const found = new Set<string>()
    for await (const { name } of store.list(streamsIn(place))) found.add(hashIn(name))
    return new Map(streams.flatMap(each => (found.has(each.object) ? [[each.manifest, each]] : [])))
  } catch (error) {
    // One that cannot be read has nothing that could be relied upon.
    if (error instanceof DiapauseError && ['HOME_INVALID', 'HOME_MISSING'].includes(error.code)) return new Map()
    throw error
  }
}

class Sender {
  readonly #deps: CopyDeps
  readonly #place: GroupPlace
  readonly #how: HomeCopying
  readonly #allBytes: number
  readonly #startedMs: number
  #doneBytes = 0
  sentBytes = 0
  /** What was there already: whoever cleans up may have it on a list of what is old. */
  readonly #leanedOn: { readonly name: string; readonly bytes: number; read(): Promise<Uint8Array> }[] = []

  constructor(deps: CopyDeps, place: GroupPlace, how: HomeCopying, allBytes: number) {
    this.#deps = deps
    this.#place = place
    this.#how = how
    this.#allBytes = allBytes
    this.#startedMs = deps.clock.now()
  }

  /** Right before the epoch is put: what was removed meanwhile is put again. */
  async mend(): Promise<void> {
    const { store } = this.#deps
    for (const { name, bytes, read } of this.#leanedOn) {
      if ((await store.stat(name))?.bytes !== bytes) await store.put(name, await this.#whileWanted(read))
    }
  }

  async send(manifest: string, stream: Sent): Promise<Named> {
    const { dataBytes, key } = stream
    const chunks: string[] = []
    let sending: Promise<void> = Promise.resolve()
    try {
      for (let offset = 0; offset < dataBytes; offset += CHUNK_BYTES) {
        const read = () => stream.read(offset, Math.min(CHUNK_BYTES, dataBytes - offset))
        const bytes = await this.#whileWanted(read)
        const name = hash('sha256', bytes)
        chunks.push(name)
        await sending
        sending = this.#sendChunk(name, bytes, read)
        sending.catch(() => {}) // awaited in the next turn
      }
    } catch (error) {
      // Who fails leaves nothing under way: the next copy would begin beside it.
      await sending.catch(() => {})
      throw error
    }
    await sending
    const object = encodeStream({ stream: stream.stream, dataBytes, key, chunkBytes: CHUNK_BYTES, chunks })
    const name = streamName(this.#place, object.hash)
    if ((await this.#deps.store.stat(name)) !== undefined)
      this.#leanedOn.push({ name, bytes: object.bytes.length, read: () => Promise.resolve(object.bytes) })
    await this.#deps.store.put(name, object.bytes)
    return { stream: stream.stream, manifest, object: object.hash, bytes: dataBytes }
  }

  async #sendChunk(hashed: string, bytes: Uint8Array, read: () => Promise<Uint8Array>): Promise<void> {
    const { store, wallMs } = this.#deps
    const name = chunkName(this.#place, hashed)
    const found = await store.stat(name)
    if (found !== undefined) this.#leanedOn.push({ name, bytes: bytes.length, read })
    // One that is old may be removed at any moment, unless it is put anew.
    if (found?.bytes !== bytes.length || found.putMs < wallMs() - GRACE_MS / 2) {
      await store.put(name, bytes)
      this.sentBytes += bytes.length
      await this.#pace()
    }
    this.#doneBytes += bytes.length
    this.#how.progress(this.#doneBytes, this.#allBytes)
  }

  async #pace(): Promise<void> {
    const { clock, bytesPerSecond } = this.#deps
    const waitMs = this.#startedMs + (this.sentBytes / bytesPerSecond) * 1000 - clock.now()
    if (waitMs > 1) await waitWanted(this.#how.signal, done => clock.after(waitMs, done))
  }

  /** Shards that do not come are not waited for either. */
  #whileWanted<T>(work: () => Promise<T>): Promise<T> {
    return whileWanted(this.#how.signal, work)
  }
}
