/**
 * A scenario is rounds of faults; after each round everything is to come back, and is checked. What happens in a round is
 * drawn from the seed and the round's number alone, before it begins: the same seed makes the same faults on any machine, also where
 * an earlier round went otherwise, as long as the lists of faults and scenarios are the same. Pure.
 */
import { generator } from '../sim/kernel.ts'
import type { Fault } from './fault.ts'

/** One fault. */
export interface Step {
  /** Since the round began. */
  readonly atMs: number
  readonly fault: string
  /** 0 for h1. */
  readonly host: number
  /** From its beginning to its heal. */
  readonly lastsMs: number
  /** Of what the fault itself draws. */
  readonly seed: number
}

export interface Scenario {
  readonly name: string
  readonly about: string
  /** Names of all faults that may come: what they need is prepared before the peers start. */
  readonly faults: readonly string[]
  /** Rounds of a run that has no time given. */
  readonly rounds: number
  round(draw: Draw, turn: Turn): readonly Omit<Step, 'seed'>[]
}

export interface Turn {
  /** From 0. */
  readonly number: number
  readonly hosts: number
}

/** Steps in the order in which they begin. */
export function planRound(scenario: Scenario, seed: number, turn: Turn): Step[] {
  const draw = new Draw(mix(seed, turn.number))
  return [...scenario.round(draw, turn)].sort((a, b) => a.atMs - b.atMs).map(step => ({ ...step, seed: draw.seed() }))
}

/** Seeds that are next to each other give numbers that have nothing to do with each other (Knuth's multiplicative hash). */
export const mix = (seed: number, number: number): number =>
  (Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0

/** Chance, from a seed. */
export class Draw {
  readonly random: () => number

  constructor(seed: number) {
    this.random = generator(seed)
  }

  /** A whole number of [low, high]. */
  between(low: number, high: number): number {
    return low + Math.floor(this.random() * (high - low + 1))
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)] as T
  }

  chance(probability: number): boolean {
    return this.random() < probability
  }

  seed(): number {
    return Math.floor(this.random() * 2 ** 32)
  }

  /** How long a fault lasts, at most `mostMs`. */
  lasts({ lasts }: Fault, mostMs: number): number {
    return this.between(lasts.leastMs, Math.max(lasts.leastMs, Math.min(lasts.mostMs, mostMs)))
  }
}

/** What is done and undone in a round, in order: a fault that lasts no time is undone before what comes at its moment. */
export interface Action {
  readonly atMs: number
  readonly step: Step
  readonly heals: boolean
}

export function actionsOf(steps: readonly Step[]): Action[] {
  const actions = steps.flatMap((step, order) => [
    { atMs: step.atMs, step, heals: false, order: 2 * order },
    { atMs: step.atMs + step.lastsMs, step, heals: true, order: 2 * order + 1 }
  ])
  return actions
    .sort((a, b) => a.atMs - b.atMs || a.order - b.order)
    .map(({ atMs, step, heals }) => ({ atMs, step, heals }))
}
