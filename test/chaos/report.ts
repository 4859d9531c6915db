/** Outcomes of scenarios → checks. Pure. */
import { type Check, equal, note } from '../measure.ts'
import { COUNTED, type Counts } from './fault.ts'
import type { Outcome } from './supervisor.ts'

/** `load`: of the last one, five and fifteen minutes: who emulates on a machine that others use, too, waits for them. */
export function reportOf(
  outcomes: readonly Outcome[],
  load: readonly number[]
): { checks: Check[]; counts: Counts; runs: unknown[] } {
  const steps = outcomes.flatMap(({ rounds }) => rounds.flatMap(round => round.steps))
  const rounds = outcomes.flatMap(outcome => outcome.rounds)
  const silences = outcomes.flatMap(({ shortestSilenceMs }) => shortestSilenceMs ?? [])
  const most = (of: (round: Outcome['rounds'][number]) => number | null) =>
    Math.max(0, ...rounds.map(round => (of(round) ?? 0) / 1000))
  const counts = total(outcomes)
  return {
    counts,
    checks: [
      ...outcomes.map(({ scenario, broken }) => equal(`${scenario}: promises broken`, broken.length, 0)),
      note('load average of this machine', load.map(each => each.toFixed(1)).join(' ')),
      note('rounds', rounds.length),
      note('faults', steps.length),
      ...COUNTED.map(name => note(`counts.${name}`, counts[name])),
      note(
        'takeovers',
        outcomes.reduce((sum, { takeovers }) => sum + takeovers, 0)
      ),
      note(
        'epochs committed',
        outcomes.reduce((sum, { epochs }) => sum + epochs, 0)
      ),
      note(
        'longest until all VMs worked after the last heal',
        most(({ backMs }) => backMs),
        's'
      ),
      note(
        'longest until redundancy was full',
        most(({ redundantMs }) => redundantMs),
        's'
      ),
      ...(silences.length === 0 ? [] : [note('shortest silence between two owners', Math.min(...silences), 'ms')])
    ],
    runs: outcomes.map(({ stints, ...outcome }) => ({
      ...outcome,
      // JSON knows no such numbers.
      stints: stints.map(stint => ({ ...stint, firstSeq: String(stint.firstSeq), lastSeq: String(stint.lastSeq) }))
    }))
  }
}

/** What is added up over runs. */
function total(outcomes: readonly Outcome[]): Counts {
  const sum = { kills: 0, powerLosses: 0, partitions: 0 }
  for (const { counts } of outcomes) for (const name of COUNTED) sum[name] += counts[name]
  return sum
}
