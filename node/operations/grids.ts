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
/** A page does not wait longer than this for members that do not answer, where something was seen before. A guess. */
const PATIENCE_MS = 2_000

export interface GridOperationsDeps {
  /** Undefined at a witness. */
  readonly redundancy: Pick<Redundancy, 'look' | 'last' | 'gridsAt'> | undefined
  readonly membership: { record(): ClusterRecord }
  readonly clock: Clock
  wallMs(): number
}

export class GridOperations {
  readonly #deps: GridOperationsDeps
  #looking: Promise<Sight> | undefined
  #seen: { readonly atMs: number; readonly wallMs: number } | undefined

  constructor(deps: GridOperationsDeps) {
    this.#deps = deps
  }

  /** EPOCH_NOT_KEPT; UsageError NOT_STORAGE. */
  async grid(record: GroupRecord, epoch: number): Promise<EpochGrid> {
    const kept = keptEpochs(record).find(each => each.epoch === epoch)
    if (kept === undefined) {
      throw new DiapauseError('EPOCH_NOT_KEPT', `Epoch ${epoch} of group "${record.id}" is not kept.`)
    }
    const { redundancy, membership, wallMs } = this.#deps
    if (redundancy === undefined)
      throw new UsageError('NOT_STORAGE', 'this peer is a witness and knows no snapshots: ask a storage member')
    const sight = await this.#look(redundancy)
    const members = membership.record().members.flatMap(({ id, name, role }) => {
      return role === 'storage' ? [{ id, name, standing: sight.facts.standing.get(id) ?? ('gone' as const) }] : []
    })
    const gridsAt = redundancy.gridsAt.bind(redundancy)
    return { lookedMs: this.#seen?.wallMs ?? wallMs(), members, ...gridOf(record, kept, sight, gridsAt) }
  }

  async #look(redundancy: Pick<Redundancy, 'look' | 'last'>): Promise<Sight> {
    const { clock, wallMs } = this.#deps
    const { last } = redundancy
    if (last !== undefined && this.#seen !== undefined && clock.now() - this.#seen.atMs < FRESH_MS) return last
    this.#looking ??= redundancy.look().finally(() => {
      this.#looking = undefined
      this.#seen = { atMs: clock.now(), wallMs: wallMs() }
    })
    if (last === undefined) return this.#looking
    const patience = Promise.withResolvers<Sight>()
    const cancel = clock.after(PATIENCE_MS, () => patience.resolve(last))
    return Promise.race([this.#looking, patience.promise]).finally(cancel)
  }
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
