/** What `npm run sim -- --scenario NAME` runs. */
import type { Check } from '../measure.ts'

/** Options on the command line with their usual values. A number stands for a whole number from 1, a text for any text. */
export type Options = Readonly<Record<string, number | string>>

export interface Result {
  readonly checks: readonly Check[]
  /** Printed above the checks, for people. */
  readonly text?: string
  /** Goes into the JSON report as it is. */
  readonly details: Readonly<Record<string, unknown>>
}

export interface Scenario<O extends Options = Options> {
  readonly name: string
  readonly options: O
  /** `values` has every option. */
  run(values: O): Promise<Result>
}

/** Says how far a long run is. */
export const progress = (text: string): void => void process.stderr.write(`  ${text}\n`)
