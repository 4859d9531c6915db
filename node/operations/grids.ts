/** The diagonal grid of an epoch: the API's `GridView`, of what this peer sees of the redundancy. */
import type { PeerId } from '../../protocols/core.ts'
import { keptEpochs } from '../../protocols/epoch/kept.ts'
import type { GroupRecord, KeptEpoch } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import type { Redundancy, SeenStream, Sight } from '../agents/redundancy.ts'
import type { EpochGrid, GridColumn, GridImage, GridStream } from '../edge/grid-view.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { exposures } from '../planning/exposure.ts'
import { withinReach } from '../planning/repair.ts'
import type { Clock } from '../ports.ts'

/** What was seen this long ago is seen again. A guess: a person watches a repair, and the question costs a message a stream. */
const FRESH_MS = 10_000
/** A page does not wait longer than this for members that do not answer, where the epoch was seen before. A guess. */
const PATIENCE_MS = 2_000

export interface GridOperationsDeps {
  /** Undefined at a witness. */
  readonly redundancy: Pick<Redundancy, 'look' | 'gridsAt'> | undefined
  readonly membership: { record(): ClusterRecord }
  readonly clock: Clock
  wallMs(): number
}

/** `atMs`, `wallMs`: when it was there, by both clocks. */
interface Seen {
  readonly atMs: number
  readonly wallMs: number
  readonly sight: Sight
}

export class GridOperations {
  readonly #deps: GridOperationsDeps
  #looking: Promise<Seen> | undefined
  #seen: Seen | undefined

  constructor(deps: GridOperationsDeps) {
    this.#deps = deps
  }

  /** EPOCH_NOT_KEPT; UsageError NOT_STORAGE. */
  async grid(record: GroupRecord, epoch: number): Promise<EpochGrid> {
    const kept = keptEpochs(record).find(each => each.epoch === epoch)
    if (kept === undefined) {
      throw new DiapauseError('EPOCH_NOT_KEPT', `Epoch ${epoch} of group "${record.id}" is not kept.`)
    }
    const { redundancy, membership } = this.#deps
    if (redundancy === undefined)
      throw new UsageError('NOT_STORAGE', 'this peer is a witness and knows no snapshots: ask a storage member')
    const { sight, wallMs: lookedMs } = await this.#look(redundancy, record.id, kept)
    const members = membership.record().members.flatMap(({ id, name, role }) => {
      return role === 'storage' ? [{ id, name, standing: sight.facts.standing.get(id) ?? ('gone' as const) }] : []
    })
    const gridsAt = redundancy.gridsAt.bind(redundancy)
    return { lookedMs, members, ...gridOf(record, kept, sight, gridsAt) }
  }

  async #look(redundancy: Pick<Redundancy, 'look'>, group: string, kept: KeptEpoch): Promise<Seen> {
    const { clock } = this.#deps
    const last = this.#seen
    if (last === undefined || !knows(last, group, kept)) {
      // A look that is under way may have begun before the epoch was committed.
      const underWay = await this.#looking?.catch(() => undefined)
      return underWay && knows(underWay, group, kept) ? underWay : this.#lookNow(redundancy)
    }
    if (clock.now() - last.atMs < FRESH_MS) return last
    const patience = Promise.withResolvers<Seen>()
    const cancel = clock.after(PATIENCE_MS, () => patience.resolve(last))
    return Promise.race([this.#lookNow(redundancy), patience.promise]).finally(cancel)
  }

  /** Whoever asks meanwhile waits for the same. */
  #lookNow(redundancy: Pick<Redundancy, 'look'>): Promise<Seen> {
    const { clock, wallMs } = this.#deps
    this.#looking ??= redundancy
      .look()
      .then(sight => (this.#seen = { atMs: clock.now(), wallMs: wallMs(), sight }))
      .finally(() => {
        this.#looking = undefined
      })
    return this.#looking
  }
}

/** Of every VM of the epoch it has the image, or why that cannot be read: it was looked after the epoch was committed. */
function knows({ sight: { kept } }: Seen, group: string, { epoch, images }: KeptEpoch): boolean {
  const unread = new Set(kept.unread.map(({ image }) => image))
  const read = new Set(kept.images.flatMap(each => (each.group === group && each.epoch === epoch ? [each.vm] : [])))
  return Object.entries(images).every(([vm, image]) => read.has(vm) || unread.has(image))
}

type GridsAt = (peer: PeerId, stream: string, column: number) => number

/** Pure. */
export function gridOf(
  { id: group }: Pick<GroupRecord, 'id'>,
  { epoch, generation, images: named }: KeptEpoch,
  { kept, facts, plan }: Sight,
  gridsAt: GridsAt
): Pick<EpochGrid, 'group' | 'epoch' | 'generation' | 'images' | 'unreadable'> {
  const exposureOf = exposures(facts)
  const streams = new Map(facts.streams.map(each => [each.stream, each]))
  const images = kept.images
    .filter(image => image.group === group && image.epoch === epoch && image.vm in named)
    .map(({ vm, streams: names }): GridImage => {
      const { tolerates } = exposureOf(names)
      const seen = names.flatMap(name => streams.get(name) ?? [])
      return { vm, tolerates, streams: seen.map(stream => streamOf(stream, { facts, plan }, gridsAt)) }
    })
  const own = new Set(Object.values(named))
  return {
    group,
    epoch,
    generation,
    images: images.sort((a, b) => (a.vm < b.vm ? -1 : 1)),
    unreadable: kept.unread.filter(({ image }) => own.has(image)).map(({ image, why }) => ({ image, why }))
  }
}

function streamOf(seen: SeenStream, { facts, plan }: Pick<Sight, 'facts' | 'plan'>, gridsAt: GridsAt): GridStream {
  const { stream, k, m, grids, holders } = seen
  const [whole, parts] = withinReach(seen, facts.standing)
  const columns = holders.map((planned, column): GridColumn => {
    const repair = plan.repairs.find(each => each.stream === stream && each.column === column)
    const places = seen.places[column] ?? []
    const place = { column, planned, places }
    if ((whole[column] ?? []).length > 0) return { ...place, state: 'there' }
    if (repair !== undefined) {
      const { target } = repair
      return { ...place, state: 'repairing', target, done: gridsAt(target, stream, column) }
    }
    if ((parts[column] ?? []).length > 0) return { ...place, state: 'partly' }
    const isAway = [planned, ...places].some(peer => facts.standing.get(peer) === 'away')
    return { ...place, state: isAway ? 'away' : 'lost' }
  })
  return { stream, k, m, grids, columns }
}
