/** One seed as the list of its events, which ends with the violation, if there is one. */
import { UsageError } from '../../node/errors.ts'
import { equal } from '../measure.ts'
import type { Kernel } from './kernel.ts'
import type { Result } from './scenario.ts'

/** `replay`: the seed. `from`, `to`: milliseconds of its own time; empty for all. */
export interface ReplayOptions {
  readonly replay: string
  readonly from: string
  readonly to: string
}

export async function replaySeed(
  options: ReplayOptions,
  run: (seed: number, listener: Kernel['listener']) => Promise<{ readonly violation: string | null }>
): Promise<Result> {
  const fromMs = numberOf('from', options.from, 0)
  const toMs = numberOf('to', options.to, Number.POSITIVE_INFINITY)
  const events: { readonly atMs: number; readonly what: string }[] = []
  const outcome = await run(numberOf('replay', options.replay, 1), (atMs, what) => {
    if (atMs >= fromMs && atMs <= toMs) events.push({ atMs, what })
  })
  const lines = events.map(({ atMs, what }) => `${atMs.toFixed(3).padStart(10)}  ${what}`)
  return {
    checks: [equal('violation', outcome.violation ?? 'none', 'none')],
    text: lines.join('\n'),
    details: { outcome, events }
  }
}

function numberOf(option: string, text: string, usual: number): number {
  const number = text === '' ? usual : Number(text)
  if (!(number >= 0))
    throw new UsageError('SIM_USAGE', `--${option} takes a number from 0, not ${JSON.stringify(text)}`)
  return number
}
