/** `npm run chaos -- --planted`: options → runs with a mistake each → a report. */
import { parseArgs } from 'node:util'
import { messageOf, UsageError } from '../../../node/errors.ts'
import { type Check, equal, exitCode, machineFacts, reportText, writeReport } from '../../measure.ts'
import { FAULTS } from '../faults/list.ts'
import { runOne } from '../one-run.ts'
import { reportFile } from '../options.ts'
import type { Outcome } from '../supervisor.ts'
import { MISTAKES } from './list.ts'
import type { Mistake } from './mistake.ts'
import { type Found, foundBy, plantedChecks, runOf, watching } from './run.ts'

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
      ({ name, file, why, scenario, promise }) =>
        `${name}\n  ${why}\n  ${file}; ${scenario.name}: "${promise}" must break\n`
    )
    .join('')

/** The exit code. */
export async function runPlanted({ what, mistakes, json, keep }: PlantedOptions): Promise<number> {
  const abort = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => abort.abort())
  const all = { hosts: HOSTS, minutes: undefined, keep }
  const outcomes: Outcome[] = []
  const found: Found[] = []
  for (const mistake of what === 'none' ? onePerScenario(mistakes) : mistakes) {
    if (abort.signal.aborted) break
    const { scenario, seed } = mistake
    if (what === 'none') {
      outcomes.push(await runOne({ ...all, scenario, seed, faults: FAULTS, signal: abort.signal }))
      continue
    }
    const over = new AbortController()
    const signal = AbortSignal.any([abort.signal, over.signal])
    const onEntry = watching(mistake, () => over.abort())
    const outcome = await runOne({ ...all, ...runOf(mistake, FAULTS), seed, signal, onEntry })
    outcomes.push(outcome)
    found.push(foundBy(mistake, outcome))
  }
  const checks: Check[] =
    what === 'none'
      ? outcomes.map(({ scenario, broken }) =>
          equal(`${scenario} without a mistake: promises broken`, broken.length, 0)
        )
      : plantedChecks(found)
  const report = { name: 'chaos planted', machine: await machineFacts(outcomes[0]?.hypervisor), checks, found }
  process.stdout.write(`${reportText(report, process.stdout.isTTY)}\n`)
  if (json !== undefined) writeReport(json, report)
  return abort.signal.aborted ? 130 : exitCode(report)
}

const onePerScenario = (mistakes: readonly Mistake[]): Mistake[] =>
  mistakes.filter(({ scenario }, i) => mistakes.findIndex(other => other.scenario === scenario) === i)
