/**
 * The changes of a group's record about drills, each a pure function as in `record.ts`. Of all peers the group's keeper
 * (`protocols/keeper.ts`) runs those of the schedule; it says so in the record before it begins, and what became of it afterwards.
 */
import type { DrillOutcome, DrillSchedule, GroupDrills, GroupRecord } from '../group.ts'
import { MAX_DRILL_WORDS } from './messages.ts'

/** Who begins one as soon as there is an epoch must not do so in a hurry of restarts. A guess. */
const SETTLE_MS = 10_000

/** Undefined: on request only. When the last one was begun stays known, so that a change of the rest brings no drill. */
export function scheduleDrills(wish: Pick<DrillSchedule, 'everyMs' | 'timeoutMs' | 'check'> | undefined) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed) return undefined
    const { schedule: before, last } = current.drills ?? {}
    const { begunMs, runs } = before ?? {}
    const schedule = wish && {
      everyMs: wish.everyMs,
      timeoutMs: wish.timeoutMs,
      ...(wish.check !== undefined && { check: wish.check }),
      ...(begunMs !== undefined && { begunMs }),
      ...(runs !== undefined && { runs })
    }
    if (JSON.stringify(schedule) === JSON.stringify(before)) return undefined
    return having(current, { schedule, last })
  }
}

/** How long until the next one of the schedule; undefined: none is to come. A clock that was set back delays none for longer. */
export function drillDueInMs({ drills, committed, removed }: GroupRecord, nowMs: number): number | undefined {
  const schedule = drills?.schedule
  if (schedule === undefined || committed === null || removed) return undefined
  const { everyMs, begunMs } = schedule
  return begunMs === undefined ? SETTLE_MS : Math.min(everyMs, Math.max(0, begunMs + everyMs - nowMs))
}

/**
 * `by` runs one of the schedule from now on. Nothing where none is wanted, and where somebody has begun one since `begunMs`: so of two
 * who take themselves for the keeper one does. Nor where `by` is not the keeper, as it sees it.
 */
export function beginDrill(
  by: string,
  nowMs: number,
  begunMs: number | undefined,
  keeps: (record: GroupRecord) => boolean
) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    const schedule = current?.drills?.schedule
    if (current === null || current.removed || schedule === undefined || schedule.begunMs !== begunMs) return undefined
    if (!keeps(current)) return undefined
    return having(current, { ...current.drills, schedule: { ...schedule, begunMs: nowMs, runs: by } })
  }
}

/**
 * What became of a drill. `by`: it was one of the schedule; nothing where that is not what the record says any more. One by hand counts
 * as much, but that an older epoch passes is no news where a newer one has failed: the group would not go back to the older one.
 */
export function endDrill(outcome: DrillOutcome, by?: string) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed) return undefined
    const { failed, ...rest } = outcome
    const last = { ...rest, ...(failed !== undefined && { failed: failed.slice(0, MAX_DRILL_WORDS) }) }
    const schedule = current.drills?.schedule
    if (by === undefined) {
      if (isBehind(last, current)) return undefined
      const isThere = JSON.stringify(current.drills?.last) === JSON.stringify(last)
      return isThere ? undefined : having(current, { schedule, last })
    }
    if (schedule?.runs !== by) return undefined
    const { runs: _, ...idle } = schedule
    return having(current, { schedule: idle, last })
  }
}

function isBehind({ epoch, failed }: DrillOutcome, { drills, committed }: GroupRecord): boolean {
  const before = drills?.last
  return failed === undefined && before?.failed !== undefined && epoch < before.epoch && epoch !== committed?.epoch
}

/** One of the schedule, run by `by`, made way before it told anything: as if it had not begun. `begunMs`: of the one before it. */
export function withdrawDrill(by: string, begunMs: number | undefined) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    const { schedule, last } = current?.drills ?? {}
    if (current === null || current.removed || schedule?.runs !== by) return undefined
    const { runs: _, begunMs: __, ...idle } = schedule
    return having(current, { schedule: { ...idle, ...(begunMs !== undefined && { begunMs }) }, last })
  }
}

/** What is not there has no word in the record: peers of an older version refuse words that they do not know. */
function having(record: GroupRecord, { schedule, last }: GroupDrills): GroupRecord {
  const { drills: _, ...rest } = record
  const drills = { ...(schedule && { schedule }), ...(last && { last }) }
  return { ...rest, version: record.version + 1, ...(Object.keys(drills).length > 0 && { drills }) }
}
