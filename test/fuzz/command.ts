/**
 * `npm run fuzz -- [--target NAME] [--runs N | --minutes N] [--seed N] [--json FILE]`: mutated inputs to every parser of
 * foreign bytes. `--minutes` gives half of its time to growing: inputs that reach more of each parser are mutated again, in memory.
 * `--number N` runs one input again, `--input FILE` a file's bytes. `--grow` only grows, and keeps in `corpus/` what it took.
 * Exit 1: a finding, or a target that the time was too short for; 2: usage.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { table } from '../../node/edge/format.ts'
import { UsageError, messageOf } from '../../node/errors.ts'
import { type Check, equal, exitCode, machineFacts, note, reportText, writeReport } from '../measure.ts'
import { findingChecks } from './findings.ts'
import { fuzz } from './fuzz.ts'
import { growAll, type GrowAllOptions, type GrownAll } from './grow-all.ts'
import type { Target } from './target.ts'

/** Half a minute on two cores. */
const RUNS = 100_000
/** With `--grow`, all targets together. A guess: most of what is found is found in the first seconds. */
const GROW_MINUTES = 10
/**
 * Of the time of `--minutes`. A guess: growing reaches blocks that mutated seeds do not, but its looks at what has run cost time, and
 * numbered inputs see more choices beside each input.
 */
const GROW_SHARE = 0.5

export interface Place {
  readonly targets: readonly Target[]
  /** URL of a module that exports them. */
  readonly module: string
  /** Folder for inputs that fail. */
  readonly out: string
  readonly hangMs: number
  /** What `--grow` keeps. */
  write(name: string, inputs: readonly Uint8Array[]): void
  print(text: string): void
  progress(line: string): void
}

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

/** The exit code. UsageError FUZZ_USAGE. */
export async function command(words: readonly string[], place: Place): Promise<number> {
  const { json, grow, minutes, runs, ...chosen } = readWords(words, place.targets)
  const { write, print, ...where } = place
  const growing = (share: number, rest: Partial<GrowAllOptions> = {}): Promise<GrownAll> =>
    growAll({ ...where, targets: chosen.targets, seed: chosen.seed, minutes: share, ...rest })
  const tell = async ({ lines, ...report }: Told): Promise<number> => {
    const told = { name: 'fuzz', machine: await machineFacts(), ...report }
    print([...lines, '', reportText(told, process.stdout.isTTY)].join('\n'))
    if (json !== undefined) writeReport(json, told)
    return exitCode(told)
  }
  if (grow) {
    const { growth, findings, text: lines } = await growing(minutes ?? GROW_MINUTES, { write })
    // Of these nothing is known: the time was too short.
    const without = chosen.targets.filter(({ name }) => growth[name] === undefined).length
    const unknown = equal('targets that were not grown', without, 0)
    const checks = [...findingChecks(chosen.targets, findings), unknown, ...notesOf(growth)]
    return await tell({ lines, checks, seed: chosen.seed, growth, findings })
  }
  const one = chosen.number !== undefined || chosen.input !== undefined
  const grown = minutes === undefined || one ? undefined : await growing(minutes * GROW_SHARE)
  const until = minutes === undefined ? { runs } : { minutes: minutes * (grown === undefined ? 1 : 1 - GROW_SHARE) }
  const fuzzed = await fuzz({ ...where, ...chosen, until, found: grown?.findings ?? [] })
  if (grown === undefined) return await tell({ lines: fuzzed.text, checks: fuzzed.checks, ...fuzzed.details })
  const checks = [...fuzzed.checks, ...notesOf(grown.growth)]
  return await tell({ lines: [...grown.text, '', ...fuzzed.text], checks, growth: grown.growth, ...fuzzed.details })
}

interface Told {
  readonly lines: readonly string[]
  readonly checks: readonly Check[]
  readonly [detail: string]: unknown
}

const notesOf = (growth: GrownAll['growth']): Check[] => [
  note('targets that were grown', Object.keys(growth).length),
  note(
    'inputs while growing',
    Object.values(growth).reduce((sum, { tried }) => sum + tried, 0)
  )
]

function readWords(words: readonly string[], all: readonly Target[]) {
  try {
    const { values } = parseArgs({ args: [...words], options: OPTIONS })
    const { target, runs, minutes, input, grow = false } = values
    if (runs !== undefined && minutes !== undefined) throw new Error('either --runs or --minutes')
    const without = (['runs', 'number', 'input'] as const).find(name => grow && values[name] !== undefined)
    if (without !== undefined) throw new Error(`--grow goes by --minutes, and takes no --${without}`)
    const targets = target === undefined ? all : all.filter(({ name, group }) => [name, group].includes(target))
    if (targets.length === 0) throw new Error(`there is no target ${JSON.stringify(target)}; there are:\n${usage(all)}`)
    return {
      targets,
      runs: number('runs', runs, 1) ?? RUNS,
      minutes: minutes === undefined ? undefined : positive(minutes),
      seed: number('seed', values.seed, 0) ?? 1,
      number: number('number', values.number, 0),
      input: input === undefined ? undefined : new Uint8Array(readFileSync(input)),
      json: values.json,
      grow
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

const usage = (all: readonly Target[]): string =>
  table(all.map(({ name, group, summary }) => [name, group, summary])).join('\n')
