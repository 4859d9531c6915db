/**
 * Scenario `repairs`: the agents that look after redundancy, alone. With `--replay SEED` one seed as a list of its events, between
 * `--from` and `--to` in milliseconds of its own time.
 */
import { UsageError } from '../../node/errors.ts'
import { atMost, equal, note } from '../measure.ts'
import { type ReplayOptions, replaySeed } from './replay.ts'
import { REPAIR_BUGS } from './repairs-bugs.ts'
import { type RepairsOutcome, runRepairsSeed } from './repairs-run.ts'
import { type Options, progress, type Scenario } from './scenario.ts'

interface RepairsOptions extends Options, ReplayOptions {
  readonly seeds: number
  readonly first: number
  readonly bug: string
}

export const repairs: Scenario<RepairsOptions> = {
  name: 'repairs',
  options: { seeds: 200, first: 1, bug: '', replay: '', from: '', to: '' },
  async run(options) {
    const { seeds, first, bug } = options
    const wiring = bug === '' ? undefined : REPAIR_BUGS[bug]
    if (bug !== '' && wiring === undefined) {
      throw new UsageError('SIM_USAGE', `--bug is one of these: ${Object.keys(REPAIR_BUGS).join('; ')}`)
    }
    if (options.replay !== '') {
      return replaySeed(options, (seed, listener) => runRepairsSeed(seed, { wiring, listener }))
    }
    const all: RepairsOutcome[] = []
    for (let seed = first; seed < first + seeds; seed++) {
      const outcome = await runRepairsSeed(seed, { wiring })
      all.push(outcome)
      if (outcome.violation !== null) progress(`repairs: ${outcome.violation}`)
      if (bug !== '' && outcome.violation !== null) break
    }
    const violations = all.filter(({ violation }) => violation !== null)
    const sum = (of: (outcome: RepairsOutcome) => number): number => all.reduce((total, each) => total + of(each), 0)
    const checks =
      bug === ''
        ? [equal('violations', violations.length, 0)]
        : [atMost('seedsUntilCaught', violations.length > 0 ? all.length : Number.MAX_SAFE_INTEGER, seeds, '')]
    return {
      checks: [
        ...checks,
        note(
          'columnsRebuilt',
          sum(({ rebuilt }) => rebuilt)
        ),
        note(
          'disksLost',
          sum(({ disksLost }) => disksLost)
        ),
        note(
          'columnsRotted',
          sum(({ rotted }) => rotted)
        ),
        note('slowestConvergenceMs', Math.max(...all.map(({ convergedMs }) => convergedMs)), 'ms')
      ],
      details: { first, seeds, bug, violations }
    }
  }
}
