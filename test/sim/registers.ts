/**
 * Scenario `registers`: registers and leases alone. With `--replay SEED` one seed as a list of
 * its events, between `--from` and `--to` in milliseconds of its own time.
 */
import { BUGS } from './register-bugs.ts'
import { runSeed } from './register-run.ts'
import { type ReplayOptions, replaySeed } from './replay.ts'
import type { Options, Scenario } from './scenario.ts'
import { bugNamed, runSeeds } from './seeds.ts'

interface RegisterOptions extends Options, ReplayOptions {
  readonly seeds: number
  readonly first: number
  readonly peers: number
  readonly bug: string
}

export const registers: Scenario<RegisterOptions> = {
  name: 'registers',
  options: { seeds: 200, first: 1, peers: 5, bug: '', replay: '', from: '', to: '' },
  async run(options) {
    const { peers } = options
    const bug = bugNamed(options.bug, ['registers'])
    if (options.replay === '') return runSeeds({ ...options, worlds: ['registers'], bug })
    const wiring = BUGS[bug]
    return replaySeed(options, (seed, listener) => runSeed(seed, { peers, wiring, focus: wiring?.focus, listener }))
  }
}
