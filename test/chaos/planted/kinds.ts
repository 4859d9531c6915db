/** What was promised, by name, and which of it a run says is broken. Pure. */
import { CONNECTIONS_BROKE } from '../promises.ts'

/**
 * Codes of what `restore` of an epoch that is held says where the group, the epoch or one of its manifests is gone or not what it was.
 * What else can keep a run from going back (a peer that does not answer, a group that changes meanwhile, hosts that do not see each
 * other) says nothing of what is stored.
 */
const LOST = ['GROUP_UNKNOWN', 'EPOCH_NOT_KEPT', 'MANIFEST_MISSING', 'MANIFEST_INVALID']

/**
 * `Outcome.broken` says what it looked at before what it found; the first pattern that fits counts. What was waited for in vain is of no
 * promise but that it comes: a machine that is too busy breaks that, too. Two such are said to be looked for: columns that nobody
 * rebuilds, and connections that have nothing to say to each other any more while their VMs speak.
 */
const KINDS = [
  ['one copy', /^one copy of /],
  ['heard', /^every VM is heard/],
  ['one hypervisor', /^one hypervisor of /],
  ['money', new RegExp(`^(money is conserved|epoch \\d+ is restored whole)|${CONNECTIONS_BROKE}`)],
  ['epochs', new RegExp(`^(committed epochs|going back: .*\\[(${LOST.join('|')})\\]$)`, 's')],
  ['redundancy', /^(redundancy: |what is stored was read)/],
  // Late is another thing than never: a busy machine is late.
  ['in time', /^(all VMs work again|redundancy is full)/],
  ['running', /^(coming back|what was promised|going back)/],
  ['bounds', /^(p\d+: |what no kept epoch needs)/]
] as const

export type PromiseName = (typeof KINDS)[number][0] | 'other'

export const kindOf = (broken: string): PromiseName => KINDS.find(([, pattern]) => pattern.test(broken))?.[0] ?? 'other'

/** Said of what was waited for, and of how late a peer was. */
const LATE = /waited \d+ s in vain|^p\d+: (delay of the event loop|answer)/

/** A machine that is too busy breaks that as well, with nothing wrong. */
export const mayBeBusy = (broken: string): boolean =>
  ['running', 'in time'].includes(kindOf(broken)) || LATE.test(broken)

/** Each once, in the order in which they broke. */
export const kindsOf = (broken: readonly string[]): PromiseName[] => [...new Set(broken.map(kindOf))]
