import { table } from '../../node/edge/format.ts'
import { type Check, atMost, equal } from '../measure.ts'
import type { Crash, Detection } from './detection-crashes.ts'
import { type FalseDeaths, GO_MS, type Trouble } from './detection-false.ts'
import type { Load } from './detection-load.ts'

export interface LoadRow {
  readonly peers: number
  readonly quiet: Load
  readonly loss: Load
}

export interface CrashRow extends Detection {
  readonly peers: number
  readonly variant: string
  readonly crash: Crash
}

export interface FalseRow extends FalseDeaths {
  readonly peers: number
  readonly variant: string
  readonly trouble: Trouble
}

export interface Rows {
  readonly loads: readonly LoadRow[]
  readonly crashes: readonly CrashRow[]
  readonly falseDeaths: readonly FalseRow[]
}

export const troubleText = (trouble: Trouble): string =>
  trouble.kind === 'loss' ? `${100 * trouble.loss} % loss` : `10 % starved for ${trouble.stopMs} ms at a time`

// ---------------------------------------------------------------------------------------------- checks

/** The largest cluster may cost a peer this much more than the smallest: room for what loss happens to hit. */
const FLAT = 1.3

export const checksOf = ({ loads, crashes, falseDeaths }: Rows): Check[] => [
  ...loadChecks(loads),
  ...crashChecks(crashes),
  ...falseChecks(falseDeaths)
]

function loadChecks(rows: readonly LoadRow[]): Check[] {
  const [small, large] = [rows[0] as LoadRow, rows.at(-1) as LoadRow]
  return (['quiet', 'loss'] as const).flatMap(when =>
    (['messages', 'bytes'] as const).map(what =>
      atMost(
        `load ${when}: ${what}, ${large.peers} : ${small.peers} peers`,
        large[when][what] / small[when][what],
        FLAT,
        'x'
      )
    )
  )
}

/**
 * A killed process: connections break, and `suspicionMinMs` (400) is all that is waited for. A vanished host: a period
 * until it is probed, probe and patience (600), then a suspicion of 600 to 1,800 ms.
 */
const CRASH_BOUNDS_MS: Readonly<Record<Crash, { first: number; last: number }>> = {
  killed: { first: 500, last: 800 },
  vanished: { first: 2_000, last: 4_000 }
}

function crashChecks(all: readonly CrashRow[]): Check[] {
  const rows = all.filter(row => row.variant === 'ours')
  const wrong = rows.reduce((sum, row) => sum + row.missed + row.falseDeaths, 0)
  return [
    ...(['killed', 'vanished'] as const).flatMap(crash => {
      const of = rows.filter(row => row.crash === crash).sort((a, b) => a.peers - b.peers)
      const [small, large] = [of[0] as CrashRow, of.at(-1) as CrashRow]
      const { first, last } = CRASH_BOUNDS_MS[crash]
      return [
        atMost(`${crash}: first declared, median`, large.firstMs.median, first, 'ms'),
        atMost(`${crash}: known to the last, p99`, large.lastMs.p99, last, 'ms'),
        atMost(
          `${crash}: first declared, ${large.peers} : ${small.peers} peers`,
          large.firstMs.median / small.firstMs.median,
          FLAT,
          'x'
        )
      ]
    }),
    equal('crashes not known to all, or others declared dead meanwhile', wrong, 0)
  ]
}

/**
 * Whatever happens, a period of 200 ms has one ping and one ack, news for 3 members twice, and for 3 indirect probes a
 * request, a ping, an ack and a nack.
 */
const MOST_MESSAGES = (2 + 2 * 3 + 4 * 3) * 5

function falseChecks(all: readonly FalseRow[]): Check[] {
  const ours = all.filter(row => row.variant === 'ours')
  const short = (variant: string): FalseRow | undefined =>
    all.find(row => row.variant === variant && row.trouble.kind === 'starved')
  const [swim, lifeguard] = [short('SWIM') as FalseRow, short('SWIM + Lifeguard') as FalseRow]
  const stopped = ours.filter(row => row.trouble.kind === 'starved')
  const worst = (rows: readonly FalseRow[], of: (row: FalseRow) => number): number => Math.max(...rows.map(of))
  const shorter = ours.filter(row => row.trouble.kind === 'loss' || row.trouble.stopMs === stopOf(swim))
  return [
    atMost(
      'false deaths, 1 % loss',
      worst(
        ours.filter(row => row.trouble.kind === 'loss'),
        total
      ),
      0.1,
      '/peer-hour'
    ),
    atMost(
      'false deaths of members that are well, 10 % starved',
      worst(stopped, row => row.wellPerHour),
      0,
      '/peer-hour'
    ),
    atMost(`false deaths, 10 % starved for ${stopOf(swim)} ms`, worst(shorter, total), 0.1, '/peer-hour'),
    // The paper's own result, in its words: over 50 times fewer.
    atMost(
      'false deaths of members that are well, SWIM + Lifeguard : SWIM',
      lifeguard.wellPerHour / swim.wellPerHour,
      0.02,
      'x'
    ),
    atMost(
      'longest time that a peer held a live member dead',
      worst(shorter, row => row.longestMs),
      3_000,
      'ms'
    ),
    atMost(
      'all views are right after the end of trouble',
      worst(ours, row => row.convergedMs),
      10_000,
      'ms'
    ),
    atMost(
      'messages of a peer, 10 % starved',
      worst(stopped, row => row.load.messages),
      MOST_MESSAGES,
      '/s'
    )
  ]
}

const total = (row: FalseRow): number => row.deathsPerHour

const stopOf = (row: FalseRow): number => (row.trouble.kind === 'starved' ? row.trouble.stopMs : 0)

// ---------------------------------------------------------------------------------------------- for people

export const textOf = ({ loads, crashes, falseDeaths }: Rows): string =>
  [loadText(loads), crashText(crashes), falseText(falseDeaths)].join('\n\n')

const rounded = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)

function loadText(rows: readonly LoadRow[]): string {
  const cells = ({ messages, bytes }: Load): string[] => [rounded(messages), rounded(bytes)]
  const lines = rows.map(({ peers, quiet, loss }) => [String(peers), ...cells(quiet), ...cells(loss)])
  return [
    'Load: sent by one peer in a second; bytes with all headers down to IPv4',
    ...table([['peers', 'messages', 'bytes', '1 % loss: messages', 'bytes'], ...lines])
  ].join('\n')
}

function crashText(rows: readonly CrashRow[]): string {
  const lines = rows.map(({ peers, variant, crash, crashes, firstMs, lastMs }) =>
    [peers, variant, crash, crashes, ...[firstMs.median, firstMs.p99, lastMs.median, lastMs.p99].map(Math.round)].map(
      String
    )
  )
  const head = ['peers', 'variant', 'crash', 'count', 'first: median', 'p99', 'last: median', 'p99']
  return [
    'Crashes: ms until a first peer declares it, and until the last one knows; a killed process breaks its connections',
    ...table([head, ...lines])
  ].join('\n')
}

function falseText(rows: readonly FalseRow[]): string {
  const lines = rows.map(row => [
    String(row.peers),
    troubleText(row.trouble),
    row.variant,
    rounded(row.peerHours),
    rounded(row.deathsPerHour),
    rounded(row.wellPerHour),
    rounded(row.starvedPerHour),
    rounded(row.viewsPerHour),
    String(Math.round(row.longestMs)),
    rounded(row.load.messages),
    rounded(row.load.bytes)
  ])
  const head = [
    'peers',
    'trouble',
    'variant',
    'peer-hours',
    'deaths/h',
    'of well',
    'of starved',
    'views/h',
    'longest ms'
  ]
  return [
    `False deaths: of live, connected members, by peer-hour; a starved peer has ${GO_MS} ms between two stops`,
    ...table([[...head, 'messages/s', 'bytes/s'], ...lines])
  ].join('\n')
}
