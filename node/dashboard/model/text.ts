/** Numbers, times and sizes as the page shows them. Pure. */

/** '412 ms', '4.2 s', '3 min 20 s', '2 h 5 min', '3 d 4 h'. */
export function durationOf(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`
  const seconds = ms / 1_000
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const whole = Math.floor(seconds)
  const [days, hours, minutes] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3_600) % 24,
    Math.floor(whole / 60) % 60
  ]
  if (days > 0) return `${days} d ${hours} h`
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`
}

/** As `durationOf`, but it does not flicker while a second passes: 'now', '4 s', '3 min', '5 h', '12 d'. */
export function ageOf(ms: number): string {
  const seconds = Math.floor(Math.max(0, ms) / 1_000)
  if (seconds < 1) return 'now'
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`
  return seconds < 86_400 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} d`
}

/** Of what has happened since a moment, by how long ago that is: 'in the last 4 s'. Where nobody knows, or clocks differ: 'since'. */
export function sinceOf(ms: number | undefined): string {
  if (ms === undefined || ms < 0) return 'since'
  const age = ageOf(ms)
  return `in the last ${age === 'now' ? 'second' : age}`
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** '912 B', '1.4 GiB'. */
export function bytesOf(bytes: number): string {
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  const value = bytes / 1024 ** power
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}

export const memoryOf = (mebibytes: number): string => bytesOf(mebibytes * 1_048_576)

/** 'a, b and c'. */
export function listOf(words: readonly string[]): string {
  const last = words.at(-1) ?? ''
  return words.length < 2 ? last : `${words.slice(0, -1).join(', ')} and ${last}`
}

export const countOf = (count: number, word: string): string =>
  `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`

const two = '2-digit' as const
// Sweden writes dates and times as ISO 8601 does.
const clock = new Intl.DateTimeFormat('sv-SE', { hour: two, minute: two, second: two })
const exact = new Intl.DateTimeFormat('sv-SE', { hour: two, minute: two, second: two, fractionalSecondDigits: 3 })
const full = new Intl.DateTimeFormat('sv-SE', { dateStyle: 'short', timeStyle: 'medium' })

/** '12:04:31', of the reader's own time zone. */
export const clockOf = (atMs: number): string => clock.format(atMs)
/** '12:04:31.214'. */
export const exactOf = (atMs: number): string => exact.format(atMs).replace(',', '.')
/** '2026-11-22 12:04:31'. */
export const momentOf = (atMs: number): string => full.format(atMs)

/** Without what goes without saying: '12:04:31' of today, '11-21 12:04:31' before. */
export const shortMomentOf = (atMs: number, nowMs: number): string =>
  momentOf(atMs).slice(0, 10) === momentOf(nowMs).slice(0, 10) ? clockOf(atMs) : momentOf(atMs).slice(5)

/** A member that is a member no more is told by the end of its id. */
export const shortId = (id: string): string => (id.length > 12 ? `…${id.slice(-6)}` : id)
