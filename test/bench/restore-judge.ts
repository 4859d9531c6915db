/** What `restore` measured → checks and a table. Pure. */
import { table } from '../../node/edge/format.ts'
import { below, type Check } from '../measure.ts'
import type { LocalRound } from './restore-local.ts'
import type { Completed, Resumed } from './restore-vm.ts'

export const SIZES_MIB = [256, 1_024, 4_096] as const
export const WAYS = ['plain'] as const
export type Way = (typeof WAYS)[number]

/** What the issue of the project asks for that restores came from. */
const GROWTH = 1.2
const RUN_MS = 400

export interface Round extends Resumed {
  /** Undefined: nobody waited for it. */
  readonly completed: Completed | undefined
}

export interface SizeSeen {
  readonly memoryMiB: number
  readonly rounds: Readonly<Record<Way, readonly Round[]>>
  readonly incoming: readonly LocalRound[]
  readonly loadvm: readonly LocalRound[]
}

/** NaN of none. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

export function checksOf(seen: readonly SizeSeen[]): Check[] {
  const runMs = (way: Way, memoryMiB: number): number =>
    median(seen.find(size => size.memoryMiB === memoryMiB)?.rounds[way].map(round => round.runMs) ?? [])
  const [least, most] = [Math.min(...SIZES_MIB), Math.max(...SIZES_MIB)]
  const grows = [least, most].every(size => seen.some(({ memoryMiB }) => memoryMiB === size))
  return WAYS.flatMap(way => [
    ...(grows
      ? [below(`${way}: first instruction, ${most} MiB by ${least}`, runMs(way, most) / runMs(way, least), GROWTH, '')]
      : []),
    ...seen.map(({ memoryMiB }) =>
      below(`${way}: first instruction, ${memoryMiB} MiB`, runMs(way, memoryMiB), RUN_MS, 'ms')
    )
  ])
}

/** Medians. */
export function tableOf(seen: readonly SizeSeen[]): string[] {
  const rows = seen.flatMap(size => [
    ...WAYS.map(way => [way, `${size.memoryMiB}`, ...wayRow(size.rounds[way])]),
    ["QEMU's -incoming", `${size.memoryMiB}`, ...localRow(size.incoming)],
    ["QEMU's loadvm", `${size.memoryMiB}`, ...localRow(size.loadvm)]
  ])
  const heads = ['', 'MiB', 'first instruction', 'first answer', 'all pages', 'faults', 'MB before it runs']
  return ['ms since the decision', ...table([heads, ...rows])]
}

const number = (value: number): string => (Number.isNaN(value) ? '' : Math.round(value).toLocaleString('en'))

function wayRow(rounds: readonly Round[]): string[] {
  const whole = rounds.flatMap(({ completed }) => completed ?? [])
  return [
    number(median(rounds.map(round => round.runMs))),
    number(median(rounds.map(round => round.answerMs))),
    number(median(whole.map(each => each.completeMs))),
    number(median(whole.map(each => each.pagesFaulted))),
    (median(rounds.map(round => round.bytesBefore)) / 1e6).toFixed(1)
  ]
}

/** All is there before it runs. */
function localRow(rounds: readonly LocalRound[]): string[] {
  const runMs = number(median(rounds.map(round => round.runMs)))
  return [runMs, number(median(rounds.map(round => round.answerMs))), runMs, '', '']
}
