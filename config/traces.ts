/** Where traces go: `[traces]` of a config. */
import { z } from 'zod'
import { pathSetting } from './paths.ts'

export const tracesSchema = z.strictObject({
  /** An OpenTelemetry collector's address for OTLP over HTTP, as JSON. */
  endpoint: z
    .string()
    .regex(/^https?:\/\/[A-Za-z0-9._\-:[\]]{1,300}(\/\S{0,1000})?$/)
    .refine(text => URL.canParse(text))
    .describe('an http or https URL, as "http://localhost:4318/v1/traces"'),
  /** Its token is sent as `Authorization: Bearer`. Only its owner may read it; it is read each time. */
  tokenFile: pathSetting().optional(),
  /** Which part of all epochs and restores is told, the same ones by all peers. 1: all; they are few. */
  ratio: z.number().min(0).max(1).default(1)
})
export type TraceSettings = z.output<typeof tracesSchema>
