/** The command line of chaos. Pure but for looking whether the report's folder is there, and for a seed where none is given. */
import { randomInt } from 'node:crypto'
import { statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { messageOf, UsageError } from '../../node/errors.ts'
import type { Scenario } from './scenario.ts'
import { SCENARIOS, scenarios } from './scenarios.ts'
import { LEAST_MINUTES } from './soak-judge.ts'

export interface ChaosOptions {
  readonly scenarios: readonly Scenario[]
  /** Instead of scenarios: nothing is broken. */
  readonly soak: { readonly minutes: number; readonly intervalMs: number } | undefined
  readonly seed: number
  /** Of each scenario; undefined: as many rounds as it has. */
  readonly minutes: number | undefined
  /** Of each scenario, instead of as many as it has. */
  readonly rounds: number | undefined
  readonly hosts: number
  /** File for the report. */
  readonly json: string | undefined
  /** Logs and consoles are kept also where all went well. */
  readonly keep: boolean
  readonly help: boolean
}

const HOSTS = { low: 3, high: 9, usual: 3 } as const
const SOAK = 'soak'
const SOAK_MINUTES = 30
/** Of `--interval`, seconds. */
const INTERVAL = { low: 2, high: 3_600, usual: 10 } as const

export const usage = (): string => `Usage: npm run chaos -- [OPTIONS]

Breaks hosts with real peers and VMs on them, in every way there is, and checks from outside that no promise breaks.
Needs root (network namespaces, loop devices), QEMU and a C compiler.

  --scenario NAME  what to break (random); all: every scenario but random, one after the other
  --seed N         the faults of N, again (random: others each time, and it tells the seed)
  --minutes M      rounds until so much time has passed (as many rounds as the scenario has)
  --rounds R       so many rounds instead
  --interval S     of a soak: seconds between two epochs (${INTERVAL.usual})
  --hosts N        hosts, ${HOSTS.low} to ${HOSTS.high} (${HOSTS.usual})
  --json FILE      write the report as JSON
  --keep           keep logs and consoles also where all went well
  --planted NAME   instead: a mistake in the peers' code, which must be found; all, none (their scenarios without), list
  --help           this text

Scenarios:
  ${SOAK.padEnd(18)} nothing is broken, and memory of peers stands still (${SOAK_MINUTES} minutes)
${[...SCENARIOS.values()].map(({ name, about }) => `  ${name.padEnd(18)} ${about}`).join('\n')}

The timeline of each run is left as text and as SVG. Exit code: 0 where every promise held, 1 where one did not, 2 where something
is wrong with the options or this machine.`

/** UsageError CHAOS_OPTIONS with what was wrong and what is expected. */
export function readOptions(args: readonly string[]): ChaosOptions {
  const { scenario = 'random', seed = 'random', minutes, rounds, interval, hosts, json, keep, help } = parse(args)
  if (rounds !== undefined && (minutes !== undefined || scenario === SOAK))
    throw wrong('--rounds goes with neither --minutes nor a soak')
  if (interval !== undefined && scenario !== SOAK) throw wrong('--interval is for --scenario soak')
  return {
    scenarios: scenario === SOAK ? [] : scenariosOf(scenario),
    soak: scenario === SOAK ? soakOf(minutes, interval) : undefined,
    seed: seed === 'random' ? randomInt(1, 2 ** 31) : whole('seed', seed, 0, 2 ** 32 - 1),
    minutes: minutes === undefined ? undefined : whole('minutes', minutes, 1, 10_080),
    rounds: rounds === undefined ? undefined : whole('rounds', rounds, 1, 100_000),
    hosts: hosts === undefined ? HOSTS.usual : whole('hosts', hosts, HOSTS.low, HOSTS.high),
    json: json === undefined ? undefined : reportFile(json),
    keep: keep === true,
    help: help === true
  }
}

function soakOf(minutes = String(SOAK_MINUTES), interval = String(INTERVAL.usual)): ChaosOptions['soak'] {
  return {
    minutes: whole('minutes', minutes, LEAST_MINUTES, 10_080),
    intervalMs: whole('interval', interval, INTERVAL.low, INTERVAL.high) * 1_000
  }
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const options = {
    scenario: text,
    seed: text,
    minutes: text,
    rounds: text,
    interval: text,
    hosts: text,
    json: text,
    keep: flag,
    help: flag
  }
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: false }).values
  } catch (cause) {
    throw wrong(messageOf(cause).split('. ')[0] ?? '', cause)
  }
}

function scenariosOf(name: string): Scenario[] {
  if (name === 'all') return scenarios()
  const found = SCENARIOS.get(name)
  if (found === undefined) throw wrong(`--scenario: there is no scenario ${JSON.stringify(name)}`)
  return [found]
}

function whole(name: string, text: string, low: number, high: number): number {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= low && value <= high) return value
  throw wrong(`--${name} takes a whole number from ${low} to ${high}, not ${JSON.stringify(text)}`)
}

/** UsageError CHAOS_OPTIONS. */
export function reportFile(name: string): string {
  const file = resolve(name)
  if (name === '' || isFolder(file)) throw wrong(`--json takes the name of a file, not ${JSON.stringify(name)}`)
  if (!isFolder(dirname(file))) throw wrong(`--json: there is no folder ${dirname(file)}`)
  return file
}

const wrong = (message: string, cause?: unknown) =>
  new UsageError('CHAOS_OPTIONS', `${message}\n(npm run chaos -- --help lists the options)`, { cause })

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}
