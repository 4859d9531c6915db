/**
 * Scenario `cluster`: whole clusters under every fault. With `--replay SEED` one seed as a list of its events, between
 * `--from` and `--to` in milliseconds of its own time.
 */
import { CLUSTER_BUGS } from './cluster-bugs.ts'
import { runClusterSeed } from './cluster-run.ts'
import { type ReplayOptions, replaySeed } from './replay.ts'
import type { Options, Scenario } from './scenario.ts'
import { bugNamed, runSeeds } from './seeds.ts'

interface ClusterOptions extends Options, ReplayOptions {
  readonly seeds: number
  readonly first: number
  readonly peers: number
  readonly bug: string
}

export const cluster: Scenario<ClusterOptions> = {
  name: 'cluster',
  options: { seeds: 200, first: 1, peers: 5, bug: '', replay: '', from: '', to: '' },
  async run(options) {
    const { peers } = options
    const bug = bugNamed(options.bug, ['cluster'])
    if (options.replay === '') return runSeeds({ ...options, worlds: ['cluster'], bug })
    const wiring = CLUSTER_BUGS[bug]?.wiring
    return replaySeed(options, (seed, listener) => runClusterSeed(seed, { peers, wiring, listener }))
  }
}
