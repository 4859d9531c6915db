/** What became of a group's epochs, of what several peers have seen and what its record says: pure. */
import type { PeerId } from '../../protocols/core.ts'
import { keptEpochs } from '../../protocols/epoch/kept.ts'
import { mergeSeen, type SeenCut, type SeenEpoch, seenKey } from '../../protocols/epoch/history.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { newestThatFit } from '../../protocols/overview/fitting.ts'
import type { Heard } from '../../protocols/overview/shell.ts'
import type { EpochName, EpochPast, HistoryWish, VmPast } from '../edge/history-view.ts'

/** What one peer tells: its newest epochs before `wish.before`, as many as fit. */
export interface ToldHistory {
  readonly epochs: readonly SeenEpoch[]
  /** It has older ones. */
  readonly more: boolean
}

const PAGE_BYTES = 4_096

/** RAM is counted in pages. */
const inBytes = (pages: number): number => pages * PAGE_BYTES

export const byName = (a: EpochName, b: EpochName): number => a.generation - b.generation || a.epoch - b.epoch

export function toldHistory(seen: readonly SeenEpoch[], { before, limit }: HistoryWish): ToldHistory {
  const older = seen.filter(epoch => before === undefined || byName(epoch, before) < 0).sort(byName)
  const epochs = newestThatFit(older, limit)
  return { epochs, more: epochs.length < older.length }
}

/** Of all accounts; no further back than all that have more go. `record`: epochs that are kept count as seen. */
export function pastOf(
  record: GroupRecord,
  accounts: readonly Heard<ToldHistory>[],
  { before, limit }: HistoryWish
): { epochs: EpochPast[]; more: boolean } {
  const merged = mergeSeen(accounts.map(({ by, aheadMs, value }) => ({ by, epochs: inOurTime(value.epochs, aheadMs) })))
  const past = new Map<string, EpochPast>(merged.map(seen => [seenKey(seen), ofSeen(record, seen)]))
  for (const kept of keptEpochs(record)) {
    const { generation, epoch, wallMs } = kept
    if (past.has(seenKey(kept))) continue
    const seen = { generation, epoch, outcome: 'committed' as const, ...(wallMs !== undefined && { atMs: wallMs }) }
    past.set(seenKey(kept), { ...seen, ...standing(record, kept), vms: record.vms.map(({ id }) => ({ vm: id })) })
  }
  const floors = accounts.flatMap(({ value }) => (value.more ? (value.epochs[0] ?? []) : []))
  const floor = floors.toSorted(byName).at(-1)
  const all = [...past.values()]
    .filter(each => before === undefined || byName(each, before) < 0)
    .filter(each => floor === undefined || byName(each, floor) >= 0)
    .sort(byName)
  return { epochs: all.slice(-limit), more: floor !== undefined || all.length > limit }
}

const inOurTime = (epochs: readonly SeenEpoch[], aheadMs: number): SeenEpoch[] =>
  epochs.map(epoch => ({ ...epoch, openedAtMs: epoch.openedAtMs - aheadMs }))

function standing(
  { committed, holds = [], ...record }: GroupRecord,
  name: EpochName
): Pick<EpochPast, 'kept' | 'committed' | 'holds'> {
  const kept = keptEpochs({ committed, ...record }).some(each => byName(each, name) === 0)
  return {
    kept,
    committed: committed !== null && byName(committed, name) === 0,
    holds: kept ? holds.filter(({ epoch }) => epoch === name.epoch).map(hold => hold.name) : []
  }
}

function ofSeen(record: GroupRecord, seen: SeenEpoch & { readonly seenBy: readonly PeerId[] }): EpochPast {
  const { generation, epoch, outcome, reason, cause, openedAtMs, tookMs, skewMs, vms } = seen
  const isOpen = record.open?.epoch === epoch && record.generation === generation
  const stand = standing(record, seen)
  // Whoever was away while it was decided has it as open for ever.
  const now = stand.kept ? 'committed' : outcome === 'open' && !isOpen ? 'unknown' : outcome
  return {
    generation,
    epoch,
    outcome: now,
    ...(reason !== undefined && { why: reason }),
    ...(cause !== undefined && { cause: { policy: cause.policy, why: cause.why } }),
    atMs: openedAtMs,
    ...(tookMs !== undefined && { tookMs }),
    ...(skewMs !== undefined && { skewMs }),
    ...stand,
    vms: Object.entries(vms)
      .map(([vm, cut]) => vmPast(vm, cut))
      .sort((a, b) => (a.vm < b.vm ? -1 : 1))
  }
}

function vmPast(vm: string, { pauseMs, image }: SeenCut): VmPast {
  return {
    vm,
    ...(pauseMs !== undefined && { pauseMs }),
    ...(image !== undefined && {
      changedBytes: inBytes(image.pagesChanged),
      storedBytes: image.bytesStored,
      inFlight: image.inFlightFrames
    })
  }
}
