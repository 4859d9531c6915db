/**
 * `npm run chaos`: options → scenarios (supervisor.ts) → report, timelines. Everything runs in a mount namespace of its own, so
 * that what is mounted ends with it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { DiapauseError, messageOf, UsageError } from '../../node/errors.ts'
import { exitCode, machineFacts, reportText, writeReport, writeText } from '../measure.ts'
import { FAULTS } from './faults/list.ts'
import { type ChaosOptions, readOptions, usage } from './options.ts'
import { listText, readPlanted, runPlanted } from './planted/command.ts'
import { reportOf } from './report.ts'
import { runSoak } from './soak.ts'
import { soakChecks } from './soak-judge.ts'
import { type Outcome, runScenario } from './supervisor.ts'
import { entryText, Timeline, timelineText } from './timeline.ts'
import { timelineSvg } from './timeline-svg.ts'

const INSIDE = 'DIAPAUSE_CHAOS_INSIDE'
const results = join(import.meta.dirname, '../../.build/chaos')

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
  mkdirSync(results, { recursive: true })
  if (options.soak !== undefined) return await soak({ ...options, ...options.soak }, abort.signal)
  const outcomes: Outcome[] = []
  for (const scenario of options.scenarios) {
    if (abort.signal.aborted) break
    const name = `${scenario.name}-${options.seed}`
    process.stdout.write(`${scenario.name}, seed ${options.seed}, ${options.hosts} hosts: ${scenario.about}\n`)
    const timeline = newTimeline()
    const { seed, hosts, minutes } = options
    const keep = keeper(options, name)
    const outcome = await runScenario({
      scenario,
      faults: FAULTS,
      seed,
      hosts,
      minutes,
      timeline,
      signal: abort.signal,
      keep
    })
    outcomes.push(outcome)
    writeTimeline(join(results, name), outcome)
  }
  const report = { name: 'chaos', machine: await machineFacts(outcomes[0]?.hypervisor), ...reportOf(outcomes) }
  process.stdout.write(`${reportText(report, process.stdout.isTTY)}\n`)
  if (options.json !== undefined) writeReport(options.json, report)
  return abort.signal.aborted ? 130 : exitCode(report)
}

async function soak(
  options: ChaosOptions & { readonly minutes: number; readonly intervalMs: number },
  signal: AbortSignal
): Promise<number> {
  const { hosts, minutes, intervalMs, json } = options
  process.stdout.write(`soak, ${minutes} minutes, an epoch every ${intervalMs / 1000} s, ${hosts} hosts\n`)
  const timeline = newTimeline()
  const outcome = await runSoak({ hosts, minutes, intervalMs, timeline, signal, keep: keeper(options, 'soak') })
  const { entries } = timeline
  writeText(join(results, 'soak.txt'), timelineText([`soak, ${minutes} minutes, ${hosts} hosts`], entries))
  const report = { name: 'chaos soak', machine: await machineFacts(outcome.hypervisor), checks: soakChecks(outcome) }
  process.stdout.write(`${reportText(report, process.stdout.isTTY)}\n`)
  if (json !== undefined) writeReport(json, { ...report, soak: { ...outcome, entries } })
  return signal.aborted ? 130 : exitCode(report)
}

function newTimeline(): Timeline {
  const startMs = performance.now()
  return new Timeline(
    () => performance.now() - startMs,
    entry => process.stdout.write(`${entryText(entry)}\n`)
  )
}

/** Called when a run is over: its logs stay where a promise was broken, or where that is wished. */
function keeper(options: ChaosOptions, name: string) {
  return async (dir: string, failed: boolean): Promise<void> => {
    rmSync(join(results, name), { recursive: true, force: true })
    if (failed || options.keep) keepLogs(dir, join(results, name))
  }
}

function writeTimeline(base: string, outcome: Outcome): void {
  const { scenario, seed, hosts, entries, stints, broken } = outcome
  const title = `${scenario}, seed ${seed}, ${hosts} hosts: ${broken.length === 0 ? 'every promise held' : `${broken.length} promises broken`}`
  const names = Array.from({ length: hosts }, (_, i) => `h${i + 1}`)
  writeText(`${base}.txt`, timelineText([title, ...broken.map(each => `BROKEN: ${each}`)], entries))
  writeText(`${base}.svg`, timelineSvg({ title, hosts: names, entries, stints }))
  process.stdout.write(`${title}\ntimeline: ${base}.txt and .svg\n\n`)
}

/** Logs and consoles of all peers. */
function keepLogs(cluster: string, to: string): void {
  for (const peer of readdirSync(cluster).filter(name => /^p\d+$/.test(name))) {
    mkdirSync(join(to, peer), { recursive: true })
    for (const part of ['log', 'run/console', 'peer.toml']) {
      const from = join(cluster, peer, part)
      if (existsSync(from)) cpSync(from, join(to, peer, part), { recursive: true })
    }
  }
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
