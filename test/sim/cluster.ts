/**
 * Scenario `cluster`: whole clusters under every fault. With `--replay SEED` one seed as a list of its events, between
 * `--from` and `--to` in milliseconds of its own time.
 */
import { UsageError } from '../../node/errors.ts'
import { equal } from '../measure.ts'
import { CLUSTER_BUGS } from './cluster-bugs.ts'
import { runClusterSeed } from './cluster-run.ts'
import type { Result, Scenario } from './scenario.ts'
import { bugNamed, runSeeds } from './seeds.ts'

interface ClusterOptions extends Readonly<Record<string, number | string>> {
  readonly seeds: number
  readonly first: number
  readonly peers: number
  readonly bug: string
  readonly replay: string
  readonly from: string
  readonly to: string
}

export const cluster: Scenario<ClusterOptions> = {
  name: 'cluster',
  options: { seeds: 200, first: 1, peers: 5, bug: '', replay: '', from: '', to: '' },
  run: options =>
    options.replay === ''
      ? runSeeds({ ...options, worlds: ['cluster'], bug: bugNamed(options.bug, ['cluster']) })
      : replay(options)
}

async function replay({ peers, bug, replay: seed, from, to }: ClusterOptions): Promise<Result> {
  const [fromMs, toMs] = [numberOf('from', from, 0), numberOf('to', to, Number.POSITIVE_INFINITY)]
  const events: { readonly atMs: number; readonly what: string }[] = []
  const outcome = await runClusterSeed(numberOf('replay', seed, 1), {
    peers,
    wiring: CLUSTER_BUGS[bugNamed(bug, ['cluster'])]?.wiring,
    listener: (atMs, what) => {
      if (atMs >= fromMs && atMs <= toMs) events.push({ atMs, what })
    }
  })
  const lines = events.map(({ atMs, what }) => `${atMs.toFixed(3).padStart(10)}  ${what}`)
  return {
    checks: [equal('violation', outcome.violation ?? 'none', 'none')],
    text: lines.join('\n'),
    details: { outcome, events }
  }
}

function numberOf(option: string, text: string, usual: number): number {
  const number = text === '' ? usual : Number(text)
  if (!(number >= 0))
    throw new UsageError('SIM_USAGE', `--${option} takes a number from 0, not ${JSON.stringify(text)}`)
  return number
}
