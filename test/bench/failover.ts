/**
 * What happens when the owner of a VM is killed, stopped or cut off, in a running cluster of real peers and VMs: how long
 * until it is noticed, decided and mended, and whether the old owner was silent before its successor spoke. `failover-rig.ts`
 * does it, `failover-judge.ts` says what to think of it.
 */
import { UsageError, messageOf } from '../../node/errors.ts'
import { table } from '../../node/edge/format.ts'
import { atMost, below, type Check, equal, note } from '../measure.ts'
import { type Fault, FAULTS, judge, type Round } from './failover-judge.ts'
import { Rig } from './failover-rig.ts'
import type { Measured, OptionValues } from './list.ts'

/** From kill -9 to decided and to the last VM running, as issues of the project promise for default settings. */
const DECIDED_MEDIAN_MS = 1_500
const RUNNING_MEDIAN_MS = 2_500
const STANDBY_RUNNING_MEDIAN_MS = 1_500
/** Unless told. */
const KILLS = 20
const ROUNDS = 5

/** Rounds of one fault, in one cluster with others of the same `standby`. */
interface Part {
  readonly name: Fault | 'standby'
  readonly fault: Fault
  /** Whether copies of all VMs are kept. */
  readonly standby: boolean
  readonly rounds: number
}

const PARTS: readonly Part[] = [
  ...FAULTS.map(fault => ({ name: fault, fault, standby: false, rounds: fault === 'kill' ? KILLS : ROUNDS })),
  { name: 'standby', fault: 'kill', standby: true, rounds: KILLS }
]
const NAMES = PARTS.map(({ name }) => name)

/** A round that could not be told to its end. */
interface Lost {
  readonly number: number
  readonly error: string
}

interface Found {
  readonly part: Part
  readonly rounds: Round[]
  readonly lost: Lost[]
  /** Of the workload, at the end. */
  audit: readonly string[]
}

/** Of one cluster. */
interface ClusterSeen {
  readonly accel: string
  readonly clockStepMs: number
  readonly leftovers: readonly string[]
  readonly segmentsLost: number
  /** What ended it early. */
  readonly error: string | undefined
}

export async function measureFailover(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const found = readParts(options).map((part): Found => ({ part, rounds: [], lost: [], audit: [] }))
  const clusters: ClusterSeen[] = []
  for (const standby of [false, true]) {
    const own = found.filter(({ part }) => part.standby === standby)
    if (own.length > 0) clusters.push(await inOneCluster(standby, own, progress))
  }
  const leftovers = clusters.flatMap(cluster => cluster.leftovers)
  const most = (of: (cluster: ClusterSeen) => number): number => Math.max(...clusters.map(of))
  const checks = [
    ...found.flatMap(checksOf),
    equal(
      'wire.segmentsLost',
      most(({ segmentsLost }) => segmentsLost),
      0
    ),
    atMost(
      'clock.stepMs',
      most(({ clockStepMs }) => clockStepMs),
      5,
      'ms'
    ),
    equal('leftovers', leftovers.length, 0)
  ]
  const violations = found.flatMap(violationsIn)
  const errors = clusters.flatMap(({ error }) => error ?? [])
  const details = { options, violations: violations.length, parts: found, leftovers, errors }
  return { checks, accel: clusters[0]?.accel ?? '', details, text: [...tableOf(found), ...violations] }
}

async function inOneCluster(
  standby: boolean,
  found: readonly Found[],
  progress: (line: string) => void
): Promise<ClusterSeen> {
  progress(`starting five peers on five hosts, and three VMs${standby ? ' with standby copies' : ''}`)
  const rig = await Rig.start({ standby })
  const accel = await rig.hypervisor()
  let error: string | undefined
  try {
    for (const part of found) await breakAndMend(rig, part, progress)
  } catch (reason) {
    error = messageOf(reason)
    progress(`the cluster is beyond repair: ${error}`)
  }
  const { clockStepMs } = rig
  return { accel, clockStepMs, error, ...(await rig.stop()) }
}

function readParts({ fault = 'all', rounds }: OptionValues): Part[] {
  const parts = fault === 'all' ? PARTS : PARTS.filter(({ name }) => name === fault)
  if (parts.length === 0)
    throw new UsageError('BENCH_USAGE', `--fault takes ${NAMES.join(', ')} or all, not ${JSON.stringify(fault)}`)
  if (rounds !== undefined && !/^[1-9]\d{0,3}$/.test(rounds))
    throw new UsageError('BENCH_USAGE', `--rounds takes a whole number from 1 to 9999, not ${JSON.stringify(rounds)}`)
  return parts.map(part => ({ ...part, rounds: Number(rounds ?? part.rounds) }))
}

async function breakAndMend(rig: Rig, found: Found, progress: (line: string) => void): Promise<void> {
  const { name, fault, rounds } = found.part
  for (let number = 1; number <= rounds; number++) {
    try {
      const round = judge(await rig.round(number, fault))
      found.rounds.push(round)
      progress(`${name} ${number}/${rounds}: ${roundText(round)}`)
    } catch (reason) {
      const error = messageOf(reason)
      found.lost.push({ number, error })
      progress(`${name} ${number}/${rounds}: NOT TOLD TO ITS END: ${error}`)
      await rig.mend()
    }
  }
  found.audit = await rig.audit()
  progress(`${name}: the bank is ${found.audit.length === 0 ? 'sound' : `not sound: ${found.audit.join('; ')}`}`)
}

function roundText({ owner, vms, violations, failures, frames, wire, ...times }: Round): string {
  const ms = (value: number | null) => (value === null ? '?' : Math.round(value).toLocaleString('en'))
  const { detectedMs: detected, decidedMs: decided, resumedMs: resumed, completeMs: complete } = times
  const steps = { detected, decided, resumed, complete, moving: times.movingMs, healthy: times.healthyMs }
  return [
    `${owner} with ${vms.join(' and ')}: ${Object.entries(steps)
      .map(([name, value]) => `${name} ${ms(value)}`)
      .join(', ')} ms`,
    `silent for ${ms(frames.silenceMs)} ms, ${frames.oldRefused} old frames refused (${frames.oldRefusedAfter} of its own, late), ${wire.connections} connections watched`,
    ...failures.map(failure => `failed: ${failure}`),
    violations.length === 0 ? 'ok' : violations.join('; ').toUpperCase()
  ].join('; ')
}

function violationsIn({ part: { name }, rounds, lost, audit }: Found): string[] {
  return [
    ...rounds.flatMap(({ number, violations }) => violations.map(each => `${name} ${number}: ${each}`)),
    ...lost.map(({ number, error }) => `${name} ${number}: not told to its end: ${error}`),
    ...audit.map(each => `after ${name}: ${each}`)
  ]
}

function checksOf(found: Found): Check[] {
  const { part, rounds } = found
  const { name, fault } = part
  const of = (value: (round: Round) => number | null, at: number): number => quantile(rounds.map(value), at)
  const decided = note(
    `${name}.decidedMs.p50`,
    of(round => round.decidedMs, 0.5),
    'ms'
  )
  return [
    equal(`${name}.rounds`, rounds.length, part.rounds),
    equal(`${name}.violations`, violationsIn(found).length, 0),
    ...(fault === 'kill' ? killChecks(found) : [decided]),
    note(
      `${name}.silenceMs.least`,
      of(round => round.frames.silenceMs, 0),
      'ms'
    ),
    note(
      `${name}.stallMs.most`,
      of(round => round.stallMs, 1),
      'ms'
    ),
    note(
      `${name}.timeouts of TCP`,
      rounds.reduce((sum, { timeouts }) => sum + timeouts, 0)
    )
  ]
}

/** What is promised of a host that is lost. */
function killChecks({ part: { name, standby }, rounds }: Found): Check[] {
  const bounds: Readonly<Record<string, number>> = {
    decided: DECIDED_MEDIAN_MS,
    'last running': standby ? STANDBY_RUNNING_MEDIAN_MS : RUNNING_MEDIAN_MS
  }
  const steps: readonly (readonly [string, (round: Round) => number | null])[] = [
    ['detected', round => round.detectedMs],
    ['decided', round => round.decidedMs],
    ['first running', round => round.firstResumedMs],
    ['last running', round => round.resumedMs],
    ['moving', round => round.movingMs]
  ]
  const timesOf = steps.flatMap(([step, of]) => {
    const median = quantile(rounds.map(of), 0.5)
    const [bound, first] = [bounds[step], `${name}.${step}.p50`]
    return [
      bound === undefined ? note(first, median, 'ms') : below(first, median, bound, 'ms'),
      note(`${name}.${step}.p95`, quantile(rounds.map(of), 0.95), 'ms')
    ]
  })
  const lost = rounds.reduce((sum, { timeoutsOfLost }) => sum + timeoutsOfLost, 0)
  return [...timesOf, equal(`${name}.timeouts of TCP by lost frames`, lost, 0)]
}

const columns: readonly (readonly [string, (round: Round) => number | null])[] = [
  ['suspected', round => round.suspectedMs],
  ['detected', round => round.detectedMs],
  ['decided', round => round.decidedMs],
  ['first runs', round => round.firstResumedMs],
  ['last runs', round => round.resumedMs],
  ['complete', round => round.completeMs],
  ['moving', round => round.movingMs],
  ['healthy', round => round.healthyMs - round.endedMs],
  ['last old frame', round => Math.max(round.frames.lastOldSentMs ?? 0, round.frames.lastOldAcceptedMs ?? 0)],
  ['first new frame', round => round.frames.firstNewMs],
  ['silence', round => round.frames.silenceMs],
  ['stall', round => round.stallMs],
  ['timeouts', round => round.timeouts]
]

/** Milliseconds since the fault ("healthy": since its end): least, median, 95 % and most of the rounds. */
function tableOf(found: readonly Found[]): string[] {
  const rows = found.flatMap(({ part, rounds }) =>
    [['least', 0] as const, ['median', 0.5] as const, ['95 %', 0.95] as const, ['most', 1] as const].map(
      ([name, at]) => [
        name === 'least' ? `${part.name} × ${rounds.length}` : '',
        name,
        ...columns.map(([, of]) => Math.round(quantile(rounds.map(of), at)).toLocaleString('en'))
      ]
    )
  )
  return [
    'ms since the fault (healthy: since its end)',
    ...table([['', '', ...columns.map(([name]) => name)], ...rows])
  ]
}

/** NaN where nothing was seen, or not in every round. */
function quantile(values: readonly (number | null)[], at: number): number {
  if (values.length === 0 || values.includes(null)) return Number.NaN
  const sorted = values.map(Number).sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(at * sorted.length) - 1)] as number
}
