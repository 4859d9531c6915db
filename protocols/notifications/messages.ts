/**
 * What peers say to each other so that each thing is told to people once (control channel, protocol "notifications").
 *
 * | message | the receiver must |
 * |---|---|
 * | hello   | know from now on which targets its sender can tell, and what it knows to be told: told at every connection |
 * | notice  | hold the notice for the targets that it can tell itself, and tell it when it is its turn and nobody has |
 * | claim   | leave these to the sender until it says what became of them, is dead, or CLAIM_MS have passed |
 * | told    | forget these, and remember that they were told |
 * | gave-up | tell these itself when it is its turn among those who have not tried |
 *
 * Hints: a lost one may have a thing told twice, never not at all. Members of older versions drop them, and tell nothing.
 */
import { z } from 'zod'
import { noticeKinds } from '../../config/notices.ts'
import { nameSchema } from '../../config/schema.ts'

export const NOTIFICATIONS_PROTOCOL = 'notifications'

/** Of a notice, and of what a message lists. With MAX_TEXT a message has at most a third of the 256 KiB of a control message. */
export const MAX_TEXT = 1_000
export const MAX_KEY = 300
export const MAX_LISTED = 200

const keySchema = z.string().min(1).max(MAX_KEY)
const stateSchema = z.enum(['once', 'begun', 'ended'])
/** `once`: it happened; `begun` and `ended`: a state that lasts. */
export type NoticeState = z.output<typeof stateSchema>

const noticeSchema = z.strictObject({
  /** The same at all peers that see the same thing, as "failover/shop/7": who is told twice knows it by that. */
  key: keySchema,
  kind: z.enum(noticeKinds),
  state: stateSchema,
  /** For people: what happened, to what, and what to do where they can do anything. */
  text: z.string().min(1).max(MAX_TEXT),
  /** Wall clock of whoever saw it. */
  atMs: z.number().min(0).max(1e13),
  group: z.string().max(80).optional(),
  vm: z.string().max(80).optional(),
  /** A member's name. */
  member: z.string().max(80).optional()
})
export type Notice = z.output<typeof noticeSchema>

const markSchema = z.strictObject({ key: keySchema, state: stateSchema })
/** A notice by its name: what was told, or is being. */
export type Mark = z.output<typeof markSchema>

const marks = z.array(markSchema).max(MAX_LISTED)

const messageSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('hello'),
    targets: z.array(z.strictObject({ name: nameSchema, on: z.array(z.enum(noticeKinds)) })).max(8),
    /** The newest. */
    told: z.array(z.strictObject({ target: nameSchema, key: keySchema, state: stateSchema })).max(MAX_LISTED)
  }),
  z.strictObject({ kind: z.literal('notice'), notice: noticeSchema }),
  z.strictObject({ kind: z.literal('claim'), target: nameSchema, marks }),
  z.strictObject({ kind: z.literal('told'), target: nameSchema, marks }),
  z.strictObject({ kind: z.literal('gave-up'), target: nameSchema, marks })
])
export type NotificationMessage = z.output<typeof messageSchema>

/** Throws on anything that is not a message within the limits. */
export const parseNotificationMessage = (raw: unknown): NotificationMessage => messageSchema.parse(raw)
