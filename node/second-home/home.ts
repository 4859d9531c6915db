/** The port `SecondHome` over any object store. */
import type { HomeEpochName, HomeSweep, ObjectStore, SecondHome } from '../ports.ts'
import { type CopyDeps, copyEpoch } from './copy.ts'
import {
  chunkName,
  chunksOf,
  epochName,
  epochsOf,
  type GroupPlace,
  hashIn,
  isHash,
  streamName,
  streamsOf
} from './layout.ts'
import { epochNames, listEpochs, readHeader, openHomeEpoch, readStream, unlessDamaged, verifyEpoch } from './read.ts'
import { GRACE_MS, isOld, planEpochs, planObjects, type StoredHash } from './sweep-plan.ts'
import { LeftBehind, wantedStore } from './wanted.ts'

export function createSecondHome(deps: CopyDeps): SecondHome {
  const { store } = deps
  const left = new LeftBehind(deps)
  /** `work` with the store, once it has answered what work that was ended has asked for. */
  const wanting = async <T>(signal: AbortSignal | undefined, work: (store: ObjectStore) => Promise<T>): Promise<T> => {
    await left.answered(signal)
    return await work(wantedStore(store, signal, left))
  }
  return {
    url: store.url,
    epochs: of => listEpochs(store, of),
    copy: (wish, how) => wanting(how.signal, wanted => copyEpoch({ ...deps, store: wanted }, wish, how)),
    sweep: (of, keep, copied, signal) => wanting(signal, wanted => sweep(deps, wanted, of, keep, copied)),
    verify: (of, deep) => verifyEpoch(store, of, deep),
    open: (of, recoveryKey) => openHomeEpoch(store, of, recoveryKey, bytes => deps.decodeImage(bytes))
  }
}

/** Objects are listed before epochs are: who names one meanwhile is seen. */
async function sweep(
  { wallMs }: CopyDeps,
  store: ObjectStore,
  place: GroupPlace,
  keep: number,
  copied?: HomeEpochName
): Promise<HomeSweep> {
  const nowMs = wallMs()
  await store.removePartial?.(nowMs - GRACE_MS)
  const chunks = await hashesIn(store, chunksOf(place))
  const streams = await hashesIn(store, streamsOf(place))
  const { epochs, damaged } = await readEpochs(store, place)
  const plan = planEpochs(epochs, keep, copied && epochName(copied))
  for (const name of plan.remove) await store.delete(name)
  const named = new Set<string>()
  for (const object of plan.streams) {
    const stream = await unlessDamaged(() => readStream(store, place, object))
    if (stream === undefined) damaged.push(streamName(place, object))
    for (const chunk of stream?.chunks ?? []) named.add(chunk)
  }
  if (damaged.length > 0) return { epochs: plan.remove.length, objects: 0, damaged }
  const gone = [
    ...planObjects(streams, plan.streams, nowMs).map(hash => streamName(place, hash)),
    ...planObjects(chunks, named, nowMs).map(hash => chunkName(place, hash))
  ]
  let objects = 0
  for (const name of gone) {
    // The listing is old by now: a copier may have put it anew. What is put after this look the copier sees itself.
    const facts = await store.stat(name)
    if (facts === undefined || !isOld(facts.putMs, nowMs)) continue
    await store.delete(name)
    objects++
  }
  return { epochs: plan.remove.length, objects, damaged }
}

async function hashesIn(store: ObjectStore, prefix: string): Promise<StoredHash[]> {
  const found: StoredHash[] = []
  for await (const { name, putMs } of store.list(prefix)) {
    const hash = hashIn(name)
    if (isHash(hash)) found.push({ hash, putMs })
  }
  return found
}

async function readEpochs(store: ObjectStore, place: GroupPlace) {
  const { names } = await epochNames(store, epochsOf(place))
  const epochs: { name: string; streams: string[] }[] = []
  const damaged: string[] = []
  for (const [name] of names) {
    const header = await unlessDamaged(() => readHeader(store, name))
    if (header === undefined) damaged.push(name)
    else epochs.push({ name, streams: header.streams.map(({ object }) => object) })
  }
  return { epochs, damaged }
}
