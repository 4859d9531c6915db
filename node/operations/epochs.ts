/** What an operator can see of kept epochs and do with them: the API's `EpochView`. Every change is a guarded compare-and-set. */
import {
  BEFORE_RESTORE,
  dropEpoch,
  goBackTo,
  holdByName,
  keptEpochs,
  releaseByName,
  setRetention
} from '../../protocols/epoch/kept.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Note } from '../../protocols/decisions/facts.ts'
import { cameTooLate } from '../../protocols/epoch/record.ts'
import { startGroup } from '../../protocols/epoch/rest.ts'
import type { GroupRecord, KeptEpoch, RetentionPolicy } from '../../protocols/group.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { EpochStatus, EpochView, GroupEpochs, PolicyWish, RestoreWish } from '../edge/epoch-view.ts'
import type { EventFeed } from '../edge/events.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { type PlacementFacts, placeStart, whyHomeless } from '../planning/placement.ts'
import { checkRoom, keptEpoch, roomForEpochs } from '../planning/retention-policy.ts'
import type { ImageManifest } from '../ports.ts'

export interface EpochOperationsDeps {
  readonly directory: Pick<GroupDirectory, 'refresh' | 'change'>
  readonly events: Pick<EventFeed, 'emit'>
  /** For the decision log. */
  readonly note: Note
  /** Of groups that have none of their own. */
  readonly policy: RetentionPolicy
  /** By which owners are found for a group that rests. */
  facts(record: GroupRecord): PlacementFacts
  /** Undefined at a witness, which has no manifests. */
  readonly readManifest: ((hash: string) => Promise<ImageManifest>) | undefined
}

/** Sizes of images that are remembered: of all that a group keeps. A guess. */
const REMEMBERED = 4_096

export class EpochOperations implements EpochView {
  readonly #deps: EpochOperationsDeps
  /** By manifest. They never change, and a list of epochs asks for many. */
  readonly #bytesStored = new Map<string, number>()

  constructor(deps: EpochOperationsDeps) {
    this.#deps = deps
  }

  async list(group: string): Promise<GroupEpochs> {
    const record = await this.#record(group)
    const epochs: EpochStatus[] = []
    for (const each of keptEpochs(record)) epochs.push(await this.#statusOf(record, each))
    const { retention } = record
    const policy = retention ?? this.#deps.policy
    return { group, policy, own: retention !== undefined, room: roomForEpochs(record), epochs }
  }

  async hold(group: string, epoch: number, name: string): Promise<void> {
    keptEpoch(await this.#record(group), epoch)
    const now = await this.#change(group, holdByName(epoch, name))
    keptEpoch(now, epoch)
    if (now.holds?.some(hold => hold.epoch === epoch && hold.name === name)) return
    throw full(now, 'one more')
  }

  async release(group: string, epoch: number, name: string | undefined): Promise<void> {
    const record = await this.#record(group)
    keptEpoch(record, epoch)
    const names = namesOf(record, epoch)
    if (names.length === 0 || (name !== undefined && !names.includes(name))) {
      const by = names.length === 0 ? 'nothing holds it' : `it is held by ${names.join(', ')}`
      throw new UsageError('HOLD_UNKNOWN', `Epoch ${epoch} of group "${group}" has no such hold; ${by}.`)
    }
    await this.#change(group, releaseByName(epoch, name))
  }

  async remove(group: string, epoch: number): Promise<void> {
    keptEpoch(await this.#record(group), epoch)
    const now = await this.#change(group, dropEpoch(epoch))
    if (now.committed?.epoch === epoch) {
      const why = 'is what a restore begins with; it goes when another is committed and the policy does not keep it'
      throw new UsageError('EPOCH_COMMITTED', `Epoch ${epoch} of group "${group}" ${why}.`)
    }
    const names = namesOf(now, epoch)
    if (names.length === 0) return
    throw new UsageError('EPOCH_HELD', `Epoch ${epoch} of group "${group}" is held by ${names.join(', ')}: release it.`)
  }

  async setPolicy(group: string, wish: PolicyWish): Promise<void> {
    const record = await this.#record(group)
    const before = record.retention ?? this.#deps.policy
    const { keepLast, hourly, daily, weekly } = wish
    const policy = {
      keepLast: keepLast ?? before.keepLast,
      hourly: hourly ?? before.hourly,
      daily: daily ?? before.daily,
      weekly: weekly ?? before.weekly
    }
    checkRoom(record, policy)
    await this.#change(group, setRetention(policy))
  }

  async restore(group: string, { epoch, force }: RestoreWish): Promise<GroupRecord> {
    const record = await this.#record(group)
    const { committed, generation, outputCommit, resting } = record
    const target = keptEpoch(record, epoch ?? committed?.epoch)
    if (outputCommit === true && target.epoch !== committed?.epoch && !force) {
      const what = `what its VMs have told the outside since epoch ${target.epoch} would be taken back`
      throw new UsageError('OUTPUT_SENT', `Group "${group}" has output commit, and ${what}: --force, if that is meant.`)
    }
    await this.#readable(target)
    const owners = resting ? this.#ownersFor(record) : record.owners
    const { epoch: to } = target
    const change = resting ? startGroup(generation, to, owners) : goBackTo(generation, to)
    this.#deps.note({ kind: 'restart-due', group, generation, why: 'by-hand', waitMs: 0, failures: 0 })
    const now = await this.#change(group, change, is => cameTooLate(is, generation, owners))
    if (now.generation === generation && now.kept?.some(each => each.epoch === target.epoch) === true) {
      throw full(now, `the hold "${BEFORE_RESTORE}" of epoch ${now.committed?.epoch}, without which that would be lost`)
    }
    // Of two who ask at once one may have put it to rest in that very generation.
    if (now.resting || now.generation !== generation + 1 || now.committed?.epoch !== target.epoch) {
      throw new DiapauseError('GROUP_CHANGED', `Group "${group}" changed at this moment; look at it and try again.`)
    }
    const kind = resting ? 'group.started' : 'group.restored'
    this.#deps.events.emit(kind, { group, epoch: to, generation: now.generation })
    return now
  }

  /** Who lives runs what it ran, where there still is room for it. NO_HOST. */
  #ownersFor(record: GroupRecord): Readonly<Record<string, PeerId>> {
    const facts = this.#deps.facts(record)
    const { owners, homeless } = placeStart(record, facts)
    if (homeless.length > 0) throw new DiapauseError('NO_HOST', whyHomeless(homeless, facts))
    return owners
  }

  /** Better a refusal than a group that tries to start from what is lost. */
  async #readable({ images }: KeptEpoch): Promise<void> {
    for (const hash of Object.values(images)) await this.#deps.readManifest?.(hash)
  }

  async #statusOf(record: GroupRecord, each: KeptEpoch): Promise<EpochStatus> {
    const { epoch, generation, wallMs, images } = each
    const bytesStored = await this.#bytesOf(Object.values(images))
    return {
      epoch,
      generation,
      committed: epoch === record.committed?.epoch,
      ...(wallMs !== undefined && { wallMs }),
      ...(bytesStored !== undefined && { bytesStored }),
      holds: namesOf(record, epoch),
      readers: record.held?.filter(held => held.epoch === epoch).length ?? 0
    }
  }

  async #bytesOf(hashes: readonly string[]): Promise<number | undefined> {
    const { readManifest } = this.#deps
    let sum = 0
    for (const hash of hashes) {
      try {
        const bytes = this.#bytesStored.get(hash) ?? (await readManifest?.(hash))?.stats.bytesStored
        if (bytes === undefined) return undefined
        const [oldest] = this.#bytesStored.keys()
        if (this.#bytesStored.size >= REMEMBERED && oldest !== undefined) this.#bytesStored.delete(oldest)
        this.#bytesStored.set(hash, bytes)
        sum += bytes
      } catch {
        return undefined // a list of what there is must not fail over what is lost
      }
    }
    return sum
  }

  async #record(group: string): Promise<GroupRecord> {
    return there(group, await this.#deps.directory.refresh(group))
  }

  async #change(
    group: string,
    ...change: Parameters<GroupDirectory['change']> extends [string, ...infer Rest] ? Rest : never
  ) {
    return there(group, await this.#deps.directory.change(group, ...change))
  }
}

function there(group: string, record: GroupRecord | null): GroupRecord {
  if (record !== null && !record.removed) return record
  throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
}

const namesOf = ({ holds = [] }: GroupRecord, epoch: number): string[] =>
  holds.filter(hold => hold.epoch === epoch).map(({ name }) => name)

const full = (record: GroupRecord, what: string) =>
  new DiapauseError(
    'EPOCHS_FULL',
    `The record of group "${record.id}" has no room for ${what}: release a hold first, of epoch ${heldOf(record).join(', ')}.`
  )

const heldOf = ({ holds = [] }: GroupRecord): number[] => [...new Set(holds.map(({ epoch }) => epoch))]
