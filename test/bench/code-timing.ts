/** Times of pieces of work that take turns, so that whatever else the machine does falls on all of them alike. */
import { quantile } from '../../protocols/epoch/cut-profile.ts'

export interface Work {
  /** Not timed, before each run. */
  prepare?(): void
  run(): Promise<unknown>
}

/** Milliseconds of each at its lower quartile: what the machine can do when nobody disturbs it. */
export async function takeTurns<Name extends string>(
  works: Readonly<Record<Name, Work>>,
  rounds: number
): Promise<Record<Name, number>> {
  const names = Object.keys(works) as Name[]
  const times = new Map<Name, number[]>(names.map(name => [name, []]))
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + round) % names.length] as Name // nobody always comes after the same one
      works[name].prepare?.()
      const begin = performance.now()
      await works[name].run()
      if (round > 0) times.get(name)?.push(performance.now() - begin) // the first warms up
    }
  }
  return Object.fromEntries(names.map(name => [name, quantile(times.get(name) ?? [], 0.25)])) as Record<Name, number>
}

/** Of a piece of work on `bytes`, for so many megabytes in all; some at least. */
export const roundsFor = (bytes: number, megabytes: number): number =>
  Math.max(Math.min(8, megabytes), Math.min(400, Math.floor((megabytes * 1e6) / bytes)))

export const gigabytesPerSecond = (bytes: number, ms: number): number => bytes / ms / 1e6
