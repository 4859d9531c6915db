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
/** Of each fault, unless told. */
const ROUNDS: Readonly<Record<Fault, number>> = { kill: 20, stop: 5, pause: 5, partition: 5 }

interface Setup {
  readonly faults: readonly Fault[]
  /** Of this fault. */
  rounds(fault: Fault): number
}

/** A round that could not be told to its end. */
interface Lost {
  readonly number: number
  readonly fault: Fault
  readonly error: string
}

interface Found {
  readonly rounds: Round[]
  readonly lost: Lost[]
  readonly audits: { readonly fault: Fault; readonly faults: readonly string[] }[]
}

export async function measureFailover(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const setup = readSetup(options)
  progress('starting five peers on five hosts, and three VMs')
  const rig = await Rig.start()
  const found: Found = { rounds: [], lost: [], audits: [] }
  const accel = await rig.hypervisor()
  let error: string | undefined
  try {
    for (const fault of setup.faults) await breakAndMend(rig, fault, setup.rounds(fault), found, progress)
  } catch (reason) {
    error = messageOf(reason)
    progress(`the cluster is beyond repair: ${error}`)
  }
  const { clockStepMs } = rig
  const { leftovers, segmentsLost } = await rig.stop()
  const checks = [
    ...setup.faults.flatMap(fault => checksOf(fault, setup, found)),
    equal('wire.segmentsLost', segmentsLost, 0),
    atMost('clock.stepMs', clockStepMs, 5, 'ms'),
    equal('leftovers', leftovers.length, 0)
  ]
  const details = { options, violations: violationsIn(found).length, ...found, leftovers, error: error ?? null }
  return { checks, accel, details, text: [...tableOf(setup.faults, found), ...violationsIn(found)] }
}

function readSetup({ fault = 'all', rounds }: OptionValues): Setup {
  const faults = fault === 'all' ? FAULTS : FAULTS.filter(known => known === fault)
  if (faults.length === 0)
    throw new UsageError('BENCH_USAGE', `--fault takes ${FAULTS.join(', ')} or all, not ${JSON.stringify(fault)}`)
  if (rounds !== undefined && !/^[1-9]\d{0,3}$/.test(rounds))
    throw new UsageError('BENCH_USAGE', `--rounds takes a whole number from 1 to 9999, not ${JSON.stringify(rounds)}`)
  return { faults, rounds: known => Number(rounds ?? ROUNDS[known]) }
}

async function breakAndMend(
  rig: Rig,
  fault: Fault,
  rounds: number,
  found: Found,
  progress: (line: string) => void
): Promise<void> {
  for (let number = 1; number <= rounds; number++) {
    try {
      const round = judge(await rig.round(number, fault))
      found.rounds.push(round)
      progress(`${fault} ${number}/${rounds}: ${roundText(round)}`)
    } catch (reason) {
      const error = messageOf(reason)
      found.lost.push({ number, fault, error })
      progress(`${fault} ${number}/${rounds}: NOT TOLD TO ITS END: ${error}`)
      await rig.mend()
    }
  }
  const faults = await rig.audit()
  found.audits.push({ fault, faults })
  progress(`${fault}: the bank is ${faults.length === 0 ? 'sound' : `not sound: ${faults.join('; ')}`}`)
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

function violationsIn({ rounds, lost, audits }: Found): string[] {
  return [
    ...rounds.flatMap(({ fault, number, violations }) => violations.map(each => `${fault} ${number}: ${each}`)),
    ...lost.map(({ fault, number, error }) => `${fault} ${number}: not told to its end: ${error}`),
    ...audits.flatMap(({ fault, faults }) => faults.map(each => `after ${fault}: ${each}`))
  ]
}

function checksOf(fault: Fault, setup: Setup, found: Found): Check[] {
  const rounds = found.rounds.filter(round => round.fault === fault)
  const only = { ...found, rounds, lost: found.lost.filter(lost => lost.fault === fault) }
  const violations = violationsIn({ ...only, audits: found.audits.filter(audit => audit.fault === fault) })
  const of = (value: (round: Round) => number | null, at: number): number => quantile(rounds.map(value), at)
  return [
    equal(`${fault}.rounds`, rounds.length, setup.rounds(fault)),
    equal(`${fault}.violations`, violations.length, 0),
    ...(fault === 'kill'
      ? killChecks(rounds)
      : [
          note(
            `${fault}.decidedMs.p50`,
            of(round => round.decidedMs, 0.5),
            'ms'
          )
        ]),
    note(
      `${fault}.silenceMs.least`,
      of(round => round.frames.silenceMs, 0),
      'ms'
    ),
    note(
      `${fault}.stallMs.most`,
      of(round => round.stallMs, 1),
      'ms'
    ),
    note(
      `${fault}.timeouts of TCP`,
      rounds.reduce((sum, { timeouts }) => sum + timeouts, 0)
    )
  ]
}

/** What is promised of a host that is lost. */
function killChecks(rounds: readonly Round[]): Check[] {
  const bounds: Readonly<Record<string, number>> = { decided: DECIDED_MEDIAN_MS, 'last running': RUNNING_MEDIAN_MS }
  const steps: readonly (readonly [string, (round: Round) => number | null])[] = [
    ['detected', round => round.detectedMs],
    ['decided', round => round.decidedMs],
    ['first running', round => round.firstResumedMs],
    ['last running', round => round.resumedMs],
    ['moving', round => round.movingMs]
  ]
  const timesOf = steps.flatMap(([name, of]) => {
    const [median, late] = [0.5, 0.95].map(at => quantile(rounds.map(of), at)) as [number, number]
    const bound = bounds[name]
    const first = `kill.${name}.p50`
    return [
      bound === undefined ? note(first, median, 'ms') : below(first, median, bound, 'ms'),
      note(`kill.${name}.p95`, late, 'ms')
    ]
  })
  const lost = rounds.reduce((sum, { timeoutsOfLost }) => sum + timeoutsOfLost, 0)
  return [...timesOf, equal('kill.timeouts of TCP by lost frames', lost, 0)]
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
function tableOf(faults: readonly Fault[], found: Found): string[] {
  const rows = faults.flatMap(fault => {
    const rounds = found.rounds.filter(round => round.fault === fault)
    return [['least', 0] as const, ['median', 0.5] as const, ['95 %', 0.95] as const, ['most', 1] as const].map(
      ([name, at]) => [
        name === 'least' ? `${fault} × ${rounds.length}` : '',
        name,
        ...columns.map(([, of]) => Math.round(quantile(rounds.map(of), at)).toLocaleString('en'))
      ]
    )
  })
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
