/**
 * From the entries that a bridge has to those that it is to have. Pure.
 *
 * No frame falls through on the way: an entry that stays with other instructions is replaced in one step; new ones come
 * from the last table to the first, so that where a frame is sent on to is there before it; entries go when all that is
 * new is there, from the first table to the last.
 */
import { flowAdd } from '../../../protocols/openflow/encode.ts'
import type { FlowEntry, Message } from '../../../protocols/openflow/messages.ts'
import { entryKey } from './plan.ts'

/** In the order in which they are to be sent. */
export function changesOf(present: readonly FlowEntry[], wanted: readonly FlowEntry[]): Message[] {
  const before = new Map(present.map(entry => [entryKey(entry), contentOf(entry)]))
  const after = new Set(wanted.map(entryKey))
  const added = wanted.filter(entry => before.get(entryKey(entry)) !== contentOf(entry))
  const removed = present.filter(entry => !after.has(entryKey(entry)))
  return [
    ...added.toSorted((a, b) => b.table - a.table).map(flowAdd),
    ...removed
      .toSorted((a, b) => a.table - b.table)
      .map(({ table, priority, match }): Message => ({ type: 'flowDelete', table, priority, match }))
  ]
}

/** Instructions are a set (5.9): a switch may name them in another order. */
function contentOf({ cookie, instructions }: FlowEntry): string {
  return [cookie, ...instructions.map(instruction => JSON.stringify(instruction)).toSorted()].join(' ')
}
