/** Epochs of a group as rows of a timeline: what all VMs of each cost together. Pure. */
import type { EpochPast } from '../../edge/history-view.ts'
import { bytesOf, durationOf, momentOf } from './text.ts'

export interface EpochRow extends EpochPast {
  /** `generation.epoch`. */
  readonly key: string
  /** The longest of a VM, and which VM that was. */
  readonly pauseMs: number | undefined
  readonly slowest: string | undefined
  /** Of all VMs. */
  readonly changedBytes: number | undefined
  readonly storedBytes: number | undefined
  readonly inFlight: number | undefined
}

export const keyOf = ({ generation, epoch }: Pick<EpochPast, 'generation' | 'epoch'>): string =>
  `${generation}.${epoch}`

export function rowOf(past: EpochPast): EpochRow {
  let [pauseMs, slowest]: [number | undefined, string | undefined] = [undefined, undefined]
  for (const vm of past.vms) {
    if (vm.pauseMs === undefined || vm.pauseMs <= (pauseMs ?? -1)) continue
    pauseMs = vm.pauseMs
    slowest = vm.vm
  }
  const sum = (name: 'changedBytes' | 'storedBytes' | 'inFlight'): number | undefined => {
    const known = past.vms.flatMap(vm => vm[name] ?? [])
    return known.length === 0 ? undefined : known.reduce((total, each) => total + each, 0)
  }
  return {
    ...past,
    key: keyOf(past),
    pauseMs,
    slowest,
    changedBytes: sum('changedBytes'),
    storedBytes: sum('storedBytes'),
    inFlight: sum('inFlight')
  }
}

/** `fresh` are the newest, all that there are from their first on: what was known of those is replaced. */
export function joinEpochs(known: readonly EpochRow[], fresh: readonly EpochPast[]): readonly EpochRow[] {
  const [first] = fresh
  if (first === undefined) return known
  const isOlder = (row: EpochRow): boolean =>
    row.generation < first.generation || (row.generation === first.generation && row.epoch < first.epoch)
  return [...known.filter(isOlder), ...fresh.map(rowOf)]
}

/** Half of what is shown around an epoch that is alone, in seconds: six times the default interval. */
const AROUND_S = 30

/** From when until when a chart shows, in seconds, where its data are of `first` until `last`: a lone moment has some time around it. */
export const stretchOf = (first: number, last: number): [number, number] =>
  last > first ? [first, last] : [first - AROUND_S, first + AROUND_S]

/** What stands under the chart for the epoch that is pointed at. */
export function epochText(row: EpochRow): string {
  const { epoch, atMs, outcome, tookMs, why, pauseMs, slowest, skewMs, storedBytes } = row
  const ended = tookMs === undefined ? outcome : `${outcome} after ${durationOf(tookMs)}`
  return [
    `epoch ${epoch}`,
    atMs === undefined ? undefined : momentOf(atMs),
    why === undefined ? ended : `${ended}: ${why}`,
    pauseMs === undefined ? undefined : `longest pause ${fine(pauseMs)} (${slowest ?? ''})`,
    skewMs === undefined ? undefined : `skew ${fine(skewMs)}`,
    storedBytes === undefined ? undefined : `${bytesOf(storedBytes)} stored`
  ]
    .filter(words => words !== undefined)
    .join(' · ')
}

/** Pauses and skews are told from each other by parts of a millisecond. */
export const fine = (ms: number): string => (ms < 100 ? `${ms.toFixed(1)} ms` : durationOf(ms))

/** For who cannot see the chart. */
export function timelineText(rows: readonly EpochRow[]): string {
  const aborted = rows.filter(({ outcome }) => outcome === 'aborted').length
  const pauses = rows.flatMap(({ pauseMs }) => pauseMs ?? []).toSorted((a, b) => a - b)
  const half = pauses[Math.floor(pauses.length / 2)]
  const worst = pauses.at(-1)
  const words =
    half === undefined || worst === undefined
      ? ''
      : `; longest pause ${fine(half)} in the middle, ${fine(worst)} at worst`
  return `${rows.length} epochs, ${aborted} aborted${words}. The table below has each.`
}
