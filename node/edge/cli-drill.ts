/** `diapause drill`: would this group come back? At once, on a schedule; `drill say` is for checks. */
import type { Command } from 'commander'
import { DiapauseError, UsageError } from '../errors.ts'
import type { DrilledVm, DrillReport } from '../ports.ts'
import type { ImageHost } from './cli-images.ts'
import type { ApiClient } from './client.ts'
import { say } from './drill-say.ts'
import { DRILL_TIMEOUT_MS } from './drill-view.ts'
import { durationText, table } from './format.ts'
import { whileWaiting } from './waiting.ts'
import { wholeNumber } from './whole-number.ts'

/** The machine, as these commands need it. */
export interface DrillHost extends ImageHost {
  /** The folder of the drill that this process is a check of. */
  readonly drillFolder: string | undefined
}

interface Shared {
  readonly json?: boolean
  readonly timeout?: number
}

type Speaking = (parent: Command, nameAndArguments: string) => Command

const SECOND_MS = 1_000
const UNITS_MS: Readonly<Record<string, number>> = { s: SECOND_MS, m: 60_000, h: 3_600_000, d: 86_400_000 }
/** How long `drill say` waits for an answer. A guess: a busy guest. */
const SAY_SECONDS = 30

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function drillCommands(
  diapause: Command,
  host: DrillHost,
  speaking: Speaking,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const seconds = DRILL_TIMEOUT_MS / SECOND_MS
  const drill = speaking(diapause, 'drill <group>')
    .description(
      'restore a group beside itself, in a network of its own, look at it, and take it away; fails (1) where it did'
    )
    .enablePositionalOptions()
    .option('--epoch <number>', 'an epoch that is kept (default: the last committed)', wholeNumber)
    .option('--check <command>', "run on the peer's host when all VMs run; passes with exit code 0")
    .option('--timeout <seconds>', `until it has passed (default: ${seconds})`, wholeNumber)
    .action(async (group: string, options: Shared & { epoch?: number; check?: string }) => {
      const { epoch, check } = options
      const timeoutMs = (options.timeout ?? seconds) * SECOND_MS
      const wish = { group, epoch, ...(check !== undefined && { check, cwd: process.cwd() }), timeoutMs }
      const client = await clientOf(options)
      const report = await host.interruptible(async signal => {
        try {
          return await whileWaiting(host, `a drill of ${group} begins`, now => client.drill(wish, now, signal))
        } catch (cause) {
          throw signal.aborted
            ? new DiapauseError('INTERRUPTED', 'interrupted: nothing is left of it', { cause })
            : cause
        }
      })
      host.print(options.json ? JSON.stringify(report, null, 2) : drillText(report))
      if (report.failed !== undefined) throw verdictOn(report, options.json === true)
    })
  scheduleCommand(drill, host, speaking, clientOf)
  sayCommand(drill, host)
}

function scheduleCommand(
  drill: Command,
  host: DrillHost,
  speaking: Speaking,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  speaking(drill, 'schedule <group>')
    .description('have such drills by themselves, on the peer that runs the first VM of the group')
    .option('--every <time>', 'how often, such as 24h, 7d or 90m', timeOf)
    .option(
      '--check <name>',
      'a command under [drills.checks] in the config of every member that may run VMs of the group'
    )
    .option('--timeout <seconds>', 'until one has passed', wholeNumber)
    .option('--off', 'no more of them')
    .action(async (group: string, options: Shared & { every?: number; check?: string; off?: boolean }) => {
      const { every: everyMs, check, off = false, timeout } = options
      if (off === (everyMs !== undefined)) throw new UsageError('CLI_DRILL', 'say either --every TIME or --off')
      const timeoutMs = timeout === undefined ? DRILL_TIMEOUT_MS : timeout * SECOND_MS
      const wish = everyMs === undefined ? undefined : { everyMs, timeoutMs, ...(check !== undefined && { check }) }
      const record = await (await clientOf(options)).scheduleDrills(group, wish)
      const how = everyMs === undefined ? 'has drills on request only' : `has a drill every ${durationText(everyMs)}`
      host.print(options.json ? JSON.stringify(record, null, 2) : `group ${group} ${how}`)
    })
}

function sayCommand(drill: Command, host: DrillHost): void {
  drill
    .command('say <vm> <text> [pattern] [seconds]')
    .description(
      `in a check: type a line ('': none) on a VM's console, and wait for a line that fits a regular expression (${SAY_SECONDS} s); drill-say does the same`
    )
    .option('--json', 'print JSON: the VM, what was typed, and the line that fits (null: none was waited for)')
    .action(
      async (vm: string, text: string, pattern: string | undefined, seconds: string | undefined, { json }: Shared) => {
        const { drillFolder: folder } = host
        if (folder === undefined)
          throw new UsageError(
            'DRILL_MISSING',
            'this is for the check of a drill, which has DIAPAUSE_DRILL in its environment'
          )
        const withinMs = wholeNumber(seconds ?? `${SAY_SECONDS}`) * SECOND_MS
        const saying = say(folder, { vm, text, ...(pattern !== undefined && { pattern }), withinMs })
        const line = (await whileWaiting(host, `VM ${vm} is listened to`, saying)) ?? null
        if (json) host.print(JSON.stringify({ vm, typed: text, line }))
        else if (line !== null) host.print(line)
      }
    )
}

export function drillText(report: DrillReport): string {
  const { group, epoch, peer, tookMs, vms, check } = report
  const checked = check && [
    `check: ${check.exitCode === null ? 'ended by a signal' : `exit code ${check.exitCode}`} after ${durationText(check.tookMs)}: ${check.command}`,
    ...check.output.map(line => `    ${line}`)
  ]
  return [
    `drill of group ${group} from epoch ${epoch} on ${peer}: ${durationText(tookMs)}`,
    ...table([['vm', 'runs after', 'all pages after', 'asked for', 'pushed', ''], ...vms.map(rowOf)]),
    ...(checked ?? []),
    lastLine(report)
  ].join('\n')
}

/** The report has told people why. */
function verdictOn({ failed = '', untried }: DrillReport, json: boolean): DiapauseError {
  const why = json ? `: ${failed}` : ''
  if (untried === true) return new UsageError('DRILL_UNTRIED', `the check of the drill could not be tried${why}`)
  return new DiapauseError('DRILL_FAILED', `the drill failed${why}`)
}

function lastLine({ check, failed, untried }: DrillReport): string {
  if (untried === true) return `NOT TRIED: ${failed ?? ''}`
  if (failed !== undefined) return `FAILED: ${failed}`
  return check === undefined ? 'PASSED: it came back (no check was given)' : 'PASSED: it came back'
}

function rowOf({ vm, runsMs, wholeMs, pagesFaulted, pagesPushed, faultP99Ms, failed = '' }: DrilledVm): string[] {
  const time = (ms: number | undefined): string => (ms === undefined ? '-' : durationText(ms))
  const slowest = faultP99Ms === undefined ? '' : ` (99 % within ${Math.ceil(faultP99Ms)} ms)`
  return [vm, time(runsMs), time(wholeMs), `${pagesFaulted ?? '-'}${slowest}`, `${pagesPushed ?? '-'}`, failed]
}

function timeOf(text: string): number {
  const [, count = '', unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? []
  const unitMs = UNITS_MS[unit]
  if (unitMs !== undefined) return Number(count) * unitMs
  throw new UsageError('CLI_TIME', `${JSON.stringify(text)} is not a time such as 24h, 7d, 90m or 30s`)
}
