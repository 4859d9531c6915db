/** Whom people are told by when something happened: `[[notifications]]` of a config. */
import { z } from 'zod'
import { pathSetting } from './paths.ts'

/** What people can be told of; `protocols/notifications/README.md` says of each when it begins and ends. */
export const noticeKinds = [
  'failover',
  'rollback',
  'no-host',
  'epoch-failed',
  'low-redundancy',
  'damage',
  'drill-failed',
  'objective-missed',
  'member-dead',
  'no-majority',
  'home-failed'
] as const
export type NoticeKind = (typeof noticeKinds)[number]

const file = pathSetting()

/**
 * One target. What has the same name at several peers is one target: one of them tells it, whichever is there. Exactly one of
 * `webhook`, `webhookFile` and `command`.
 */
export const targetSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9-]{1,40}$/)
    .describe('1 to 40 of the characters a-z, 0-9 and -'),
  on: z
    .array(z.enum(noticeKinds))
    .min(1)
    .default([...noticeKinds]),
  /** Is sent a POST with JSON. */
  webhook: z
    .string()
    .regex(/^https?:\/\/[^\s/]{1,300}(\/\S{0,3000})?$/)
    .refine(text => URL.canParse(text))
    .describe('an http or https URL')
    .optional(),
  /** Has such a URL in it, where who knows it may use it. Only its owner may read it; it is read each time. */
  webhookFile: file.optional(),
  /** Its token is sent as `Authorization: Bearer`. As `webhookFile`. */
  tokenFile: file.optional(),
  /** Its key signs the body (HMAC-SHA-256, `Diapause-Signature: sha256=HEX`). As `webhookFile`. */
  signingKeyFile: file.optional(),
  /** For sh -c, as the peer's user: JSON on its standard input, the text in DIAPAUSE_TEXT. */
  command: z.string().min(1).max(4096).describe('a command for sh -c').optional(),
  /** A try that has taken so long has failed. 10 s: the timeout of PagerDuty's and GitHub's webhooks. */
  timeoutMs: z.number().int().min(100).max(30_000).default(10_000),
  /**
   * Messages an hour by one peer; what comes above them waits and is told in one. 60: one a minute, a guess, what a person can
   * look at.
   */
  perHour: z.number().int().min(1).max(3_600).default(60)
})
export type NotificationTarget = z.output<typeof targetSchema>

/** More is a service that forwards. A guess. */
export const notificationsSchema = z.array(targetSchema).max(8).default([])
