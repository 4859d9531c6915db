/**
 * Another interval at other times: epochs every 10 s in business hours, every 10 minutes at night. A window is the minutes that
 * its cron expression names; in each minute the first window that has it counts.
 */
import { Cron } from 'croner'
import type { PolicyOf } from '../../../config/policy.ts'
import { baseMs, endMs, type PolicyFor } from './policy.ts'
import { timeText } from './words.ts'

const MINUTE_MS = 60_000
/** How far it looks ahead. A day: as far as an interval may reach. */
const MINUTES = 1_440

export const windows: PolicyFor<'windows'> = (history, now, settings) => {
  const everyAt = intervalsOf(settings)
  const base = baseMs(history, now)
  let atMs = Math.max(now.nowMs, endMs(history))
  for (let minutes = 0; minutes <= MINUTES; minutes++) {
    const { everyMs, name } = everyAt(atMs)
    const minuteEndMs = (Math.floor(atMs / MINUTE_MS) + 1) * MINUTE_MS
    const dueMs = Math.max(atMs, base + everyMs)
    if (everyMs > 0 && dueMs < minuteEndMs) return { atMs: dueMs, why: `every ${timeText(everyMs)} ${name}` }
    atMs = minuteEndMs
  }
  return undefined
}

/** Which interval holds at a moment; 0: none. */
export function intervalsOf({ windows: all, otherwiseMs, timeZone }: PolicyOf<'windows'>) {
  const crons = all.map(({ cron, everyMs }) => ({
    cron: new Cron(cron, { timezone: timeZone }),
    everyMs,
    name: `in "${cron}"`
  }))
  return (atMs: number): { readonly everyMs: number; readonly name: string } => {
    const minute = new Date(Math.floor(atMs / MINUTE_MS) * MINUTE_MS)
    return crons.find(({ cron }) => cron.match(minute)) ?? { everyMs: otherwiseMs, name: 'outside of all windows' }
  }
}
