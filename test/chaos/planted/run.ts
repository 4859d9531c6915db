/** Runs scenarios with a mistake planted in the peers: each must break its promise. */
import type { Check } from '../../measure.ts'
import { type Fault, nothing } from '../fault.ts'
import type { Outcome, RunOptions } from '../supervisor.ts'
import type { Entry } from '../timeline.ts'
import { kindOf, kindsOf, mayBeBusy, type PromiseName } from './kinds.ts'
import type { Mistake } from './mistake.ts'

export interface Found {
  readonly mistake: string
  readonly scenario: string
  readonly seed: number
  /** The promises of which it must break one, and those that broke, in order. */
  readonly expected: readonly PromiseName[]
  readonly promises: readonly PromiseName[]
  /** Since the run began; null: the promise held. */
  readonly foundMs: number | null
  /** That began until then. */
  readonly rounds: number
  readonly broken: readonly string[]
}

/** What `runScenario` is to be given; `timeline` is listened to. */
export function runOf(mistake: Mistake, faults: ReadonlyMap<string, Fault>): Pick<RunOptions, 'scenario' | 'faults'> {
  const { scenario } = mistake
  const planted = preparing(mistake)
  return {
    scenario: { ...scenario, name: `planted-${mistake.name}`, faults: [...scenario.faults, planted.name] },
    faults: new Map([...faults, [planted.name, planted]])
  }
}

/**
 * Nothing is done to a host but that its peers are started with the hook. Their threads get it with the environment; code that was
 * compiled before is not taken for what the hook gives, for Node's cache knows modules by their text.
 */
const preparing = ({ name }: Mistake): Fault => ({
  name: 'planted',
  about: `its peer has the mistake ${name}`,
  lasts: { leastMs: 0, mostMs: 0 },
  reach: 'one',
  prepare: async () => ({ NODE_OPTIONS: [process.env['NODE_OPTIONS'], hookOption(name)].filter(Boolean).join(' ') }),
  begin: async () => nothing
})

const HOOK = new URL('./hook.ts', import.meta.url).href

export const hookOption = (name: string): string => `--import=${HOOK}?mistake=${name}`

/** Calls `found` when the promise is broken: the rest of the run would tell nothing new. */
export function watching(mistake: Mistake, found: () => void): (entry: Entry) => void {
  return ({ kind, text }) => {
    if (kind === 'broken' && mistake.promises.includes(kindOf(text))) found()
  }
}

export function foundBy(
  { name, promises: expected, seed, scenario }: Mistake,
  { broken, entries }: Pick<Outcome, 'broken' | 'entries'>
): Found {
  const first = entries.find(({ kind, text }) => kind === 'broken' && expected.includes(kindOf(text)))
  return {
    mistake: name,
    scenario: scenario.name,
    seed,
    expected,
    promises: kindsOf(broken),
    foundMs: first?.atMs ?? null,
    rounds: entries.filter(({ kind }) => kind === 'round').length,
    broken
  }
}

export const plantedCheck = ({ mistake, expected, promises }: Found): Check => ({
  name: `planted ${mistake}`,
  value: promises.join(', ') || 'none',
  unit: '',
  bound: expected.join(' or '),
  ok: promises.some(each => expected.includes(each))
})

/**
 * What it found is only that something did not come, or came late, which a machine that is too busy does as well, by whichever name the
 * promise goes: the scenario must be green without the mistake just then.
 */
export function saysLittle({ expected, broken }: Pick<Found, 'expected' | 'broken'>): boolean {
  const its = broken.filter(each => expected.includes(kindOf(each)))
  return its.length > 0 && its.every(mayBeBusy)
}

/** Of a scenario without a mistake. */
export const soundCheck = (scenario: string, broken: readonly string[]): Check => ({
  name: `${scenario} without a mistake`,
  value: kindsOf(broken).join(', ') || 'none',
  unit: '',
  bound: 'none',
  ok: broken.length === 0
})
