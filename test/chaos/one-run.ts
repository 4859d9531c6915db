/** One scenario from its headline to its timeline on the disk: what is told of it as it runs, and what is left of it. */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, UsageError } from '../../node/errors.ts'
import { writeText } from '../measure.ts'
import type { Fault } from './fault.ts'
import type { Scenario } from './scenario.ts'
import { type Outcome, type RunOptions, runScenario } from './supervisor.ts'
import { type Entry, entryText, Timeline, timelineText } from './timeline.ts'
import { timelineSvg } from './timeline-svg.ts'

const RESULTS = join(import.meta.dirname, '../../.build/chaos')

export interface OneRun extends Omit<RunOptions, 'timeline' | 'keep'> {
  /** Logs and consoles are kept also where all went well. */
  readonly keep: boolean
  readonly onEntry?: (entry: Entry) => void
  /** The command that does what this run did again. */
  again(outcome: Outcome): string
}

/** Of a run that is no planted one: the same faults, as many as there were. */
export const againOf = ({
  scenario,
  seed,
  hosts,
  rounds
}: Pick<Outcome, 'scenario' | 'seed' | 'hosts' | 'rounds'>): string =>
  `npm run chaos -- --scenario ${scenario} --seed ${seed} --hosts ${hosts} --rounds ${Math.max(1, rounds.length)}`

/** UsageErrors of faults' `needs`, of all of them before the first begins: all of them take an hour. */
export function requireNeeds(scenarios: readonly Scenario[], faults: ReadonlyMap<string, Fault>): void {
  for (const name of new Set(scenarios.flatMap(scenario => scenario.faults))) faults.get(name)?.needs?.()
}

export async function runOne({ keep, onEntry, again, ...run }: OneRun): Promise<Outcome> {
  const { scenario, seed, hosts } = run
  process.stdout.write(`${scenario.name}, seed ${seed}, ${hosts} hosts: ${scenario.about}\n`)
  const base = baseOf(`${scenario.name}-${seed}`)
  const timeline = newTimeline(onEntry)
  const outcome = await runScenario({ ...run, timeline, keep: keeper(base, keep) }).catch((error: unknown) => {
    if (error instanceof UsageError) throw error // the next scenario would not begin either
    timeline.add('broken', `the run did not begin: ${messageOf(error)}`)
    return notBegun(run, timeline)
  })
  const { entries, stints, broken } = outcome
  const title = `${scenario.name}, seed ${seed}, ${hosts} hosts: ${broken.length === 0 ? 'every promise held' : `${broken.length} promises broken`}`
  const command = `again: ${again(outcome)}`
  writeTimeline(base, { title, head: [...broken.map(brokenLine), command], hosts, entries, stints })
  process.stdout.write(`${command}\n\n`)
  return outcome
}

/** A cluster that did not even start: what is left to tell of it. */
function notBegun(
  { scenario, seed, hosts }: Pick<OneRun, 'scenario' | 'seed' | 'hosts'>,
  { entries }: Timeline
): Outcome {
  const none = { hypervisor: '', rounds: [], shortestSilenceMs: null, samples: [], stints: [], takeovers: 0, epochs: 0 }
  const counts = { kills: 0, powerLosses: 0, partitions: 0 }
  const broken = entries.flatMap(({ kind, text }) => (kind === 'broken' ? [text] : []))
  return { scenario: scenario.name, seed, hosts, ...none, counts, broken, entries }
}

/** What files of a run are called before their ending. */
export function baseOf(name: string): string {
  mkdirSync(RESULTS, { recursive: true })
  return join(RESULTS, name)
}

/** Tells as it goes. */
export function newTimeline(onEntry: (entry: Entry) => void = () => {}): Timeline {
  const startMs = performance.now()
  return new Timeline(
    () => performance.now() - startMs,
    entry => {
      process.stdout.write(`${entryText(entry)}\n`)
      onEntry(entry)
    }
  )
}

/** Called when a run is over: its logs stay where a promise was broken, or `always`. */
export function keeper(base: string, always: boolean): RunOptions['keep'] {
  return async (dir, failed) => {
    rmSync(base, { recursive: true, force: true })
    if (failed || always) keepLogs(dir, base)
  }
}

export const brokenLine = (broken: string): string => `BROKEN: ${broken}`

export interface Written extends Pick<Outcome, 'hosts' | 'entries' | 'stints'> {
  readonly title: string
  /** Lines of the text below its title. */
  readonly head: readonly string[]
}

/** As text and as a picture; says where. */
export function writeTimeline(base: string, { title, head, hosts, entries, stints }: Written): void {
  const names = Array.from({ length: hosts }, (_, i) => `h${i + 1}`)
  writeText(`${base}.txt`, timelineText([title, ...head], entries))
  writeText(`${base}.svg`, timelineSvg({ title, hosts: names, entries, stints }))
  process.stdout.write(`${title}\ntimeline: ${base}.txt and .svg\n`)
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
