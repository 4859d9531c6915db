/** Verifying and repairing what is stored, for people: the API's `RedundancyView` over the agents. */
import { memberById } from '../../protocols/membership/record.ts'
import { MAX_CHECKED } from '../../protocols/shards/messages.ts'
import type { KeptStream } from '../agents/kept-streams.ts'
import type { RepairAgent } from '../agents/repair.ts'
import type { Scrub } from '../agents/scrub.ts'
import type { Redundancy, Sight } from '../agents/redundancy.ts'
import type {
  ImageRedundancy,
  RedundancyStatus,
  RedundancyView,
  RepairReport,
  VerifyReport,
  VerifyWish,
  WorkProgress
} from '../edge/redundancy-view.ts'
import { messageOf, UsageError } from '../errors.ts'
import { exposures, missingColumns } from '../planning/exposure.ts'
import type { Unrepairable } from '../planning/repair.ts'
import type { Clock, ColumnHolders, Membership, ShardCluster } from '../ports.ts'

/** How often it is looked how far the others are. A guess: often enough for a person. */
const LOOK_MS = 500
/** All members are asked again after this: one may have been busy or away. A guess. */
const ASK_AGAIN_MS = 10_000
/** When for so long nothing at all has been rebuilt, something keeps it. A guess: twice what a slow disk and a restore take. */
const STALLED_MS = 60_000
/** Of a stream that is read to see that it can be. */
const READ_BYTES = 4 << 20

export interface RedundancyOperationsDeps {
  /** Undefined at a witness. */
  readonly storing: Storing | undefined
  readonly membership: Pick<Membership, 'record'>
  readonly clock: Clock
}

type Damaged = VerifyReport['damaged'][number]

/** What could not be read of a stream. */
interface Unread {
  readonly stream: string
  readonly what: string
  readonly why: string
}

interface Found {
  readonly damaged: Damaged[]
  readonly unread: Unread[]
}

interface Storing {
  readonly redundancy: Redundancy
  readonly repair: Pick<RepairAgent, 'stats'>
  readonly scrub: Pick<Scrub, 'status'>
  readonly shards: Pick<ShardCluster, 'readData'> & Pick<ColumnHolders, 'check' | 'askRepair'>
}

export class RedundancyOperations implements RedundancyView {
  readonly #deps: RedundancyOperationsDeps
  /** What the last status was made of: it is asked for more often than anybody looks. */
  #shown: { readonly sight: Sight; readonly exposed: readonly ImageRedundancy[] } | undefined

  constructor(deps: RedundancyOperationsDeps) {
    this.#deps = deps
  }

  /** Asks nobody. Null at a witness. */
  status(): RedundancyStatus | null {
    const { storing } = this.#deps
    if (storing === undefined) return null
    const { last } = storing.redundancy
    if (last !== undefined && last !== this.#shown?.sight) this.#shown = { sight: last, exposed: exposedIn(last) }
    return {
      exposed: this.#shown?.exposed ?? [],
      repaired: storing.repair.stats(),
      scrubbed: storing.scrub.status()
    }
  }

  async *verify({ name, deep }: VerifyWish, signal: AbortSignal): AsyncGenerator<WorkProgress, VerifyReport> {
    const { redundancy, shards } = this.#storing()
    const sight = only(await redundancy.look({ anew: true }), name)
    const streams = sight.kept.streams.length
    yield { text: 'streams looked for', done: streams, total: streams }
    const found: Found = { damaged: [], unread: [] }
    if (deep) {
      for await (const step of this.#checks(sight, shards, signal)) {
        if ('text' in step) yield step
        else if ('why' in step) found.unread.push(step)
        else found.damaged.push(step)
      }
      for await (const step of readings(sight.kept.streams, shards, stream => redundancy.manifest(stream), signal)) {
        if ('text' in step) yield step
        else found.unread.push(step)
      }
    }
    const { damaged, unreadable } = await stillKept(sight, found, () => redundancy.look({ anew: true }))
    return {
      images: imagesOf(sight),
      streams,
      missing: missingColumns(sight.facts).map(each => ({ ...each, holder: this.#nameOf(each.holder) })),
      damaged,
      unreadable,
      silent: [...sight.facts.standing].flatMap(([peer, is]) => (is === 'away' ? [this.#nameOf(peer)] : [])),
      deep
    }
  }

  /** Lets each member read its own columns. What it does not say of a column is not taken for good: it is told as unread. */
  async *#checks(
    { facts }: Sight,
    shards: Storing['shards'],
    signal: AbortSignal
  ): AsyncGenerator<WorkProgress | Damaged | Unread> {
    const todo = facts.streams.flatMap(({ stream, places, grids }) =>
      places.flatMap((peers, column) => peers.map(peer => ({ stream, column, peer, grids })))
    )
    const within = todo.filter(({ peer }) => ['up', 'leaving'].includes(facts.standing.get(peer) ?? 'gone'))
    const total = within.reduce((sum, { grids }) => sum + grids, 0)
    let done = 0
    for (const { stream, column, peer, grids } of within) {
      for (let first = 0; first < grids; first += MAX_CHECKED) {
        signal.throwIfAborted()
        const count = Math.min(MAX_CHECKED, grids - first)
        try {
          const states = await shards.check(peer, stream, column, first, count)
          for (const [i, state] of states.entries()) {
            if (state !== 'whole') yield { stream, grid: first + i, column, member: this.#nameOf(peer) }
          }
        } catch (error) {
          const range = `grids ${first} to ${first + count - 1} of column ${column} of ${stream}`
          yield { stream, what: `${range} at ${this.#nameOf(peer)}`, why: messageOf(error) }
        }
        done += count
        yield { text: 'columns read where they lie', done, total }
      }
    }
  }

  async *repair(signal: AbortSignal): AsyncGenerator<WorkProgress, RepairReport> {
    const { redundancy, shards } = this.#storing()
    const { clock } = this.#deps
    let sight = await redundancy.look({ urgent: true, anew: true })
    let total = sight.plan.repairs.length
    let moved = { at: clock.now(), count: -1 }
    let askedAt = Number.NEGATIVE_INFINITY
    while (sight.plan.repairs.length > 0) {
      signal.throwIfAborted()
      total = Math.max(total, sight.plan.repairs.length)
      yield { text: 'columns rebuilt', done: total - sight.plan.repairs.length, total }
      const count = rebuiltGrids(redundancy, sight, total)
      if (count !== moved.count) moved = { at: clock.now(), count }
      if (clock.now() - moved.at > STALLED_MS) break
      if (clock.now() - askedAt > ASK_AGAIN_MS) {
        askedAt = clock.now()
        const up = [...sight.facts.standing].flatMap(([peer, is]) => (is === 'up' ? [peer] : []))
        await Promise.allSettled(up.map(peer => shards.askRepair(peer)))
      }
      await new Promise<void>(resolve => clock.after(LOOK_MS, resolve))
      sight = await redundancy.look({ urgent: true })
    }
    const { repairs, impossible } = sight.plan
    return {
      rebuilt: total - repairs.length,
      impossible: [
        ...impossible.map(each => ({ what: `columns ${each.columns.join(', ')} of ${each.stream}`, why: whyOf(each) })),
        ...repairs.map(({ stream, column, target }) => ({
          what: `column ${column} of ${stream}`,
          why: `${this.#nameOf(target)} is to rebuild it, and has not got on for ${STALLED_MS / 1_000} s; its log says why`
        })),
        ...sight.kept.unread.map(({ group, image, why }) => ({ what: `image ${image} of ${group}`, why }))
      ]
    }
  }

  #storing(): Storing {
    const { storing } = this.#deps
    if (storing !== undefined) return storing
    throw new UsageError('NOT_STORAGE', 'this peer is a witness and knows no snapshots: ask a storage member')
  }

  #nameOf(peer: string): string {
    return memberById(this.#deps.membership.record(), peer)?.name ?? peer
  }
}

function imagesOf({ kept, facts }: Sight, exposureOf = exposures(facts)): ImageRedundancy[] {
  return kept.images.map(({ group, vm, epoch, streams }) => ({
    group,
    vm,
    epoch,
    streams: streams.length,
    ...exposureOf(streams)
  }))
}

/** Of which columns are missing, or that could bear more losses than they do. */
function exposedIn(sight: Sight): ImageRedundancy[] {
  const { kept, facts, plan } = sight
  const exposureOf = exposures(facts)
  const planned = new Set(plan.repairs.map(({ stream }) => stream))
  const isExposed = ({ streams }: Sight['kept']['images'][number]): boolean =>
    streams.some(stream => planned.has(stream)) || exposureOf(streams).missing > 0
  return imagesOf({ ...sight, kept: { ...kept, images: kept.images.filter(isExposed) } }, exposureOf)
}

/** What of it is of a group or VM of that name. */
function only(sight: Sight, name: string | undefined): Sight {
  if (name === undefined) return sight
  const { kept, facts } = sight
  const images = kept.images.filter(({ group, vm }) => group === name || vm === name)
  const unread = kept.unread.filter(({ group }) => group === name)
  if (images.length === 0 && unread.length === 0) {
    throw new UsageError('NAME_UNKNOWN', `no group or VM ${name} has a snapshot that is kept`)
  }
  const wanted = new Set(images.flatMap(({ streams }) => streams))
  return {
    ...sight,
    kept: { images, unread, streams: kept.streams.filter(({ stream }) => wanted.has(stream)) },
    facts: { ...facts, streams: facts.streams.filter(({ stream }) => wanted.has(stream)) }
  }
}

/**
 * What was found, without what is kept no longer: to read all takes longer than the time between two epochs, of which each may have
 * dropped another, and what was dropped is deleted within seconds.
 */
async function stillKept(
  { kept }: Sight,
  { damaged, unread }: Found,
  look: () => Promise<Sight>
): Promise<Pick<VerifyReport, 'damaged' | 'unreadable'>> {
  if (damaged.length + unread.length + kept.unread.length === 0) return { damaged: [], unreadable: [] }
  const now = (await look()).kept
  const streams = new Set(now.streams.map(({ stream }) => stream))
  const images = new Set(now.unread.map(({ image }) => image))
  return {
    damaged: damaged.filter(({ stream }) => streams.has(stream)),
    unreadable: [
      ...kept.unread.flatMap(({ group, image, why }) =>
        images.has(image) ? [{ what: `image ${image} of ${group}`, why }] : []
      ),
      ...unread.flatMap(({ stream, what, why }) => (streams.has(stream) ? [{ what, why }] : []))
    ]
  }
}

/** Reads every stream to its end, as a restore does: every symbol that comes is checked. Parity is not asked for without need: `#checks` has read it. */
async function* readings(
  streams: readonly KeptStream[],
  shards: Storing['shards'],
  manifestOf: Redundancy['manifest'],
  signal: AbortSignal
): AsyncGenerator<WorkProgress | Unread> {
  for (const [done, stream] of streams.entries()) {
    try {
      const manifest = await manifestOf(stream)
      for (let at = 0; at < manifest.dataBytes; at += READ_BYTES) {
        signal.throwIfAborted()
        await shards.readData(manifest, at, Math.min(READ_BYTES, manifest.dataBytes - at))
      }
    } catch (error) {
      signal.throwIfAborted()
      yield { stream: stream.stream, what: stream.stream, why: messageOf(error) }
    }
    yield { text: 'streams read', done: done + 1, total: streams.length }
  }
}

/** Grows with every grid that somebody has rebuilt. */
function rebuiltGrids(redundancy: Redundancy, { plan, kept }: Sight, total: number): number {
  const most = Math.max(1, ...kept.streams.map(({ grids }) => grids))
  const begun = plan.repairs.reduce((sum, { target, stream, column }) => {
    return sum + redundancy.gridsAt(target, stream, column) / (most + 1)
  }, 0)
  return total - plan.repairs.length + begun
}

function whyOf({ why, readable, k }: Unrepairable): string {
  if (why === 'full') return 'no member within reach has room for it'
  return `${readable} columns are within reach, and ${k} are needed: bring back members that have others`
}
