/**
 * `npm run sim -- [--seeds N] [--first SEED] [--json FILE]`: registers and leases under every fault, seed after seed.
 * Exit 1: a seed violated an invariant (it is printed, and replays exactly); 2: usage.
 */
import { parseArgs } from 'node:util'
import { UsageError, messageOf } from '../../node/errors.ts'
import { type Check, equal, exitCode, machineFacts, note, reportText, writeReport } from '../measure.ts'
import { type Outcome, runSeed } from './register-run.ts'

interface Options {
  readonly seeds: number
  readonly first: number
  readonly json: string | undefined
}

function readOptions(): Options {
  try {
    const text = { type: 'string' } as const
    const { values } = parseArgs({ options: { seeds: text, first: text, json: text } })
    const whole = (name: 'seeds' | 'first', usual: number): number => {
      const value = Number(values[name] ?? usual)
      if (!Number.isSafeInteger(value) || value < 1)
        throw new Error(`--${name} takes a whole number from 1, not ${JSON.stringify(values[name])}`)
      return value
    }
    return { seeds: whole('seeds', 200), first: whole('first', 1), json: values.json }
  } catch (cause) {
    throw new UsageError('SIM_USAGE', messageOf(cause), { cause })
  }
}

async function main(): Promise<number> {
  const { seeds, first, json } = readOptions()
  process.stderr.write(`  seeds ${first} to ${first + seeds - 1}\n`)
  const startedMs = performance.now()
  const outcomes: Outcome[] = []
  for (let seed = first; seed < first + seeds; seed++) {
    const outcome = await runSeed(seed)
    outcomes.push(outcome)
    if (outcome.violation !== null) process.stderr.write(`  seed ${seed}: ${outcome.violation}\n`)
    else if (outcomes.length % 100 === 0) process.stderr.write(`  ${outcomes.length} of ${seeds} seeds\n`)
  }
  const minutes = (performance.now() - startedMs) / 60_000
  const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const violated = outcomes.filter(outcome => outcome.violation !== null)
  const checks: Check[] = [
    equal('violations', violated.length, 0),
    equal('converged', outcomes.length - violated.length, seeds),
    note('seedsPerMinute', Math.round(seeds / minutes), '1/min'),
    note(
      'events',
      sum(outcome => outcome.events),
      ''
    ),
    note(
      'takeovers',
      sum(outcome => outcome.takeovers),
      ''
    ),
    note('slowestConvergenceMs', Math.max(...outcomes.map(outcome => outcome.convergedMs)), 'ms')
  ]
  const report = { name: 'sim', machine: await machineFacts(), checks, violations: violated, first, seeds }
  console.log(reportText(report, process.stdout.isTTY))
  if (json !== undefined) writeReport(json, report)
  return exitCode(report)
}

try {
  process.exitCode = await main()
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  console.error(`sim: ${error.message}`)
  process.exitCode = 2
}
