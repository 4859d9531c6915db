/** Registers and leases under every fault, seed after seed. A seed that violates an invariant is printed, and replays exactly. */
import { type Check, equal, note } from '../measure.ts'
import { type Outcome, runSeed } from './register-run.ts'
import { type Scenario, progress } from './scenario.ts'

export const registers: Scenario<{ seeds: number; first: number }> = {
  name: 'registers',
  options: { seeds: 200, first: 1 },
  async run({ seeds, first }) {
    progress(`seeds ${first} to ${first + seeds - 1}`)
    const startedMs = performance.now()
    const outcomes: Outcome[] = []
    for (let seed = first; seed < first + seeds; seed++) {
      const outcome = await runSeed(seed)
      outcomes.push(outcome)
      if (outcome.violation !== null) progress(`seed ${seed}: ${outcome.violation}`)
      else if (outcomes.length % 100 === 0) progress(`${outcomes.length} of ${seeds} seeds`)
    }
    const minutes = (performance.now() - startedMs) / 60_000
    const violations = outcomes.filter(outcome => outcome.violation !== null)
    return { checks: checksOf(outcomes, violations.length, minutes), details: { violations, first, seeds } }
  }
}

function checksOf(outcomes: readonly Outcome[], violations: number, minutes: number): Check[] {
  const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const events = sum(outcome => outcome.events)
  const takeovers = sum(outcome => outcome.takeovers)
  return [
    equal('violations', violations, 0),
    equal('converged', outcomes.length - violations, outcomes.length),
    note('seedsPerMinute', Math.round(outcomes.length / minutes), '1/min'),
    note('events', events),
    note('takeovers', takeovers),
    note('slowestConvergenceMs', Math.max(...outcomes.map(outcome => outcome.convergedMs)), 'ms')
  ]
}
