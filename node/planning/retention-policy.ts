/**
 * Which epochs of a group are kept, as `restic forget` and `borg prune` do it: the newest few, and the last one of each of
 * so many hours, days and weeks in which there was one. Pure.
 *
 * "Newest" is by number and never by time, and hours are counted as they are met on the way from the newest epoch to the
 * oldest. So no clock can make it forget much: one that jumps ahead, or back, or is wrong at one of the peers, gives its epochs
 * hours of their own, which take places in the row and leave it again as other hours come; an hour that comes twice has
 * one last epoch. What time it is now does not matter either, and a group that stood still for a month has lost nothing.
 *
 * It is asked at each commit, of what was kept until then. That is the same as to ask it once of all epochs there ever were:
 * an epoch is dropped when a newer one stands for its hour or when there are enough newer hours, and both stay so.
 */
import {
  type Keeping,
  keptEpochs,
  MAX_READ_RECORD_TEXT_BYTES,
  MAX_RECORD_TEXT_BYTES,
  readFrom,
  readsAll,
  recordTextBytes
} from '../../protocols/epoch/kept.ts'
import { MAX_KEPT } from '../../protocols/epoch/messages.ts'
import type { GroupRecord, KeptEpoch, RetentionPolicy } from '../../protocols/group.ts'
import { DiapauseError, UsageError } from '../errors.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** 1 January 1970 was a Thursday: weeks begin on Mondays. */
const MONDAY_MS = 3 * DAY_MS

export interface DatedEpoch {
  readonly epoch: number
  /** Undefined: nobody noted it. Such an epoch stands for no hour. */
  readonly wallMs?: number | undefined
}

const PERIODS: readonly { of(policy: RetentionPolicy): number; indexOf(wallMs: number): number }[] = [
  { of: ({ hourly }) => hourly, indexOf: wallMs => Math.floor(wallMs / HOUR_MS) },
  { of: ({ daily }) => daily, indexOf: wallMs => Math.floor(wallMs / DAY_MS) },
  { of: ({ weekly }) => weekly, indexOf: wallMs => Math.floor((wallMs + MONDAY_MS) / (7 * DAY_MS)) }
]

/** Numbers of the epochs that are kept, those in `held` among them. */
export function epochsToKeep(
  policy: RetentionPolicy,
  epochs: readonly DatedEpoch[],
  held: ReadonlySet<number> = new Set()
): Set<number> {
  const newestFirst = epochs.toSorted((a, b) => b.epoch - a.epoch)
  const kept = newestFirst.filter(({ epoch }, place) => place < policy.keepLast || held.has(epoch))
  for (const period of PERIODS) {
    const met = new Set<number>()
    for (const each of newestFirst) {
      if (met.size >= period.of(policy)) break
      const index = each.wallMs === undefined ? undefined : period.indexOf(each.wallMs)
      if (index === undefined || met.has(index)) continue
      met.add(index)
      kept.push(each)
    }
  }
  return new Set(kept.map(({ epoch }) => epoch))
}

/**
 * For `commitEpoch` at `wallMs`: by the group's own policy, else by `policy`. A group's record has room for so many images;
 * where they are more, the oldest epochs go first, those that people hold never. `older`: members that may be of an older version
 * (`older-members.ts`): the first could not read a record that says when its epoch was committed.
 */
export function keepBy(policy: RetentionPolicy, wallMs: number, older: readonly string[] = []): Keeping {
  const atMs = Math.max(0, Math.floor(wallMs))
  return {
    wallMsOf: ({ retention = policy, kept }) =>
      older.length === 0 || keepsMore(retention) || kept !== undefined ? atMs : undefined,
    keep: record => {
      const { kept = [], holds = [], committed, retention = policy } = record
      const held = new Set(holds.map(({ epoch }) => epoch))
      const wanted = epochsToKeep(retention, committed === null ? kept : [...kept, committed], held)
      const epochs = kept.filter(({ epoch }) => wanted.has(epoch))
      const left = kept.filter(({ epoch }) => !wanted.has(epoch))
      return withinRoom({ ...record, kept: epochs, held: readFrom(record.held, left) }, held)
    }
  }
}

const keepsMore = ({ keepLast, hourly, daily, weekly }: RetentionPolicy): boolean =>
  keepLast > 1 || hourly + daily + weekly > 0

function withinRoom(record: GroupRecord, held: ReadonlySet<number>): NonNullable<GroupRecord['kept']> {
  const epochs = record.kept ?? []
  const readBytes = recordTextBytes(record.held ?? [])
  const room = Math.min(MAX_RECORD_TEXT_BYTES, MAX_READ_RECORD_TEXT_BYTES - readBytes)
  // To drop one that is read as a whole wins nothing: its images stay in the record.
  const read = new Set(record.held?.filter(readsAll).map(({ epoch }) => epoch))
  let bytes = recordTextBytes({ ...record, held: undefined })
  let count = epochs.length
  const dropped = new Set<number>()
  for (const each of epochs.toSorted((a, b) => a.epoch - b.epoch)) {
    if (bytes <= room && count <= MAX_KEPT) break
    if (held.has(each.epoch) || read.has(each.epoch)) continue
    dropped.add(each.epoch)
    bytes -= recordTextBytes(each)
    count -= 1
  }
  return dropped.size === 0 ? epochs : epochs.filter(({ epoch }) => !dropped.has(epoch))
}

/** How many epochs of `record`'s VMs fit beside all else in it, if their images were named as `record.vms` are. */
export function roomForEpochs(record: GroupRecord): number {
  const images = Object.fromEntries(record.vms.map(({ id }) => [id, '0'.repeat(64)]))
  const numbers = { epoch: 1e9, generation: 1e6, wallMs: 1e13 }
  const one = recordTextBytes({ ...numbers, images }) + 1
  const committed = { ...numbers, previousEpoch: 1e9, images }
  const left = MAX_RECORD_TEXT_BYTES - recordTextBytes({ ...record, committed, kept: [] })
  return Math.min(MAX_KEPT, Math.max(0, Math.floor(left / one)))
}

/** How many epochs a policy keeps at the most. The newest of all is the last of its hour, its day and its week. */
export const epochsAskedFor = ({ keepLast, hourly, daily, weekly }: RetentionPolicy): number =>
  [hourly, daily, weekly].reduce((sum, count) => sum + Math.max(0, count - 1), keepLast)

/** UsageError EPOCHS_FULL where the record of a group has no room for what is asked for. */
export function checkRoom(record: GroupRecord, policy: RetentionPolicy): void {
  const room = roomForEpochs(record)
  const asked = epochsAskedFor(policy)
  if (asked <= Math.max(1, room)) return
  const vms = record.vms.length
  throw new UsageError(
    'EPOCHS_FULL',
    `The record of group "${record.id}" has room for ${room} epochs of its ${vms} VMs, and ${asked} are asked for: keep fewer, or make smaller groups.`,
    { details: { room, asked } }
  )
}

/** EPOCH_NOT_KEPT. */
export function keptEpoch(record: GroupRecord, epoch: number | undefined): KeptEpoch {
  const epochs = keptEpochs(record)
  const found = epochs.find(each => each.epoch === epoch)
  if (found !== undefined) return found
  const numbers = epochs.map(each => each.epoch)
  const are = numbers.length === 0 ? 'none is' : `${numbers.join(', ')} ${numbers.length === 1 ? 'is' : 'are'}`
  const name = `group "${record.id}"`
  const asked = epoch === undefined ? `G${name.slice(1)} has no epoch yet` : `Epoch ${epoch} of ${name} is not kept`
  throw new DiapauseError('EPOCH_NOT_KEPT', `${asked}; ${are}.`, { details: { kept: numbers } })
}
