/** An epoch every so often, whatever the VMs do. */
import { dueEvery, type PolicyFor } from './policy.ts'
import { timeText } from './words.ts'

export const interval: PolicyFor<'interval'> = (history, now, { everyMs }) => ({
  atMs: dueEvery(history, now, everyMs),
  why: `every ${timeText(everyMs)}`
})
