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
export function intervalsOf(settings: PolicyOf<'windows'>) {
  const read = readings.get(settings) ?? readingOf(settings)
  readings.set(settings, read)
  return (atMs: number): Interval => {
    const quarter = Math.floor(atMs / QUARTER_MS)
    const { minute, open } = quarterOf(read, quarter)
    const at = minute + Math.floor((atMs - quarter * QUARTER_MS) / MINUTE_MS)
    return open.find(({ minutes }) => minutes[at] === true) ?? read.otherwise
  }
}

interface Interval {
  readonly everyMs: number
  readonly name: string
}

interface Window extends Interval {
  /** Of an hour. */
  readonly minutes: readonly boolean[]
  /** The expression without its minutes, by a calendar that is UTC's. */
  readonly hours: Cron
}

/** A quarter of an hour: the minute of the hour that it begins with, and the windows that have some of this hour's minutes. */
interface Quarter {
  readonly minute: number
  readonly open: readonly Window[]
}

interface Reading {
  readonly windows: readonly Window[]
  readonly otherwise: Interval
  readonly local: Intl.DateTimeFormat
  readonly quarters: Map<number, Quarter>
}

/**
 * An expression is read for a quarter of an hour, and not for each minute, and once: a minute of sixteen windows by the library is
 * 0.1 ms, and a look ahead has 1,440 of them. No zone of today is off UTC by other than quarters, or changes within one.
 */
const QUARTER_MS = 15 * MINUTE_MS
/** Of one policy: ten days. A guess, so that a simulation of a long past does not keep all of it. */
const MAX_QUARTERS = 960
const readings = new WeakMap<PolicyOf<'windows'>, Reading>()

function readingOf({ windows: all, otherwiseMs, timeZone }: PolicyOf<'windows'>): Reading {
  const windows = all.map(({ cron, everyMs }) => {
    const [minute = '', ...rest] = cron.trim().split(/\s+/)
    const inHour = new Cron(`${minute} * * * *`, { utcOffset: 0 })
    const minutes = Array.from({ length: 60 }, (_, at) => inHour.match(new Date(at * MINUTE_MS)))
    return { hours: new Cron(['*', ...rest].join(' '), { utcOffset: 0 }), minutes, everyMs, name: `in "${cron}"` }
  })
  const otherwise = { everyMs: otherwiseMs, name: 'outside of all windows' }
  const fields = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric' } as const
  const local = new Intl.DateTimeFormat('en', { timeZone, calendar: 'gregory', hourCycle: 'h23', ...fields })
  return { windows, otherwise, local, quarters: new Map() }
}

function quarterOf({ windows: all, local, quarters }: Reading, which: number): Quarter {
  const known = quarters.get(which)
  if (known !== undefined) return known
  const parts = local.formatToParts(which * QUARTER_MS)
  const part = (type: Intl.DateTimeFormatPartTypes): number => Number(parts.find(each => each.type === type)?.value)
  const minute = part('minute')
  const wall = new Date(Date.UTC(part('year'), part('month') - 1, part('day'), part('hour'), minute))
  const quarter = { minute, open: all.filter(({ hours }) => hours.match(wall)) }
  if (quarters.size >= MAX_QUARTERS) quarters.clear()
  quarters.set(which, quarter)
  return quarter
}
