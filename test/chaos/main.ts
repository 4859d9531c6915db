/**
 * `npm run chaos`: options → scenarios (supervisor.ts) → report, timelines. Everything runs in a mount namespace of its own, so
 * that what is mounted ends with it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { loadavg } from 'node:os'
import { DiapauseError, messageOf, UsageError } from '../../node/errors.ts'
import { exitCode, machineFacts, reportText, writeReport } from '../measure.ts'
import { FAULTS } from './faults/list.ts'
import { againOf, baseOf, brokenLine, keeper, newTimeline, requireNeeds, runOne, writeTimeline } from './one-run.ts'
import { type ChaosOptions, readOptions, usage } from './options.ts'
import { listText, readPlanted, runPlanted } from './planted/command.ts'
import { reportOf } from './report.ts'
import { runSoak } from './soak.ts'
import { soakChecks } from './soak-judge.ts'
import type { Outcome } from './supervisor.ts'

const INSIDE = 'DIAPAUSE_CHAOS_INSIDE'

/** The same command in a mount namespace of its own; its exit code. */
async function inside(): Promise<number> {
  if (process.getuid?.() !== 0)
    throw new UsageError('CHAOS_ROOT', 'chaos mounts disks and makes hosts: run it as root (sudo npm run chaos)')
  const where = ['--pdeathsig', 'KILL', 'unshare', '--mount', '--propagation', 'private']
  const words = [...where, process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  const child = spawn('setpriv', words, { stdio: 'inherit', env: { ...process.env, [INSIDE]: '1' } })
  // A terminal tells both; who ends this process by its number tells only this one.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => child.kill(name))
  const [code] = (await once(child, 'exit')) as [number | null]
  return code ?? 1
}

async function chaos(options: ChaosOptions): Promise<number> {
  const abort = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => abort.abort())
  if (options.soak !== undefined) return await soak({ ...options, ...options.soak }, abort.signal)
  requireNeeds(options.scenarios, FAULTS)
  const outcomes: Outcome[] = []
  const report = async () => ({
    name: 'chaos',
    machine: await machineFacts(outcomes[0]?.hypervisor),
    ...reportOf(outcomes, loadavg())
  })
  for (const each of options.scenarios) {
    if (abort.signal.aborted) break
    const { seed, hosts, minutes, rounds = each.rounds, keep } = options
    const scenario = { ...each, rounds }
    outcomes.push(
      await runOne({ scenario, faults: FAULTS, seed, hosts, minutes, keep, signal: abort.signal, again: againOf })
    )
    // After each, since all of them take an hour: whatever ends that, the report is of those that ran.
    if (options.json !== undefined) writeReport(options.json, await report())
  }
  const whole = await report()
  process.stdout.write(`${reportText(whole, process.stdout.isTTY)}\n`)
  return abort.signal.aborted ? 130 : exitCode(whole)
}

async function soak(
  options: ChaosOptions & { readonly minutes: number; readonly intervalMs: number },
  signal: AbortSignal
): Promise<number> {
  const { hosts, minutes, intervalMs, json } = options
  process.stdout.write(`soak, ${minutes} minutes, an epoch every ${intervalMs / 1000} s, ${hosts} hosts\n`)
  const timeline = newTimeline()
  // No seed tells two of them apart.
  const base = baseOf(`soak-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}`)
  const keep = keeper(base, options.keep)
  const { stints, ...outcome } = await runSoak({ hosts, minutes, intervalMs, timeline, signal, keep })
  const { entries } = timeline
  const title = `soak, ${minutes} minutes, ${hosts} hosts: ${outcome.broken.length} promises broken`
  writeTimeline(base, { title, head: outcome.broken.map(brokenLine), hosts, entries, stints })
  const report = { name: 'chaos soak', machine: await machineFacts(outcome.hypervisor), checks: soakChecks(outcome) }
  process.stdout.write(`${reportText(report, process.stdout.isTTY)}\n`)
  if (json !== undefined) writeReport(json, { ...report, soak: { ...outcome, entries } })
  return signal.aborted ? 130 : exitCode(report)
}

try {
  const args = process.argv.slice(2)
  const options = readPlanted(args) ?? readOptions(args)
  if ('help' in options && options.help) process.stdout.write(`${usage()}\n`)
  else if ('what' in options && options.what === 'list') process.stdout.write(listText(options.mistakes))
  else if (process.env[INSIDE] !== '1') process.exitCode = await inside()
  else process.exitCode = 'what' in options ? await runPlanted(options) : await chaos(options)
} catch (error) {
  process.stderr.write(`chaos: ${messageOf(error)}\n`)
  if (!(error instanceof DiapauseError)) process.stderr.write(`${error instanceof Error ? error.stack : ''}\n`)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
