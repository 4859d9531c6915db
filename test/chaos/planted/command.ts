/** `npm run chaos -- --planted`: options → runs with a mistake each → a report. */
import { parseArgs } from 'node:util'
import { messageOf, UsageError } from '../../../node/errors.ts'
import { type Check, exitCode, machineFacts, reportText, writeReport } from '../../measure.ts'
import { FAULTS } from '../faults/list.ts'
import { type OneRun, requireNeeds, runOne } from '../one-run.ts'
import { reportFile } from '../options.ts'
import { MISTAKES } from './list.ts'
import type { Mistake } from './mistake.ts'
import { type Found, foundBy, plantedCheck, runOf, saysLittle, soundCheck, watching } from './run.ts'

/** VMs begin on two of them, and one is free. */
const HOSTS = 3

export interface PlantedOptions {
  /** none: their scenarios without them. list: they are named, and nothing is run. */
  readonly what: 'mistakes' | 'none' | 'list'
  readonly mistakes: readonly Mistake[]
  /** File for the report. */
  readonly json: string | undefined
  readonly keep: boolean
}

/** Undefined where `--planted` is not said. UsageError CHAOS_OPTIONS. */
export function readPlanted(args: readonly string[]): PlantedOptions | undefined {
  if (!args.some(each => each === '--planted' || each.startsWith('--planted='))) return undefined
  const { planted = '', json: file, keep } = parse(args)
  const json = file === undefined ? undefined : reportFile(file)
  const all = [...MISTAKES.values()]
  const one = MISTAKES.get(planted)
  if (planted === 'list' || planted === 'none') return { what: planted, mistakes: all, json, keep: keep === true }
  const mistakes = planted === 'all' ? all : one === undefined ? [] : [one]
  if (mistakes.length > 0) return { what: 'mistakes', mistakes, json, keep: keep === true }
  throw wrong(
    `there is no mistake ${JSON.stringify(planted)}: --planted takes all, none, list, ${[...MISTAKES.keys()].join(', ')}`
  )
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const
  const options = { planted: text, json: text, keep: { type: 'boolean' } } as const
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: false }).values
  } catch (cause) {
    throw wrong(`${messageOf(cause).split('. ')[0] ?? ''}: beside --planted there are --json and --keep`, cause)
  }
}

const wrong = (message: string, cause?: unknown) => new UsageError('CHAOS_OPTIONS', message, { cause })

export const listText = (mistakes: readonly Mistake[]): string =>
  mistakes
    .map(
      ({ name, file, why, scenario, promises }) =>
        `${name}\n  ${why}\n  ${file}; ${scenario.name}: "${promises.join('" or "')}" must break\n`
    )
    .join('')

/** The exit code. */
export async function runPlanted(options: PlantedOptions): Promise<number> {
  const scenarios = options.mistakes.map(({ scenario }) => scenario)
  requireNeeds(scenarios, FAULTS)
  const abort = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => abort.abort())
  const checks: Check[] = []
  const found: Found[] = []
  const report = async () => ({ name: 'chaos planted', machine: await machineFacts(), checks, found })
  for (const mistake of options.what === 'none' ? onePerScenario(options.mistakes) : options.mistakes) {
    if (abort.signal.aborted) break
    const again = () => `npm run chaos -- --planted ${options.what === 'none' ? 'none' : mistake.name}`
    const run = {
      hosts: HOSTS,
      minutes: undefined,
      keep: options.keep,
      seed: mistake.seed,
      signal: abort.signal,
      again
    }
    const without = async (rounds: number) => {
      const scenario = { ...mistake.scenario, rounds }
      const { broken } = await runOne({ ...run, scenario, faults: FAULTS })
      checks.push(soundCheck(scenario.name, broken))
    }
    if (options.what === 'none') await without(mistake.scenario.rounds)
    else {
      const it = await find(mistake, run)
      found.push(it)
      checks.push(plantedCheck(it))
      // The faults that it was found by.
      if (saysLittle(it)) await without(Math.max(1, it.rounds))
    }
    // After each: all of them take half an hour.
    if (options.json !== undefined) writeReport(options.json, await report())
  }
  const whole = await report()
  process.stdout.write(`${reportText(whole, process.stdout.isTTY)}\n`)
  return abort.signal.aborted ? 130 : exitCode(whole)
}

/** Ends when its promise is broken: the rest of the run would tell nothing new. */
async function find(mistake: Mistake, run: Omit<OneRun, 'scenario' | 'faults' | 'onEntry'>): Promise<Found> {
  const over = new AbortController()
  const signal = AbortSignal.any([run.signal, over.signal])
  const onEntry = watching(mistake, () => over.abort())
  return foundBy(mistake, await runOne({ ...run, ...runOf(mistake, FAULTS), signal, onEntry }))
}

const onePerScenario = (mistakes: readonly Mistake[]): Mistake[] =>
  mistakes.filter(({ scenario }, i) => mistakes.findIndex(other => other.scenario === scenario) === i)
