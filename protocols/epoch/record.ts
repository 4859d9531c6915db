/**
 * The changes of a group's record, each a pure function for `Registers.change`: the present record in, the next one out,
 * or `undefined` for "leave it". All are guarded by what they expect to find (version, generation, epoch), so that one
 * that is tried twice, or evaluated on a state which already contains its effect, changes nothing the second time.
 *
 *   none ──create──▶ idle ──open──▶ open ──commit──▶ idle (committed = this epoch)
 *                     ▲               │──abort───▶ idle (committed as before)
 *                     └──takeover─────┘   generation + 1, an open epoch is void
 *
 * and `rest.ts` has the way to rest and back.
 */
import type { EpochPolicy } from '../../config/policy.ts'
import type { PeerId } from '../core.ts'
import type { GroupRecord, RetentionPolicy, VmSpec } from '../group.ts'
import { keepHeld, type Keeping, keepOlder } from './kept.ts'

/** What a group is made with beside its VMs. */
export interface GroupSettings {
  readonly outputCommit?: boolean
  readonly openFlow?: boolean
  readonly retention?: RetentionPolicy | undefined
  readonly policy?: EpochPolicy | undefined
}

/**
 * Nothing where the group exists. The id of a removed one may be used again; its numbers go on. Where there is no record,
 * because there never was or it was forgotten, they start above `floor`, which must have been read (`groupFloor` of the
 * cluster's record) after it was seen that there is none; null: whoever has seen one.
 */
export function createGroup(
  id: string,
  vms: readonly VmSpec[],
  owners: Readonly<Record<string, PeerId>>,
  floor: number | null = 0,
  { outputCommit = false, openFlow = false, retention, policy }: GroupSettings = {}
) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    const settings = {
      ...(outputCommit && { outputCommit }),
      ...(openFlow && { openFlow }),
      ...(retention && { retention }),
      ...(policy && { policy })
    }
    const fresh = { id, vms, owners, ...settings, open: null, committed: null, removed: false }
    if (current === null) {
      return floor === null ? undefined : { ...fresh, version: floor + 1, generation: floor + 1, lastEpoch: 0 }
    }
    if (!current.removed) return undefined
    const { version, generation, lastEpoch } = current
    return { ...fresh, version: version + 1, generation: generation + 1, lastEpoch }
  }
}

/**
 * Takes the name of a group that is to begin with an image from elsewhere, for `by`: as a removed one of a generation of its
 * own, whose next epoch the image is. So the image's shards have numbers that nobody else uses, are kept while it is stored,
 * and are forgotten as those of any removed group where nothing comes of it. Nothing where the group exists. `floor` as in
 * `createGroup`.
 */
export function reserveGroup(
  id: string,
  vms: readonly VmSpec[],
  by: PeerId,
  floor: number | null,
  settings: GroupSettings = {}
) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    const owners = Object.fromEntries(vms.map(vm => [vm.id, by]))
    const made = createGroup(id, vms, owners, floor, settings)(current)
    return made && { ...made, removed: true }
  }
}

/** Whether nobody has made, taken or removed the group since. */
const isReserved = (current: GroupRecord | null, { generation, owners }: GroupRecord): current is GroupRecord =>
  current?.removed === true && current.generation === generation && sameOwners(current.owners, owners)

/** What is reserved is not forgotten yet: the wait for that begins anew with each version. Nothing where it is lost. */
export function renewReservation(reserved: GroupRecord) {
  return (current: GroupRecord | null): GroupRecord | undefined =>
    isReserved(current, reserved) ? { ...current, version: current.version + 1 } : undefined
}

/** A group whose VMs start from images of the reservation. Nothing where that is not what is there any more. */
export function importGroup(
  reserved: GroupRecord,
  owners: Readonly<Record<string, PeerId>>,
  images: Readonly<Record<string, string>>
) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (!isReserved(current, reserved)) return undefined
    const { version, generation, lastEpoch } = current
    const epoch = lastEpoch + 1
    const committed = { epoch, generation, previousEpoch: 0, images }
    const numbers = { version: version + 1, generation: generation + 1, lastEpoch: epoch }
    return { ...current, ...numbers, owners, committed, removed: false }
  }
}

/** Ends the group: a generation in which no VM runs and nothing is kept. */
export function removeGroup(current: GroupRecord | null): GroupRecord | undefined {
  if (current === null || current.removed) return undefined
  const { held: _, kept: __, holds: ___, resting: ____, version, generation, ...rest } = current
  return { ...rest, version: version + 1, generation: generation + 1, open: null, committed: null, removed: true }
}

/** Opens the next epoch, the last before a rest if so wished; nothing where one is open already, or the group rests. */
export function openEpoch(proposer: PeerId, deadlineMs: number, expectedVersion: number, rest = false) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed || current.resting || current.open !== null) return undefined
    if (current.version !== expectedVersion) return undefined
    const epoch = current.lastEpoch + 1
    const open = { epoch, proposer, deadlineMs, ...(rest && { rest }) }
    return { ...current, version: current.version + 1, lastEpoch: epoch, open }
  }
}

/**
 * Commits the open epoch: `images` names the manifest of every VM of the group. Older ones are kept or dropped with it. Where it
 * was opened for a rest the group rests from here on, in a generation of its own: so who missed the word has no lease any more.
 */
export function commitEpoch(
  generation: number,
  epoch: number,
  images: Readonly<Record<string, string>>,
  keeping: Keeping = keepHeld
) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.generation !== generation || current.open?.epoch !== epoch) return undefined
    if (current.vms.some(vm => images[vm.id] === undefined)) return undefined
    const wallMs = keeping.wallMsOf(current)
    const previousEpoch = current.committed?.epoch ?? 0
    const committed = { epoch, generation, previousEpoch, images, ...(wallMs !== undefined && { wallMs }) }
    const rests = current.open.rest && { generation: generation + 1, resting: true as const }
    const next = { ...current, version: current.version + 1, open: null, committed, ...rests }
    return keepOlder(next, current.committed, keeping)
  }
}

export function abortEpoch(generation: number, epoch: number) {
  return (current: GroupRecord | null): GroupRecord | undefined =>
    current === null || current.generation !== generation || current.open?.epoch !== epoch
      ? undefined
      : { ...current, version: current.version + 1, open: null }
}

/**
 * A new generation: every VM goes back to the committed epoch (or boots, before the first) at its owner in `owners`. Nothing of a
 * group that rests: that starts when people say so.
 */
export function takeOver(generation: number, owners: Readonly<Record<string, PeerId>>) {
  return (current: GroupRecord | null): GroupRecord | undefined =>
    current === null || current.removed || current.resting || current.generation !== generation
      ? undefined
      : { ...current, version: current.version + 1, generation: generation + 1, owners, open: null }
}

/**
 * Whether a change that was made for `generation` came too late: the group is of a newer one, other than the change (with
 * these `owners`, where it is a takeover) would have made it.
 */
export function cameTooLate(now: GroupRecord, generation: number, owners?: Readonly<Record<string, PeerId>>): boolean {
  if (now.generation <= generation) return false
  return owners === undefined || now.generation > generation + 1 || !sameOwners(now.owners, owners)
}

/** As `cameTooLate`, of a commit: one before a rest makes a new generation itself. */
export const commitCameTooLate = (now: GroupRecord, generation: number, epoch: number): boolean =>
  cameTooLate(now, generation) && !(now.committed?.epoch === epoch && now.committed.generation === generation)

function sameOwners(a: Readonly<Record<string, PeerId>>, b: Readonly<Record<string, PeerId>>): boolean {
  const vms = Object.keys(a)
  return vms.length === Object.keys(b).length && vms.every(vm => a[vm] === b[vm])
}

/** Holders that lose a VM between two records: their leases must have run out before the change is accepted. */
export function displaced(before: GroupRecord | null, after: GroupRecord): PeerId[] {
  if (before === null) return []
  const losers = before.vms.filter(vm => before.owners[vm.id] !== after.owners[vm.id]).map(vm => before.owners[vm.id])
  return [...new Set(losers.filter(peer => peer !== undefined))].sort()
}

/** 'unknown': not yet opened; 'decided': committed or void, which the record does not tell any more. */
export type Fate = 'unknown' | 'open' | 'committed' | 'void' | 'decided'

/** What of a record tells of epochs. */
export type FateFacts = Pick<GroupRecord, 'open' | 'committed' | 'kept' | 'lastEpoch'>

/** What the record says of an epoch: it names the last two that were committed, and those that are kept. */
export function fateOf({ open, committed, kept, lastEpoch }: FateFacts, epoch: number): Fate {
  if (open?.epoch === epoch) return 'open'
  if (epoch > lastEpoch) return 'unknown'
  if (kept?.some(each => each.epoch === epoch)) return 'committed'
  if (committed === null || epoch > committed.epoch) return 'void'
  if (epoch === committed.epoch || epoch === committed.previousEpoch) return 'committed'
  return epoch > committed.previousEpoch ? 'void' : 'decided'
}

export const isDecided = (record: FateFacts, epoch: number): boolean => {
  const fate = fateOf(record, epoch)
  return fate !== 'unknown' && fate !== 'open'
}
