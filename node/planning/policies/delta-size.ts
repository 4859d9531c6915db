/**
 * An epoch when so much has changed. How much has is not asked of the VMs, which would have to look through their pages; it
 * follows from how much changed between the last epochs, and each epoch corrects that: pages that are written again count
 * once an epoch, so what changes in a longer interval is less than in proportion, and the interval grows to fit from below.
 */
import { costsOf, quantile } from './measures.ts'
import { dueEvery, endMs, type PolicyFor } from './policy.ts'
import { mebibytesText, timeText } from './words.ts'

/** One burst, or one quiet interval, is no news; two of three are. A guess. */
const LAST = 3
/** The next interval is at most so much longer than the last ones: a VM that did nothing may begin to. A guess. */
const GROWTH = 2

export const deltaSize: PolicyFor<'delta-size'> = (history, now, { mebibytes, atLeastMs, atMostMs }) => {
  const within = (ms: number): number => Math.min(Math.max(ms, atLeastMs), atMostMs)
  const last = costsOf(history).slice(-LAST)
  if (last.length === 0) {
    return { atMs: dueEvery(history, now, atLeastMs), why: 'how much changes is not known yet' }
  }
  const bytes = mebibytes * (1 << 20)
  const usualMs = quantile(
    last.map(({ intervalMs }) => intervalMs),
    1 / 2
  )
  const rate = quantile(
    last.map(({ changedBytes, intervalMs }) => changedBytes / intervalMs),
    1 / 2
  )
  const everyMs = within(Math.min(rate === 0 ? atMostMs : bytes / rate, GROWTH * usualMs))
  const why = `${mebibytesText(rate * 1_000)} change each second: ${mebibytesText(rate * everyMs)} in ${timeText(everyMs)}`
  return { atMs: Math.max(dueEvery(history, now, everyMs), endMs(history)), why }
}
