/**
 * How one peer asks the others what a person wants to see of the whole cluster (control channel, protocol "overview").
 *
 * | message | the receiver must |
 * |---|---|
 * | ask     | answer once with what it knows, from memory; beyond MAX_ANSWERS_PER_S of one asker drop those for reports, refuse the others as BUSY |
 * | answer  | take it for the question of that id, once |
 * | refusal | likewise: there is no answer, and `why` is for people |
 * | follow  | send the events that it keeps and those that come, for `forMs` from now; a later `follow` of the same peer takes its place |
 * | events  | take those that it does not have |
 *
 * What is asked for stands in an answer as JSON: so its size is known before it is parsed, and the asker checks it by the schema of
 * its question. Members of versions that do not know this protocol drop the questions, and count as silent; fields of newer
 * versions are passed over.
 */
import { z } from 'zod'
import { groupNameSchema } from '../../config/vm.ts'
import { MAX_AGO_MS } from '../decisions/merge.ts'

export const OVERVIEW_PROTOCOL = 'overview'

/** Of an answer's JSON: below the 256 KiB of a control message. */
export const MAX_ANSWER_BYTES = 192 * 1024
/** Of one message with events. A guess: 100 events of a failover, and nobody else's message waits long behind it. */
export const MAX_EVENTS_BYTES = 32 * 1024
/** Of one event's JSON; a longer one is not sent. A guess: the longest are some hundred bytes. */
export const MAX_EVENT_BYTES = 8 * 1024
export const MAX_EVENTS = 200
/** The longest time for which a peer may follow without saying so again. */
export const MAX_FOLLOW_MS = 60_000

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const wall = z.number().min(0).max(1e13)
const agoMs = z.number().min(0).max(MAX_AGO_MS)
const run = z.string().min(1).max(40)
/** JSON is shorter than this in characters, too. */
const json = z.string().max(MAX_ANSWER_BYTES)

const questionSchema = z.discriminatedUnion('of', [
  z.object({ of: z.literal('report') }),
  z.object({
    of: z.literal('history'),
    group: groupNameSchema,
    before: z.object({ generation: count, epoch: count }).optional(),
    limit: z.number().int().min(1).max(1_000)
  }),
  z.object({ of: z.literal('decisions'), agoMs, limit: z.number().int().min(1).max(2_000) })
])
export type OverviewQuestion = z.output<typeof questionSchema>
export type QuestionOf<Of extends OverviewQuestion['of']> = Extract<OverviewQuestion, { of: Of }>

const messageSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('ask'), id: count, question: questionSchema }),
  /** `nowMs`: the answerer's wall clock. */
  z.object({ kind: z.literal('answer'), id: count, nowMs: wall, json }),
  z.object({ kind: z.literal('refusal'), id: count, why: z.string().max(500) }),
  /** `have`: the last event of the receiver's `run` that the sender has; absent: none. */
  z.object({
    kind: z.literal('follow'),
    forMs: z.number().int().min(1).max(MAX_FOLLOW_MS),
    have: z.object({ run, seq: count }).optional()
  }),
  z.object({
    kind: z.literal('events'),
    /** A word for one life of the sender's process: numbers begin anew with it. */
    run,
    nowMs: wall,
    events: z.array(z.object({ seq: count, json: z.string().max(MAX_EVENT_BYTES) })).max(MAX_EVENTS)
  })
])
export type OverviewMessage = z.output<typeof messageSchema>
export type MessageOf<Kind extends OverviewMessage['kind']> = Extract<OverviewMessage, { kind: Kind }>

/** Throws on anything that is not a message within the limits. */
export const parseOverviewMessage = (raw: unknown): OverviewMessage => messageSchema.parse(raw)
