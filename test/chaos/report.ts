/** Outcomes of scenarios → checks. Pure. */
import { type Check, equal, note } from '../measure.ts'
import type { Outcome } from './supervisor.ts'

/** What is counted together in the README: how often something of this kind was done to a host or to all of them. */
const KINDS: readonly (readonly [string, RegExp])[] = [
  ['kills', /^kill-/],
  ['power losses', /power-loss$/],
  ['partitions', /^(partition|bridge|cut-off|mute|deaf)$/]
]

export function reportOf(outcomes: readonly Outcome[]): { checks: Check[]; runs: unknown[] } {
  const steps = outcomes.flatMap(({ rounds }) => rounds.flatMap(round => round.steps))
  const rounds = outcomes.flatMap(outcome => outcome.rounds)
  const silences = outcomes.flatMap(({ shortestSilenceMs }) => shortestSilenceMs ?? [])
  const most = (of: (round: Outcome['rounds'][number]) => number | null) =>
    Math.max(0, ...rounds.map(round => (of(round) ?? 0) / 1000))
  return {
    checks: [
      ...outcomes.map(({ scenario, broken }) => equal(`${scenario}: promises broken`, broken.length, 0)),
      note('rounds', rounds.length),
      note('faults', steps.length),
      ...KINDS.map(([name, pattern]) => note(name, steps.filter(({ fault }) => pattern.test(fault)).length)),
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
