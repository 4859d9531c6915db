/** Forgetting what no restore can want, which nobody has to ask for: shards, manifests, bases. */
import { BASES, isBaseStream } from '../../protocols/base.ts'
import { keptImages } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import { sparinglyEach } from '../../protocols/sparingly.ts'
import { messageOf } from '../errors.ts'
import { type ImageStreams, parseStreamId, planRetention } from '../planning/retention.ts'
import type { Clock, Log, Registers, ShardStore, StreamId } from '../ports.ts'
import { BaseKeeping } from './base-keeping.ts'
import type { GroupDirectory } from './directory.ts'
import { dropAll } from './dropping.ts'

/** Retention runs this long after a record has changed, so that a burst of changes costs one run. A guess. */
const RETENTION_DELAY_MS = 2_000
/** Manifests of kept images that are not here are fetched, so many at a time: a manifest may be large. A guess. */
const FETCHED_AT_ONCE = 32
/** And this long after the last, where bases wait to be forgotten. A guess: a tenth of what they wait for. */
const BASES_DELAY_MS = 60_000

export interface HousekeepingDeps {
  readonly self: PeerId
  readonly directory: Pick<
    GroupDirectory,
    'all' | 'get' | 'refresh' | 'change' | 'surveyed' | 'onRecord' | 'onForgotten'
  >
  readonly store: ShardStore | undefined
  readonly registers: Pick<Registers, 'read' | 'delete'>
  readonly clock: Clock
  readonly log: Log
  readonly deadlineMs: number
  /** Generations of forgotten groups are at most this (`groupFloor` of the cluster's record). */
  readonly floor: () => number
  /** Undefined at a witness, as `store`. */
  readonly describeManifest: ((bytes: Uint8Array) => ManifestFacts) | undefined
  /** From any peer that has it. Undefined at a witness. */
  readonly fetchManifest: ((hash: string) => Promise<Uint8Array>) | undefined
}

/** Of a manifest, of an image or of a stream: which epoch of which VM has made it, and what it leads to. */
export interface ManifestFacts extends ImageStreams {
  readonly about: StreamId
}

export class Housekeeping {
  readonly #deps: HousekeepingDeps
  readonly #bases: BaseKeeping | undefined
  #retentionDue = false
  #forgetting = false
  #forgetsAgain = false
  /** Of those stored here when it was last looked: a name is a hash, so what was read once is not read again. */
  #manifests: ReadonlyMap<string, ManifestFacts> = new Map()
  /** Likewise, of those that make no sense: anybody who may store shards can put them. */
  #senseless: ReadonlySet<string> = new Set()
  readonly #tellUnread: (why: 'content' | 'disk', about: object) => void
  #stopped = false

  constructor(deps: HousekeepingDeps) {
    this.#deps = deps
    const { store, log } = deps
    this.#tellUnread = sparinglyEach((why, about, count) =>
      log.warn({ ...about, why, count }, 'manifests cannot be read: they stay, and what they may refer to')
    )
    this.#bases = store && new BaseKeeping({ ...deps, store })
    deps.directory.onRecord(() => this.#scheduleRetention())
    deps.directory.onForgotten(() => this.#scheduleRetention())
  }

  stop(): void {
    this.#stopped = true
  }

  #scheduleRetention(): void {
    if (this.#retentionDue || this.#deps.store === undefined) return
    this.#retentionDue = true
    this.#deps.clock.after(RETENTION_DELAY_MS, () => {
      this.#retentionDue = false
      if (this.#stopped) return
      // One at a time: it may wait for a majority, while the records of groups go on changing.
      if (this.#forgetting) {
        this.#forgetsAgain = true
        return
      }
      this.#forgetting = true
      this.#forget()
        .catch((error: unknown) => this.#deps.log.warn({ error: messageOf(error) }, 'retention failed'))
        .finally(() => {
          this.#forgetting = false
          if (this.#forgetsAgain) this.#scheduleRetention()
          this.#forgetsAgain = false
          if (this.#bases?.waits) this.#deps.clock.after(BASES_DELAY_MS, () => this.#scheduleRetention())
        })
    })
  }

  /** Of the groups that are stored here and that nobody has told us of: those that the registers do not know either. */
  async #gone(stored: ReadonlySet<string>): Promise<Set<string>> {
    const { directory, log } = this.#deps
    const gone = new Set<string>()
    for (const id of stored) {
      if (id === '' || id === BASES || directory.get(id) !== undefined) continue
      try {
        if ((await directory.refresh(id)) === null) gone.add(id)
      } catch (error) {
        log.info(
          { group: id, error: messageOf(error) },
          'whether a group is still there cannot be read: its shards stay'
        )
      }
    }
    return gone
  }

  /**
   * Whoever was away when an epoch was committed lacks its manifests: without them nothing can be forgotten here, for as long
   * as it is kept, and the fewer have them the sooner they are lost.
   */
  async #fetchMissing(manifests: Map<string, ManifestFacts>): Promise<void> {
    const { store, directory, log, describeManifest, fetchManifest } = this.#deps
    if (store === undefined || describeManifest === undefined || fetchManifest === undefined) return
    const images = new Set(directory.all().flatMap(keptImages))
    const leanOn = [...images].flatMap(
      hash => manifests.get(hash)?.streams.flatMap(({ manifest }) => manifest ?? []) ?? []
    )
    const missing = [...new Set([...images, ...leanOn])].filter(
      hash => !manifests.has(hash) && !this.#senseless.has(hash)
    )
    for (const hash of missing.slice(0, FETCHED_AT_ONCE)) {
      try {
        const bytes = await fetchManifest(hash)
        await store.putManifest(hash, bytes)
        manifests.set(hash, describeManifest(bytes))
      } catch (error) {
        log.info({ hash, error: messageOf(error) }, 'the manifest of a kept image cannot be fetched yet')
      }
    }
  }

  /** What those say that make sense; the others stay, and what they may refer to. */
  async #read(
    hashes: readonly string[],
    store: ShardStore,
    describe: (bytes: Uint8Array) => ManifestFacts
  ): Promise<Map<string, ManifestFacts>> {
    const manifests = new Map<string, ManifestFacts>()
    const senseless = new Set<string>()
    const failed = new Map<'content' | 'disk', { hash: string; error: string; manifests: number }>()
    for (const hash of hashes) {
      const known = this.#manifests.get(hash)
      if (known !== undefined) manifests.set(hash, known)
      if (this.#senseless.has(hash)) senseless.add(hash)
      if (known !== undefined || senseless.has(hash)) continue
      let bytes: Uint8Array | undefined
      try {
        bytes = await store.getManifest(hash)
        if (bytes !== undefined) manifests.set(hash, describe(bytes))
      } catch (error) {
        // A disk may give it the next time.
        const why = bytes === undefined ? 'disk' : 'content'
        if (why === 'content') senseless.add(hash)
        const first = failed.get(why) ?? { hash, error: messageOf(error), manifests: 0 }
        failed.set(why, { ...first, manifests: first.manifests + 1 })
      }
    }
    this.#manifests = manifests
    this.#senseless = senseless
    for (const [why, about] of failed) this.#tellUnread(why, about)
    return manifests
  }

  async #forget(): Promise<void> {
    const { store, directory, log, describeManifest } = this.#deps
    if (store === undefined || describeManifest === undefined) return
    const hashes = await store.manifests()
    const manifests = await this.#read(hashes, store, describeManifest)
    await this.#fetchMissing(manifests)
    const groups = directory.all().map(record => ({
      record,
      images: keptImages(record).flatMap(hash => manifests.get(hash) ?? [])
    }))
    const streams = (await store.streams()).map(entry => entry.stream)
    const floor = this.#deps.floor()
    const about = new Map([...manifests].flatMap(([hash, facts]) => aboutOf(hash, facts)))
    const ids = [
      ...streams.map(stream => parseStreamId(stream)?.group ?? ''),
      ...[...about.values()].map(({ group }) => group)
    ]
    const gone = await this.#gone(new Set(ids))
    const plan = planRetention({ streams, manifests: hashes, groups, gone, floor, about })
    await dropAll(store, plan, log)
    if (plan.streams.length > 0) log.debug({ streams: plan.streams, manifests: plan.manifests.length }, 'forgotten')
    const known = directory.surveyed && groups.every(({ record, images }) => images.length >= keptImages(record).length)
    const wanted = groups.flatMap(({ images }) => images.flatMap(image => image.streams.map(s => s.stream)))
    await this.#bases?.forget({
      streams: streams.filter(isBaseStream),
      manifests: new Map([...manifests].flatMap(([hash, { about: of }]) => (isBaseStream(of) ? [[hash, of]] : []))),
      wanted: known ? new Set(wanted) : undefined,
      groups: groups.map(({ record }) => record)
    })
  }
}

function aboutOf(hash: string, { about }: ManifestFacts) {
  const parsed = parseStreamId(about)
  return parsed === undefined ? [] : [[hash, parsed] as const]
}
