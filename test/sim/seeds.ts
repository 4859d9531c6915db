/**
 * Scenario `seeds`, the usual one: each seed is a run of registers and leases and a run of a whole cluster. Where a bug is
 * planted (`--bug NAME`), the check is that it is found.
 */
import { UsageError } from '../../node/errors.ts'
import { atMost, type Check, equal, note } from '../measure.ts'
import { CLUSTER_BUGS } from './cluster-bugs.ts'
import { type Done, runTasks, type Task } from './pool.ts'
import { BUGS } from './register-bugs.ts'
import { progress, type Result, type Scenario } from './scenario.ts'

type World = Task['world']

const BUGS_OF: Readonly<Record<World, Readonly<Record<string, unknown>>>> = { registers: BUGS, cluster: CLUSTER_BUGS }
/** A simulation that needs more seeds than this to find a classic mistake is too blind to be trusted. */
const CAUGHT_WITHIN = 200

export const seeds: Scenario<{ seeds: number; first: number; peers: number; bug: string }> = {
  name: 'seeds',
  options: { seeds: 200, first: 1, peers: 5, bug: '' },
  run: options => {
    const bug = bugNamed(options.bug, ['registers', 'cluster'])
    const worlds = (['registers', 'cluster'] as const).filter(world => bug === '' || bug in BUGS_OF[world])
    return runSeeds({ ...options, worlds, bug })
  }
}

/** The bug meant by `text`: its name, or a part that no other has. */
export function bugNamed(text: string, worlds: readonly World[]): string {
  if (text === '') return ''
  const names = worlds.flatMap(world => Object.keys(BUGS_OF[world]))
  const found = names.includes(text) ? [text] : names.filter(name => name.includes(text))
  if (found.length === 1) return found[0] as string
  throw new UsageError('SIM_USAGE', `--bug is one of these, or a part of only one of them: ${names.join('; ')}`)
}

export async function runSeeds(options: {
  readonly seeds: number
  readonly first: number
  /** Of a whole cluster; registers have up to two fewer, by seed. */
  readonly peers: number
  readonly bug: string
  readonly worlds: readonly World[]
}): Promise<Result> {
  const { seeds: count, first, peers, bug, worlds } = options
  progress(`${worlds.join(' and ')}: seeds ${first} to ${first + count - 1}${bug === '' ? '' : `, with a bug: ${bug}`}`)
  const startedMs = performance.now()
  const all: Done[] = []
  const tasks = Array.from({ length: count }, (_, i) => worlds.map(world => ({ world, seed: first + i, peers, bug })))
  await runTasks(tasks.flat(), done => {
    all.push(done)
    if (done.violation !== null) progress(`${done.world}: ${done.violation}`)
    else if (all.length % 200 === 0) progress(`${all.length} of ${count * worlds.length} runs`)
    return bug !== '' && done.violation !== null
  })
  const minutes = (performance.now() - startedMs) / 60_000
  const violations = all.filter(({ violation }) => violation !== null)
  const checks = bug === '' ? checksOf(all, count, worlds, minutes) : [caught(violations, first)]
  return { checks, details: { first, seeds: count, peers, bug, violations } }
}

/** The lowest seed that found it: those after it may have been under way, too. */
function caught(violations: readonly Done[], first: number): Check {
  const lowest = Math.min(...violations.map(({ seed }) => seed - first + 1))
  return atMost('seedsUntilCaught', Number.isFinite(lowest) ? lowest : Number.MAX_SAFE_INTEGER, CAUGHT_WITHIN, '')
}

function checksOf(all: readonly Done[], count: number, worlds: readonly World[], minutes: number): Check[] {
  const violated = all.filter(({ violation }) => violation !== null)
  const converged = count - new Set(violated.map(({ seed }) => seed)).size
  return [
    equal('violations', violated.length, 0),
    equal('converged', converged, count),
    note('seedsPerMinute', Math.round(count / minutes), '1/min'),
    ...worlds.flatMap(world =>
      notesOf(
        world,
        all.filter(done => done.world === world)
      )
    )
  ]
}

function notesOf(world: World, runs: readonly Done[]): Check[] {
  const sum = (of: (done: Done) => number): number => runs.reduce((total, done) => total + of(done), 0)
  const minutes = sum(({ tookMs }) => tookMs) / 60_000
  const events = sum(done => done.events)
  const takeovers = sum(done => done.takeovers)
  const epochs = sum(done => done.epochs ?? 0)
  const sizes = runs.map(({ peers }) => peers)
  return [
    note(`${world}.peers`, [...new Set([Math.min(...sizes), Math.max(...sizes)])].join(' to ')),
    note(`${world}.seedsPerMinuteAndThread`, Math.round(runs.length / minutes), '1/min'),
    note(`${world}.events`, events),
    note(`${world}.takeovers`, takeovers),
    ...(epochs > 0 ? [note(`${world}.epochsCommitted`, epochs)] : []),
    note(`${world}.slowestConvergenceMs`, Math.max(...runs.map(done => done.convergedMs)), 'ms')
  ]
}
