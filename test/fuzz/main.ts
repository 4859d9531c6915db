/**
 * `npm run fuzz -- [--target NAME] [--runs N | --minutes N] [--seed N] [--json FILE]`: mutated inputs to every parser of
 * foreign bytes. `--number N` runs one input again, `--input FILE` a file's bytes. `--grow` looks for inputs that reach more of each
 * parser, and keeps them in `corpus/`. Exit 1: a finding; 2: usage.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { table } from '../../node/edge/format.ts'
import { UsageError, messageOf } from '../../node/errors.ts'
import { exitCode, machineFacts, reportText, writeReport } from '../measure.ts'
import { fuzz } from './fuzz.ts'
import { growAll } from './grow-all.ts'
import { targets } from './targets.ts'

/** Half a minute on two cores. */
const RUNS = 100_000
/** With `--grow`, all targets together. A guess: most of what is found is found in the first seconds. */
const GROW_MINUTES = 10
/** Thousands of times what an input takes; the machine may be busy. A guess. */
const HANG_MS = 10_000

const text = { type: 'string' } as const
const OPTIONS = {
  target: text,
  runs: text,
  minutes: text,
  seed: text,
  number: text,
  input: text,
  json: text,
  grow: { type: 'boolean' }
} as const

function readArguments() {
  try {
    const { values } = parseArgs({ options: OPTIONS })
    const { target, runs, minutes, input } = values
    if (runs !== undefined && minutes !== undefined) throw new Error('either --runs or --minutes')
    const chosen = target === undefined ? targets : targets.filter(({ name, group }) => [name, group].includes(target))
    if (chosen.length === 0) throw new Error(`there is no target ${JSON.stringify(target)}; there are:\n${usage()}`)
    return {
      targets: chosen,
      until: minutes === undefined ? { runs: number('runs', runs, 1) ?? RUNS } : { minutes: positive(minutes) },
      seed: number('seed', values.seed, 0) ?? 1,
      number: number('number', values.number, 0),
      input: input === undefined ? undefined : new Uint8Array(readFileSync(input)),
      json: values.json,
      grow: values.grow === true
    }
  } catch (cause) {
    throw new UsageError('FUZZ_USAGE', messageOf(cause), { cause })
  }
}

function number(name: string, value: string | undefined, least: number): number | undefined {
  if (value === undefined) return undefined
  const read = Number(value)
  if (Number.isSafeInteger(read) && read >= least && value !== '') return read
  throw new Error(`--${name} takes a whole number from ${least}, not ${JSON.stringify(value)}`)
}

function positive(value: string): number {
  const read = Number(value)
  if (read > 0 && read < Infinity) return read
  throw new Error(`--minutes takes a number above 0, not ${JSON.stringify(value)}`)
}

const usage = (): string => table(targets.map(({ name, group, summary }) => [name, group, summary])).join('\n')

async function main(): Promise<number> {
  const { json, grow, ...chosen } = readArguments()
  if (grow) {
    const minutes = 'minutes' in chosen.until ? chosen.until.minutes : GROW_MINUTES
    const lines = await growAll(chosen.targets, { seed: chosen.seed, ms: (minutes * 60_000) / chosen.targets.length })
    console.log(lines.join('\n'))
    return 0
  }
  const {
    checks,
    text: lines,
    details
  } = await fuzz({
    ...chosen,
    module: new URL('./targets.ts', import.meta.url).href,
    out: join(import.meta.dirname, '../../.build/fuzz'),
    hangMs: HANG_MS,
    progress: line => process.stderr.write(`  ${line}\n`)
  })
  const report = { name: 'fuzz', machine: await machineFacts(), checks, ...details }
  console.log([...lines, '', reportText(report, process.stdout.isTTY)].join('\n'))
  if (json !== undefined) writeReport(json, report)
  return exitCode(report)
}

try {
  process.exitCode = await main()
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  console.error(`fuzz: ${error.message}`)
  process.exitCode = 2
}
