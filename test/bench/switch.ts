/**
 * What the peers' switch costs, in one run on one machine. Two real VMs through two peers, through one, and with their QEMUs
 * socket to socket take turns, round after round, each round beginning with another one; a ratio or difference is of the
 * numbers of one round, and the median over rounds counts, of the half of them in which other programs took least of the
 * machine: what else it does comes and goes over minutes.
 * Then the switch alone, with synthetic frames (switch-alone.ts).
 *
 * All VMs and peers share the machine's cores. Where that are fewer than are busy (two VMs of two busy threads each, and
 * the peers), what a peer takes of a core is missing to the VMs, as it would not be on a host with cores to spare: the
 * processor time of the peers per frame says how much that is.
 */
import { UsageError } from '../../node/errors.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'
import { processorUs, watchOthers } from './processor.ts'
import { measureSwitchAlone } from './switch-alone.ts'
import { measureBy, type Pair, type Pairs, startPairs } from './switch-pairs.ts'

const ROUNDS = 7
const STREAM_MS = 1_500
const PINGS = 2_000
/**
 * Addresses are resolved, windows open, and above all the peers' code is compiled: a lone frame costs two peers 200 µs of
 * processor at first and 90 after 16,000 (switch-alone.ts). A peer runs for weeks.
 */
const WARM_STREAM_MS = 2_000
const WARM_PINGS = 16_000
/** As `ping` has it. */
const PING_BYTES = 56
/** TCP's share of a frame: less 20 bytes of IP, 20 of TCP and 12 of its timestamps. */
const SEGMENTS = { 1500: 1448, 9000: 8948 } as const
type Mtu = keyof typeof SEGMENTS
const MTUS: readonly Mtu[] = [1500, 9000]

const LEAST_SHARE = 0.8
const MOST_ADDED_US = 150
type Way = 'two' | 'one' | 'none'
const WAYS: readonly Way[] = ['two', 'one', 'none']
const PEERED: readonly Way[] = ['two', 'one']

interface Stream {
  readonly mbitPerS: number
  readonly resent: number
  /** Processor time of all peers on the way, for each frame with data. */
  readonly peerUs: number
}

interface Measurement {
  readonly streams: Readonly<Record<Mtu, Stream>>
  /** Median, tenth and ninetieth percentile of a round trip. */
  readonly rttUs: number
  readonly rttP10Us: number
  readonly rttP90Us: number
  readonly pingsLost: number
  /** Processor time of all peers on the way, for each round trip. */
  readonly pingUs: number
}

interface Round extends Readonly<Record<Way, Measurement>> {
  /** Share of the processors that other programs took, 0 to 1. */
  readonly others: number
}

export async function measureSwitch(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const { part = 'all' } = options
  const rounds = Number(options['rounds'] ?? ROUNDS)
  if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError('BENCH_USAGE', '--rounds is a number from 1')
  if (!['all', 'vms', 'alone'].includes(part)) throw new UsageError('BENCH_USAGE', '--part is all, vms or alone')
  const vms = part === 'alone' ? undefined : await measureVms(progress, rounds)
  const alone = part === 'vms' ? undefined : await measureSwitchAlone(progress)
  return {
    checks: [...(vms?.checks ?? []), ...(alone?.checks ?? [])],
    details: { ...vms?.details, ...alone?.details },
    ...(vms === undefined ? {} : { accel: vms.accel })
  }
}

async function measureVms(progress: (line: string) => void, count: number) {
  const pairs = await startPairs(progress)
  let leftovers: string[] | undefined
  try {
    for (const way of WAYS) {
      progress(`warming up: ${pairs[way].name}`)
      await measure(pairs[way], WARM_STREAM_MS, WARM_PINGS)
    }
    const rounds: Round[] = []
    for (let number = 0; number < count; number++) {
      rounds.push(await measureRound(pairs, number))
      progress(
        `round ${number + 1} of ${count}: ${WAYS.map(way => lineOf(pairs[way], rounds[number]?.[way])).join('; ')}`
      )
    }
    leftovers = await pairs.stop()
    return {
      checks: [...checksOf(rounds), equal('sockets, processes and folders left behind', leftovers.length, 0)],
      details: { rounds, leftovers, streamMs: STREAM_MS, pings: PINGS, pingBytes: PING_BYTES },
      accel: pairs.accel
    }
  } finally {
    if (leftovers === undefined) await pairs.stop()
  }
}

async function measureRound(pairs: Pairs, number: number): Promise<Round> {
  const round: Partial<Record<Way, Measurement>> = {}
  const others = watchOthers()
  for (let turn = 0; turn < WAYS.length; turn++) {
    const way = WAYS[(number + turn) % WAYS.length] as Way
    round[way] = await measure(pairs[way], STREAM_MS, PINGS)
  }
  return { ...(round as Record<Way, Measurement>), others: others() }
}

async function measure(pair: Pair, streamMs: number, pings: number): Promise<Measurement> {
  const before = processorUs(pair.peerPids)
  const ping = await measureBy(pair, 'ping', pings, PING_BYTES)
  const pingUs = (processorUs(pair.peerPids) - before) / pings
  const streams: Partial<Record<Mtu, Stream>> = {}
  for (const mtu of MTUS) streams[mtu] = await stream(pair, mtu, streamMs)
  return {
    streams: streams as Record<Mtu, Stream>,
    pingUs,
    rttUs: ping.value('medianUs'),
    rttP10Us: ping.value('p10Us'),
    rttP90Us: ping.value('p90Us'),
    pingsLost: ping.value('lost')
  }
}

async function stream(pair: Pair, mtu: Mtu, ms: number): Promise<Stream> {
  const before = processorUs(pair.peerPids)
  const report = await measureBy(pair, 'stream', ms, SEGMENTS[mtu])
  const bytes = report.value('bytes')
  if (bytes !== report.value('got')) throw new Error(`of ${bytes} bytes ${report.value('got')} came`)
  return {
    mbitPerS: (bytes * 8) / report.value('us'),
    resent: report.value('again'),
    peerUs: (processorUs(pair.peerPids) - before) / (bytes / SEGMENTS[mtu])
  }
}

// ---------------------------------------------------------------------------------------------- judging

/** Of the rounds in which other programs took least. */
function checksOf(all: readonly Round[]): Check[] {
  const rounds = all.toSorted((a, b) => a.others - b.others).slice(0, Math.ceil(all.length / 2))
  const overRounds = (of: (round: Round) => number): number => median(rounds.map(of))
  const share = (way: Way, mtu: Mtu) =>
    overRounds(round => round[way].streams[mtu].mbitPerS / round.none.streams[mtu].mbitPerS)
  const added = (way: Way) => overRounds(round => round[way].rttUs - round.none.rttUs)
  const sum = (of: (measurement: Measurement) => number): number =>
    rounds.flatMap(round => WAYS.map(way => of(round[way]))).reduce((total, value) => total + value, 0)
  return [
    ...MTUS.flatMap(mtu => [
      ...WAYS.map(way => {
        const mbitPerS = overRounds(round => round[way].streams[mtu].mbitPerS)
        return note(`${NAMES[way]}: throughput, ${mtu} bytes`, mbitPerS, 'Mb/s')
      }),
      note(`${NAMES.two} / ${NAMES.none}: throughput, ${mtu} bytes`, share('two', mtu)),
      atLeast(`${NAMES.one} / ${NAMES.none}: throughput, ${mtu} bytes`, share('one', mtu), LEAST_SHARE, ''),
      ...PEERED.map(way => {
        const us = overRounds(round => round[way].streams[mtu].peerUs)
        return note(`${NAMES[way]}: processor time, ${mtu} bytes`, us, 'µs/frame')
      })
    ]),
    ...WAYS.map(way => {
      const rttUs = overRounds(round => round[way].rttUs)
      return note(`${NAMES[way]}: round trip`, rttUs, 'µs')
    }),
    ...PEERED.map(way => {
      // The sum: in one round it is a few ticks.
      const us = rounds.reduce((sum, round) => sum + round[way].pingUs, 0) / rounds.length
      return note(`${NAMES[way]}: processor time of a round trip`, us, 'µs')
    }),
    atMost('round trip added by one peer', added('one'), MOST_ADDED_US, 'µs'),
    atMost('round trip added by each of two peers', added('two') / 2, MOST_ADDED_US, 'µs'),
    note('processors taken by other programs', 100 * overRounds(({ others }) => others), '%'),
    note(
      'segments sent again',
      sum(({ streams }) => MTUS.reduce((all, mtu) => all + streams[mtu].resent, 0))
    ),
    equal(
      'pings lost',
      sum(({ pingsLost }) => pingsLost),
      0
    )
  ]
}

const NAMES: Readonly<Record<Way, string>> = { two: 'two peers', one: 'one peer', none: 'QEMU to QEMU' }

const lineOf = ({ name }: Pair, measured: Measurement | undefined): string =>
  `${name} ${MTUS.map(mtu => measured?.streams[mtu].mbitPerS.toFixed(0)).join(' and ')} Mb/s, ${measured?.rttUs.toFixed(0)} µs`

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2
}
