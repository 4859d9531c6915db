/**
 * When an epoch of a group is taken by itself: a policy and its settings, as it stands in a group's definition and in its
 * record. `node/planning/policies/` has what each of them does.
 */
import { Cron } from 'croner'
import { z } from 'zod'

const DAY_MS = 86_400_000
/** 100 ms: shorter than any epoch takes. */
const everyMs = z.number().int().min(100).max(DAY_MS)

/** Bounds of what a policy works out. A second: a guess, no shorter than an epoch takes. Ten minutes: a guess, what a VM that does nothing may lose. */
const bounds = { atLeastMs: everyMs.default(1_000), atMostMs: everyMs.default(600_000) }
const MAX_WINDOWS = 16
const MAX_SETTINGS = 32

const cron = z
  .string()
  .max(100)
  .describe('five fields of cron (minute, hour, day of month, month, day of week), such as "* 8-17 * * 1-5"')

const timeZone = z.string().max(60).describe('the name of a time zone, such as "UTC" or "Europe/Athens"')

const intervalSchema = z.strictObject({
  kind: z.literal('interval'),
  /** From the start of one epoch to that of the next. */
  everyMs
})

const deltaSizeSchema = z
  .strictObject({
    kind: z.literal('delta-size'),
    /** An epoch is due when so much has changed since the last one, all VMs of the group together, as fast as they changed lately. */
    mebibytes: z.number().min(0.1).max(1_048_576),
    ...bounds
  })
  .superRefine(ordered)

const adaptiveSchema = z
  .strictObject({
    kind: z.literal('adaptive'),
    /** Of their time the VMs may lose so much to epochs. 5: a guess, what people do not notice. */
    overheadPercent: z.number().min(0.1).max(50).default(5),
    /** And so much may be lost with a host at the worst. 30 s: a guess. Where both cannot be, the overhead is kept. */
    lossMs: everyMs.default(30_000),
    ...bounds
  })
  .superRefine(ordered)

/** What a pattern or a zone means depends on the version of whoever reads it: only people's wishes are looked at so closely. */
const windowsOf = (pattern: typeof cron, zone: typeof timeZone) =>
  z.strictObject({
    kind: z.literal('windows'),
    /** The first one whose minute it is counts. */
    windows: z
      .array(
        z.strictObject({
          cron: pattern,
          /** Within it. 0: none. */
          everyMs: z.union([z.literal(0), everyMs]).describe('a whole number from 100 to 86400000, or 0 for none')
        })
      )
      .min(1)
      .max(MAX_WINDOWS),
    /** At all other times. 0: none. */
    otherwiseMs: z
      .union([z.literal(0), everyMs])
      .describe('a whole number from 100 to 86400000, or 0 for none')
      .default(0),
    timeZone: zone.default('UTC')
  })
const windowsSchema = windowsOf(refined(cron, isCron), refined(timeZone, isTimeZone))

const ownSchema = z.strictObject({
  kind: z.literal('own'),
  /** A name under [policies] in the config of every member that may run the group's first VM. */
  name: z
    .string()
    .regex(/^[a-z0-9-]{1,40}$/)
    .describe('1 to 40 of the characters a-z, 0-9 and -'),
  settings: z
    .record(z.string().min(1).max(40), z.union([z.string().max(200), z.number(), z.boolean()]))
    .refine(settings => Object.keys(settings).length <= MAX_SETTINGS)
    .describe(`a table of at most ${MAX_SETTINGS} texts, numbers, true and false`)
    .default({})
})

const KINDS = 'a policy: a table with kind ("interval", "delta-size", "adaptive", "windows" or "own") and its settings'

export const policySchema = z
  .discriminatedUnion('kind', [intervalSchema, deltaSizeSchema, adaptiveSchema, windowsSchema, ownSchema])
  .describe(KINDS)

/** As it stands in a group's record, which every member must be able to read: a policy that fails has a stand-in. */
export const recordedPolicySchema = z
  .discriminatedUnion('kind', [intervalSchema, deltaSizeSchema, adaptiveSchema, windowsOf(cron, timeZone), ownSchema])
  .describe(KINDS)

export type EpochPolicy = z.output<typeof policySchema>
export type PolicyKind = EpochPolicy['kind']
export type PolicyOf<K extends PolicyKind> = Extract<EpochPolicy, { kind: K }>

function ordered(
  { atLeastMs, atMostMs }: { readonly atLeastMs: number; readonly atMostMs: number },
  context: z.RefinementCtx
): void {
  if (atLeastMs <= atMostMs) return
  const message = `a whole number from atLeastMs (${atLeastMs}) on`
  context.addIssue({ code: 'custom', path: ['atMostMs'], message, params: { says: true } })
}

/** With its description. */
function refined(schema: z.ZodString, is: (text: string) => boolean): z.ZodString {
  return schema.refine(is).describe(schema.description ?? '')
}

function isCron(text: string): boolean {
  if (text.trim().split(/\s+/).length !== 5) return false
  try {
    return new Cron(text, { timezone: 'UTC' }).nextRun(new Date(0)) !== null
  } catch {
    return false
  }
}

function isTimeZone(text: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: text }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
