/** Reads what lies in a second home: epochs without a key and with it, streams, and whether all is as it was. */
import { hash } from 'node:crypto'
import { DiapauseError, hasCode } from '../errors.ts'
import type {
  DamagedEpoch,
  HomeCheck,
  HomeEpoch,
  HomeEpochName,
  HomeListing,
  ImageManifest,
  ObjectStore,
  OpenedEpoch,
  StreamManifest
} from '../ports.ts'
import { openFile } from './boot-files.ts'
import { decodeHeader, type EpochHeader, openEpoch } from './epoch-object.ts'
import {
  chunkName,
  epochName,
  EPOCHS,
  epochsOf,
  type GroupPlace,
  parseEpochName,
  streamName,
  tooMany
} from './layout.ts'
import { decodeStream, type HomeStream } from './stream-object.ts'

/** Chunks in memory while an image is read: of four streams read in turns, four each. A guess. */
const CACHED_CHUNKS = 16

/** All groups of all clusters: each is read to be listed, which takes minutes for so many. A guess. */
const MAX_EPOCHS = 20_000

/** An image's manifest that names its streams. */
export type ImageHead = Omit<ImageManifest, 'streams'> & {
  readonly streams: readonly { readonly stream: string; readonly manifest: string }[]
}

export async function listEpochs(store: ObjectStore, of?: GroupPlace): Promise<HomeListing> {
  const { names, others } = await epochNames(store, of === undefined ? EPOCHS : epochsOf(of))
  const epochs: HomeEpoch[] = []
  const damaged: DamagedEpoch[] = []
  for (const [name, place] of names) {
    const facts = await unlessDamaged(async () => aboutOf(name, await readHeader(store, name)))
    if (facts === undefined) damaged.push({ name, ...place })
    else epochs.push(facts)
  }
  return { epochs, damaged, others }
}

/** In their order; `others`: what else lies there, put by somebody else or by an older version. HOME_TOO_MANY. */
export async function epochNames(store: ObjectStore, prefix: string) {
  const found: [name: string, of: HomeEpochName][] = []
  const others: string[] = []
  for await (const { name } of store.list(prefix)) {
    const of = parseEpochName(name)
    if (of === undefined) others.push(name)
    else found.push([name, of])
    if (found.length > MAX_EPOCHS) throw tooMany(store.url, `${MAX_EPOCHS} epochs under ${prefix}`)
  }
  return { names: found.sort(([a], [b]) => (a < b ? -1 : 1)), others: others.sort() }
}

/** Undefined where it says that it is in another place. */
function aboutOf(name: string, header: EpochHeader): HomeEpoch | undefined {
  const { cluster, group, epoch, generation, copiedMs, recovery, vms, streams } = header
  if (name !== epochName({ cluster: cluster.id, group, generation, epoch })) return undefined
  const bytes = streams.reduce((sum, each) => sum + each.bytes, 0)
  const facts = { generation, copiedMs, recovery, vms, streams: streams.length, bytes }
  return { cluster: cluster.id, clusterName: cluster.name, group, epoch, ...facts }
}

/** Undefined where it is not there, or not what it was. */
export async function unlessDamaged<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (['HOME_INVALID', 'HOME_MISSING', 'HOME_DAMAGED'].some(code => hasCode(error, code))) return undefined
    throw error
  }
}

/** What came to harm on its way is read once more: then it is the object itself. */
async function twice<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!hasCode(error, 'HOME_INVALID') && !hasCode(error, 'HOME_DAMAGED')) throw error
    return await read()
  }
}

/** HOME_INVALID, HOME_MISSING. */
export const readHeader = (store: ObjectStore, name: string): Promise<EpochHeader> =>
  twice(async () => decodeHeader(await store.get(name)))

export function readStream(store: ObjectStore, place: GroupPlace, object: string): Promise<HomeStream> {
  const name = streamName(place, object)
  return twice(async () => decodeStream(checked(name, object, await store.get(name))))
}

function readChunk(store: ObjectStore, place: GroupPlace, chunk: string): Promise<Uint8Array> {
  const name = chunkName(place, chunk)
  return twice(async () => checked(name, chunk, await store.get(name)))
}

function checked(name: string, expected: string, bytes: Uint8Array): Uint8Array {
  if (hash('sha256', bytes) === expected) return bytes
  throw new DiapauseError('HOME_DAMAGED', `${name} is not what was copied: restore another epoch`, {
    details: { name }
  })
}

export async function verifyEpoch(store: ObjectStore, of: HomeEpochName, deep: boolean): Promise<HomeCheck> {
  const { streams } = await readHeader(store, epochName(of))
  const damaged: string[] = []
  let [chunks, bytes] = [0, 0]
  for (const { object } of streams) {
    const stream = await unlessDamaged(() => readStream(store, of, object))
    if (stream === undefined) damaged.push(streamName(of, object))
    for (const [i, chunk] of stream?.chunks.entries() ?? []) {
      const expected = Math.min(stream?.chunkBytes ?? 0, (stream?.dataBytes ?? 0) - i * (stream?.chunkBytes ?? 0))
      const found = deep
        ? (await unlessDamaged(() => readChunk(store, of, chunk)))?.length
        : (await store.stat(chunkName(of, chunk)))?.bytes
      chunks++
      if (found === expected) bytes += found
      else damaged.push(chunkName(of, chunk))
    }
  }
  return { streams: streams.length, chunks, bytes, damaged }
}

export async function openHomeEpoch(
  store: ObjectStore,
  of: HomeEpochName,
  recoveryKey: Uint8Array,
  decodeImage: (bytes: Uint8Array) => ImageHead
): Promise<OpenedEpoch> {
  const name = epochName(of)
  const { header, body } = await twice(async () => openEpoch(await store.get(name), recoveryKey))
  const about = aboutOf(name, header)
  if (about === undefined) throw new DiapauseError('HOME_INVALID', `${name} is the epoch of another place`)
  const objects = new Map(header.streams.map(each => [each.manifest, each.object]))
  const streams = new Map<string, HomeStream>()
  for (const [manifest, object] of objects) streams.set(manifest, await readStream(store, of, object))
  const images = Object.fromEntries(
    Object.entries(body.images).map(([vm, bytes]) => [vm, wholeImage(decodeImage(bytes), streams)])
  )
  const reader = new Reader(store, of, [...streams.values()])
  const { vms, outputCommit, openFlow, retention, keys } = body
  const readData = (manifest: StreamManifest, offset: number, length: number): Promise<Uint8Array> =>
    reader.read(manifest.stream, offset, length)
  const files = (body.files ?? []).map(note => {
    const stream = streams.get(note.stream)
    if (stream === undefined)
      throw new DiapauseError('HOME_INVALID', `the epoch does not name the stream of ${note.path}, which its VMs need`)
    return openFile(note, stream, keys, (...range) => reader.read(...range))
  })
  return { about, vms, outputCommit, openFlow, retention, keys, images, files, readData }
}

/** Its streams have no shards: they are read by their ids. */
function wholeImage(head: ImageHead, streams: ReadonlyMap<string, HomeStream>): ImageManifest {
  return {
    ...head,
    streams: head.streams.map(({ stream, manifest }): StreamManifest => {
      const found = streams.get(manifest)
      if (found?.stream !== stream)
        throw new DiapauseError(
          'HOME_INVALID',
          `the epoch does not name stream ${stream}, which its image of ${head.vm} needs`
        )
      const { dataBytes, key } = found
      return { stream, dataBytes, k: 1, m: 0, holders: [], grids: [], ...(key === 0 ? {} : { key }) }
    })
  }
}

/** Bytes of streams, by whole chunks, of which the last read stay in memory. */
class Reader {
  readonly #store: ObjectStore
  readonly #place: GroupPlace
  readonly #streams: ReadonlyMap<string, HomeStream>
  /** The last read is the last. */
  readonly #chunks = new Map<string, Promise<Uint8Array>>()

  constructor(store: ObjectStore, place: GroupPlace, streams: readonly HomeStream[]) {
    this.#store = store
    this.#place = place
    this.#streams = new Map(streams.map(each => [each.stream, each]))
  }

  async read(id: string, offset: number, length: number): Promise<Uint8Array> {
    const stream = this.#streams.get(id)
    if (stream === undefined || offset < 0 || offset + length > stream.dataBytes)
      throw new RangeError(`bytes ${offset} to ${offset + length} of ${id}`)
    const result = new Uint8Array(length)
    const { chunkBytes } = stream
    for (let at = 0; at < length; ) {
      const index = Math.floor((offset + at) / chunkBytes)
      const from = offset + at - index * chunkBytes
      const bytes = await this.#chunk(stream, index)
      const part = bytes.subarray(from, from + length - at)
      if (part.length === 0)
        throw new DiapauseError('HOME_DAMAGED', `a chunk of ${id} is too short: restore another epoch`)
      result.set(part, at)
      at += part.length
    }
    return result
  }

  #chunk(stream: HomeStream, index: number): Promise<Uint8Array> {
    const name = stream.chunks[index] ?? ''
    const known = this.#chunks.get(name)
    this.#chunks.delete(name)
    const read = known ?? readChunk(this.#store, this.#place, name)
    read.catch(() => this.#chunks.delete(name))
    this.#chunks.set(name, read)
    const [oldest] = this.#chunks.keys()
    if (this.#chunks.size > CACHED_CHUNKS && oldest !== undefined) this.#chunks.delete(oldest)
    return read
  }
}
