/** The epochs of a group: all that peers remember, once, and then the newest again and again. */
import type { GroupHistory } from '../../edge/history-view.ts'
import { type EpochRow, joinEpochs, keyOf, rowOf } from '../model/epochs.ts'
import { get } from './http.ts'
import { type Read, useRead } from './resource.ts'

export interface History {
  readonly nowMs: number
  /** The oldest first. */
  readonly rows: readonly EpochRow[]
  readonly silent: number
}

/** As many epochs as a chart can tell from each other. */
const SHOWN_EPOCHS = 1_000
/** More than are taken between two looks. A guess. */
const NEWEST = 20
const EVERY_MS = 5_000
/** How long an epoch that is not among the newest may be shown as kept when it no longer is. A guess. */
const WHOLE_EVERY_MS = 120_000

const whole = new Map<string, { readonly atMs: number; readonly rows: readonly EpochRow[] }>()

export const useHistory = (group: string): Read<History> =>
  useRead<History>(`history/${group}`, EVERY_MS, () => load(group))

async function load(group: string): Promise<History> {
  const path = `/v1/groups/${encodeURIComponent(group)}/history`
  const known = whole.get(group)
  const newest = await get<GroupHistory>(`${path}?limit=${NEWEST}`)
  const { nowMs, silent } = newest
  const [first] = newest.epochs
  const joins = known?.rows.some(row => first !== undefined && row.key === keyOf(first)) === true
  if (known !== undefined && joins && Date.now() - known.atMs < WHOLE_EVERY_MS) {
    const rows = joinEpochs(known.rows, newest.epochs).slice(-SHOWN_EPOCHS)
    whole.set(group, { atMs: known.atMs, rows })
    return { nowMs, rows, silent: silent.length }
  }
  let rows: readonly EpochRow[] = newest.epochs.map(rowOf)
  let { more } = newest
  while (more && rows.length < SHOWN_EPOCHS && rows[0] !== undefined) {
    const older = await get<GroupHistory>(`${path}?before=${keyOf(rows[0])}`)
    if (older.epochs.length === 0) break
    rows = [...older.epochs.map(rowOf), ...rows]
    more = older.more
  }
  rows = rows.slice(-SHOWN_EPOCHS)
  whole.set(group, { atMs: Date.now(), rows })
  return { nowMs, rows, silent: silent.length }
}
