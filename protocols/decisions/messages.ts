/**
 * How one peer asks another for what it noted about a VM (control channel, protocol "decisions"). Both answer from
 * memory; neither waits for anything.
 *
 * | message | the receiver must |
 * |---|---|
 * | ask     | answer with its entries about the VM, its group and the members that owned VMs of the group; the newest if they are too many |
 * | answer  | take it for the question of that id, once |
 */
import { z } from 'zod'
import { groupNameSchema } from '../../config/vm.ts'
import { type Entry, entrySchema } from './facts.ts'
import { MAX_AGO_MS } from './merge.ts'

export const DECISIONS_PROTOCOL = 'decisions'

/** Of an answer's entries, as JSON: below the 256 KiB of a control message, and MessagePack is shorter than JSON. */
export const MAX_ANSWER_BYTES = 192 * 1024
/** A group's, a VM's and some members' subjects, each full. */
export const MAX_ANSWER_ENTRIES = 2_000

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const agoMs = z.number().min(0).max(MAX_AGO_MS)
const wall = z.number().min(0).max(1e13)

export const decisionsMessageSchema = z.discriminatedUnion('kind', [
  /** `agoMs`: how far back; a duration, since clocks of hosts differ. */
  z.strictObject({ kind: z.literal('ask'), id: count, group: groupNameSchema, vm: groupNameSchema, agoMs }),
  z.strictObject({
    kind: z.literal('answer'),
    id: count,
    /** The answerer's wall clock now. */
    nowMs: wall,
    entries: z.array(entrySchema).max(MAX_ANSWER_ENTRIES),
    /** Older entries that did not fit. */
    left: count
  })
])
export type DecisionsMessage = z.output<typeof decisionsMessageSchema>

/** Throws on anything that is not a message within the limits. */
export const parseDecisionsMessage = (raw: unknown): DecisionsMessage => decisionsMessageSchema.parse(raw)

/** The newest entries that fit an answer, in order, and how many older ones do not. */
export function fitting(entries: readonly Entry[]): { entries: Entry[]; left: number } {
  let bytes = 0
  let first = entries.length
  while (first > 0 && entries.length - first < MAX_ANSWER_ENTRIES) {
    bytes += JSON.stringify(entries[first - 1]).length + 1
    if (bytes > MAX_ANSWER_BYTES) break
    first -= 1
  }
  return { entries: entries.slice(first), left: first }
}
