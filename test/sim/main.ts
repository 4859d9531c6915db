/**
 * `npm run sim -- [--scenario NAME] [--OPTION VALUE …] [--json FILE]`: runs a scenario, the first of the list unless told;
 * `--help` lists them.
 * Exit 1: a check failed; 2: usage.
 */
import { parseArgs } from 'node:util'
import { UsageError, messageOf } from '../../node/errors.ts'
import { exitCode, machineFacts, reportText, writeReport } from '../measure.ts'
import { cluster } from './cluster.ts'
import { detection } from './detection.ts'
import { registers } from './registers.ts'
import { repairs } from './repairs.ts'
import type { Options, Scenario } from './scenario.ts'
import { seeds } from './seeds.ts'

const SCENARIOS: readonly Scenario[] = [seeds, registers, cluster, repairs, detection]

const usage = (): string => `Usage: npm run sim -- [--scenario NAME] [--OPTION VALUE …] [--json FILE]

Runs what peers are made of in simulated time, under faults that a seed decides, and checks what must hold.

Scenarios and their options, with the usual values:
${SCENARIOS.map(scenarioLine).join('\n')}

  --json FILE   write the report as JSON
  --help        this text

test/sim/README.md tells what they are. Exit code: 0 where every check held, 1 where one did not, 2 where an option is wrong.`

function scenarioLine({ name, options }: Scenario, index: number): string {
  const words = Object.entries(options).map(([option, usual]) => `--${option}${usual === '' ? ' …' : ` ${usual}`}`)
  return `  ${name.padEnd(10)}  ${words.join('  ')}${index === 0 ? '   (runs unless another is named)' : ''}`
}

interface Request {
  readonly scenario: Scenario
  readonly values: Options
  readonly json: string | undefined
}

/** Undefined: only help is asked for. */
function readRequest(): Request | undefined {
  try {
    const text = { type: 'string' } as const
    const names = new Set(['scenario', 'json', ...SCENARIOS.flatMap(({ options }) => Object.keys(options))])
    const texts = Object.fromEntries([...names].map(name => [name, text]))
    const { help, ...values } = parseArgs({ options: { ...texts, help: { type: 'boolean' } } }).values
    if (help === true) return undefined
    const { scenario: name, json, ...given } = values as Partial<Record<string, string>>
    const scenario = name === undefined ? SCENARIOS[0] : SCENARIOS.find(one => one.name === name)
    if (scenario === undefined) {
      throw new Error(`--scenario is one of ${SCENARIOS.map(one => one.name).join(', ')}, not ${JSON.stringify(name)}`)
    }
    return { scenario, values: readOptions(scenario, given), json }
  } catch (cause) {
    throw new UsageError('SIM_USAGE', `${messageOf(cause)}\n(npm run sim -- --help lists the options)`, { cause })
  }
}

function readOptions({ name, options }: Scenario, given: Partial<Record<string, string>>): Options {
  for (const option of Object.keys(given)) {
    if (!(option in options))
      throw new Error(`scenario ${name} has no --${option}, only --${Object.keys(options).join(', --')}`)
  }
  const entries = Object.entries(options).map(([option, usual]) => {
    const value = given[option] ?? usual
    if (typeof usual === 'string') return [option, value] as const
    const number = Number(value)
    if (!Number.isSafeInteger(number) || number < 1) {
      throw new Error(`--${option} takes a whole number from 1, not ${JSON.stringify(value)}`)
    }
    return [option, number] as const
  })
  return Object.fromEntries(entries)
}

async function main(): Promise<number> {
  const request = readRequest()
  if (request === undefined) {
    console.log(usage())
    return 0
  }
  const { scenario, values, json } = request
  const { checks, text, details } = await scenario.run(values)
  const report = { name: `sim ${scenario.name}`, machine: await machineFacts(), checks, ...details }
  if (text !== undefined) console.log(`${text}\n`)
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
