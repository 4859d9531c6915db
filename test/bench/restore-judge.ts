/** What `restore` measured → checks and a table. Pure. */
import { table } from '../../node/edge/format.ts'
import { atLeast, below, type Check, note } from '../measure.ts'
import type { LocalRound } from './restore-local.ts'
import type { Completed, Resumed, Way } from './restore-vm.ts'

export const SIZES_MIB = [256, 1_024, 4_096] as const
export const WAYS: readonly Way[] = ['plain', 'working set', 'standby']
/** Out of shards. */
const REMOTE = ['plain', 'working set'] as const

/** What an issue of the project promises. */
const GROWTH = 1.2
const RUN_MS = 400
const STANDBY_MS = 30
const FAULTS_LESS = 0.9
const FASTER_MIB = 1_024
const FASTER = 5

export interface Round extends Resumed {
  /** Undefined: nobody waited for it. */
  readonly completed: Completed | undefined
}

export interface SizeSeen {
  readonly memoryMiB: number
  readonly rounds: Readonly<Record<Way, readonly Round[]>>
  /** Of each way one more, of which only what concerns faults counts. */
  readonly looked: Readonly<Partial<Record<Way, Round>>>
  readonly incoming: readonly LocalRound[]
  readonly loadvm: readonly LocalRound[]
}

/** NaN of none. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

export function checksOf(seen: readonly SizeSeen[]): Check[] {
  return [...growthChecks(seen), ...seen.flatMap(sizeChecks)]
}

const runMsOf = (rounds: readonly { readonly runMs: number }[]): number => median(rounds.map(({ runMs }) => runMs))

/** Times that do not grow with RAM. */
function growthChecks(seen: readonly SizeSeen[]): Check[] {
  const [least, most] = [Math.min(...SIZES_MIB), Math.max(...SIZES_MIB)].map(wanted =>
    seen.find(({ memoryMiB }) => memoryMiB === wanted)
  )
  if (least === undefined || most === undefined) return []
  return REMOTE.map(way => {
    const times = runMsOf(most.rounds[way]) / runMsOf(least.rounds[way])
    return below(`${way}: first instruction, ${most.memoryMiB} MiB by ${least.memoryMiB}`, times, GROWTH, '')
  })
}

function sizeChecks(size: SizeSeen): Check[] {
  const { memoryMiB, rounds, incoming, loadvm } = size
  const [plain, less] = [faultsOf(size, 'plain'), faultsOf(size, 'working set')]
  const local = Math.min(runMsOf(incoming), runMsOf(loadvm))
  const faster = local / runMsOf(rounds['working set'])
  const name = `working set: first instruction, QEMU's full load by it, ${memoryMiB} MiB`
  return [
    ...WAYS.map(way => {
      const bound = way === 'standby' ? STANDBY_MS : RUN_MS
      return below(`${way}: first instruction, ${memoryMiB} MiB`, runMsOf(rounds[way]), bound, 'ms')
    }),
    atLeast(`working set: part of faults that it saves, ${memoryMiB} MiB`, 1 - less / plain, FAULTS_LESS, ''),
    memoryMiB === FASTER_MIB ? atLeast(name, faster, FASTER, '') : note(name, faster)
  ]
}

/** Of the rounds in which all pages came. */
function faultsOf({ rounds, looked }: SizeSeen, way: Way): number {
  return median([...rounds[way], looked[way]].flatMap(round => round?.completed?.pagesFaulted ?? []))
}

/** Medians. */
export function tableOf(seen: readonly SizeSeen[]): string[] {
  const rows = seen.flatMap(size => [
    ...WAYS.map(way => [way, `${size.memoryMiB}`, ...wayRow(size, way)]),
    ["QEMU's -incoming", `${size.memoryMiB}`, ...localRow(size.incoming)],
    ["QEMU's loadvm", `${size.memoryMiB}`, ...localRow(size.loadvm)]
  ])
  const heads = [
    '',
    'MiB',
    'first instruction',
    'first answer',
    'all pages',
    'faults',
    'p50',
    'p99',
    'MB before it runs'
  ]
  return ['ms since the decision; faults: how many, and ms for each', ...table([heads, ...rows])]
}

const number = (value: number): string => (Number.isNaN(value) ? '' : Math.round(value).toLocaleString('en'))

function wayRow(size: SizeSeen, way: Way): string[] {
  const rounds = size.rounds[way]
  const looked = size.looked[way]
  const whole = rounds.flatMap(({ completed }) => completed?.completeMs ?? [])
  const faultMs = looked?.completed?.delivered?.faultMs ?? []
  const fault = (at: number) =>
    faultMs.length === 0
      ? ''
      : (faultMs[Math.min(faultMs.length - 1, Math.floor(at * faultMs.length))] ?? Number.NaN).toFixed(1)
  return [
    number(runMsOf(rounds)),
    number(median(rounds.map(round => round.answerMs))),
    number(whole.length === 0 ? (looked?.completed?.completeMs ?? Number.NaN) : median(whole)),
    number(faultsOf(size, way)),
    fault(0.5),
    fault(0.99),
    (median(rounds.map(round => round.bytesBefore)) / 1e6).toFixed(1)
  ]
}

/** All is there before it runs. */
function localRow(rounds: readonly LocalRound[]): string[] {
  const runMs = number(runMsOf(rounds))
  return [runMs, number(median(rounds.map(round => round.answerMs))), runMs, '', '', '', '']
}
