/**
 * The changes of a group's record about epochs that are kept beside the committed one, each a pure function as in
 * `record.ts`. An epoch begins to be kept when it is committed, and never later: whoever forgets what an epoch needs may rely
 * on it that no newer record wants it again.
 */
import type { CommittedEpoch, EpochHold, GroupRecord, HeldEpoch, KeptEpoch, RetentionPolicy } from '../group.ts'
import { MAX_HELD, MAX_HOLDS } from './messages.ts'

/** What is kept when an epoch is committed. */
export interface Keeping {
  /** Of a record whose epoch has just been committed, and which keeps all it could: what of `kept` goes on to be kept. */
  keep(record: GroupRecord): readonly KeptEpoch[]
  /** When it is committed. Undefined where a member may be of an older version, which cannot read records that say it. */
  wallMsOf(record: GroupRecord): number | undefined
}

/**
 * A register holds 64 KiB of msgpack, which is shorter than JSON. 60 KiB for all but the epochs that are being read: the rest is
 * for those, and for what comes between two commits.
 */
export const MAX_RECORD_TEXT_BYTES = 60 * 1024
/** With those that are being read. 1 KiB is left for an epoch that is opened and for others who begin to read. */
export const MAX_READ_RECORD_TEXT_BYTES = 63 * 1024

const encoder = new TextEncoder()

export const recordTextBytes = (record: unknown): number => encoder.encode(JSON.stringify(record)).length

/** The name of the hold on what was committed when a group went back: whoever went back too far can go forth again. */
export const BEFORE_RESTORE = 'before-restore'

/** What people hold, and nothing else: what is kept where no policy is given. */
export const keepHeld: Keeping = {
  keep: ({ kept = [], holds = [] }) => kept.filter(({ epoch }) => holds.some(hold => hold.epoch === epoch)),
  wallMsOf: () => undefined
}

/** All epochs that can be restored, by number. */
export const keptEpochs = ({ committed, kept = [] }: Pick<GroupRecord, 'committed' | 'kept'>): KeptEpoch[] =>
  [...kept, ...(committed === null ? [] : [keptOf(committed)])].sort((a, b) => a.epoch - b.epoch)

const keptOf = ({ epoch, generation, images, wallMs }: CommittedEpoch): KeptEpoch => ({
  epoch,
  generation,
  images,
  ...(wallMs !== undefined && { wallMs })
})

/** `next`, which has a newly committed epoch in the place of `before`, with what is kept beside it. */
export function keepOlder(next: GroupRecord, before: CommittedEpoch | null, keeping: Keeping): GroupRecord {
  const all = keptEpochs({ committed: before, kept: next.kept })
  const kept = keeping.keep({ ...next, kept: all })
  const there = new Set([...kept, next.committed].map(each => each?.epoch))
  const left = all.filter(({ epoch }) => !there.has(epoch))
  const holds = next.holds?.filter(({ epoch }) => there.has(epoch))
  return having(next, { kept, holds, held: readFrom(next.held, left) })
}

/** What reads one of `left`, which go, names its images itself from now on. */
export const readFrom = (held: GroupRecord['held'], left: readonly KeptEpoch[]): GroupRecord['held'] =>
  held?.map(each => {
    const images = left.find(({ epoch }) => epoch === each.epoch)?.images
    return images === undefined || !readsAll(each) ? each : { ...each, images }
  })

/** It reads all images of an epoch that is in the record, and does not say them once more. */
export const readsAll = ({ images }: HeldEpoch): boolean => Object.keys(images).length === 0

/**
 * Keeps a VM's image, or (`vm` undefined) those of all, of a kept epoch while it is read, until `releaseEpoch(by)`. Nothing
 * where that epoch is not kept, or as many as can be are read. What `isOver` of those that read one goes by the way: they have
 * died over it.
 */
export function holdEpoch(
  epoch: number,
  vm: string | undefined,
  by: string,
  isOver: (by: string) => boolean = () => false
) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed) return undefined
    const all = keptEpochs(current).find(each => each.epoch === epoch)?.images
    const image = vm === undefined ? undefined : all?.[vm]
    if (all === undefined || (vm !== undefined && image === undefined)) return undefined
    const others = (current.held ?? []).filter(each => each.by !== by && !isOver(each.by))
    if (others.length >= MAX_HELD) return undefined
    const images = vm === undefined || image === undefined ? {} : { [vm]: image }
    const held = [...others, { epoch, images, by }]
    return { ...current, version: current.version + 1, held }
  }
}

export function releaseEpoch(by: string) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    const held = current?.held?.filter(each => each.by !== by)
    if (current === null || held === undefined || held.length === current.held?.length) return undefined
    return having({ ...current, version: current.version + 1 }, { held })
  }
}

/**
 * Keeps a kept epoch under a name, until the name is released. Nothing where it is so already, where the epoch is not
 * kept, and where there is no room for it: those that are held must fit the record together.
 */
export function holdByName(epoch: number, name: string) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed || !hasEpoch(current, epoch)) return undefined
    const { holds = [] } = current
    if (holds.some(hold => hold.epoch === epoch && hold.name === name)) return undefined
    return fitting({ ...current, version: current.version + 1, holds: [...holds, { epoch, name }] })
  }
}

/** `name` undefined: whatever it is held by. */
export function releaseByName(epoch: number, name: string | undefined) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    const isMeant = (hold: EpochHold): boolean => hold.epoch === epoch && (name === undefined || hold.name === name)
    if (current === null || current.removed || current.holds?.some(isMeant) !== true) return undefined
    const holds = current.holds.filter(hold => !isMeant(hold))
    return having({ ...current, version: current.version + 1 }, { holds })
  }
}

/** Keeps an epoch no longer. Nothing where it is the committed one, or held by a name. */
export function dropEpoch(epoch: number) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed || current.holds?.some(hold => hold.epoch === epoch)) return undefined
    const kept = current.kept?.filter(each => each.epoch !== epoch)
    if (kept === undefined || kept.length === current.kept?.length) return undefined
    const left = current.kept?.filter(each => each.epoch === epoch) ?? []
    return having({ ...current, version: current.version + 1 }, { kept, held: readFrom(current.held, left) })
  }
}

/** Which epochs are kept from the next commit on. */
export function setRetention({ keepLast, hourly, daily, weekly }: RetentionPolicy) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed) return undefined
    const retention = { keepLast, hourly, daily, weekly }
    if (JSON.stringify(current.retention) === JSON.stringify(retention)) return undefined
    return { ...current, version: current.version + 1, retention }
  }
}

/**
 * A new generation, in which every VM starts where it is from this kept epoch, which is the committed one from now on. The
 * one that was stays, held by BEFORE_RESTORE, and so do all others; those that were committed after `epoch` do not count as
 * void. Nothing where the epoch is not kept, where there is no room for that hold, where the group is of another
 * generation by now, and where it rests (`rest.ts` has how it starts).
 */
export function goBackTo(generation: number, epoch: number) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed || current.resting || current.generation !== generation) return undefined
    const next = { ...current, version: current.version + 1, generation: generation + 1, open: null }
    if (current.committed?.epoch === epoch) return next
    const target = current.kept?.find(each => each.epoch === epoch)
    if (target === undefined || current.committed === null) return undefined
    const { epoch: left } = current.committed
    const holds = [
      ...(current.holds ?? []).filter(({ name }) => name !== BEFORE_RESTORE),
      { epoch: left, name: BEFORE_RESTORE }
    ]
    const kept = keptEpochs(current).filter(each => each.epoch !== epoch)
    return fitting({ ...next, committed: { ...target, previousEpoch: 0 }, kept, holds })
  }
}

const hasEpoch = (record: GroupRecord, epoch: number): boolean => keptEpochs(record).some(each => each.epoch === epoch)

/** Undefined where what is held by names would not fit the record, once something else is committed. */
function fitting(record: GroupRecord): GroupRecord | undefined {
  const kept = keepHeld.keep({ ...record, kept: keptEpochs(record) })
  const isTooMuch = recordTextBytes({ ...record, kept, held: undefined }) > MAX_RECORD_TEXT_BYTES
  return isTooMuch || (record.holds?.length ?? 0) > MAX_HOLDS ? undefined : record
}

/** A list that is empty has no word in the record: peers of an older version refuse words that they do not know. */
function having(record: GroupRecord, lists: Pick<GroupRecord, 'held' | 'holds' | 'kept'>): GroupRecord {
  const { held, holds, kept, ...rest } = { ...record, ...lists }
  const some = <Item>(list: readonly Item[] | undefined): list is readonly Item[] =>
    list !== undefined && list.length > 0
  return { ...rest, ...(some(held) && { held }), ...(some(kept) && { kept }), ...(some(holds) && { holds }) }
}
