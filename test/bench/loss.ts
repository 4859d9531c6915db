/**
 * The two figures of the paper that this began with (Tzouros and Kalogeraki, on VM snapshots in diagonally interleaved code), with
 * our code: how much of an image is lost when nodes are gone, for four ways to store it at equal overhead; and how long reads
 * take with and without the forced timeout while one node is slow, hung or gone. The bounds are ours.
 */
import { randomBytes } from 'node:crypto'
import { configSchema } from '../../config/schema.ts'
import { table } from '../../node/edge/format.ts'
import { dataSymbols, gridShapeOf } from '../../node/erasure/grid.ts'
import { hasCode, UsageError } from '../../node/errors.ts'
import type { StreamManifest } from '../../node/ports.ts'
import { planHolders } from '../../node/planning/holders.ts'
import { atMost, type Check, equal, note } from '../measure.ts'
import { generator } from '../sim/kernel.ts'
import type { Peer } from '../unit/shards-network.ts'
import type { Measured, OptionValues } from './list.ts'
import { type DelayOptions, type Delays, measureDelays, quantile } from './loss-delay.ts'
import { LATE_MS, type LinkCondition, type LinkDelays, measureLinks } from './loss-links.ts'
import { delayPlot, sharePlot } from './loss-plot.ts'
import { openRig } from './loss-rig.ts'
import { expectedLoss, lostShare, lostSymbols, randomNodes, SCHEMES, type Scheme, type Shape } from './loss-share.ts'

/** As many nodes as columns, and twice as many. */
const SHAPES: readonly Shape[] = [
  { nodes: 5, k: 3, m: 2 },
  { nodes: 10, k: 3, m: 2 }
]
/** Placements at which the real reader says what can be read, beside the rule. */
const READ_PLACEMENTS = 20
/** A mean of 1,000 placements against its formula: over four standard errors of the widest of these distributions. */
const MEAN_ERROR = 0.06

/** Over real connections. */
const LINK_READS = 2_000
/** A timer of Node takes no more than 24 days. */
const NEVER_MS = 3_600_000

interface LinkRow extends LinkCondition {
  readonly name: string
  readonly delays: LinkDelays
}

export interface ShareRow extends Shape {
  readonly scheme: Scheme
  readonly gone: number
  /** Shares of the image, over all placements; and of the placements, those that lost anything. */
  readonly mean: number
  readonly p95: number
  readonly worst: number
  readonly placementsWithLoss: number
}

export interface DelayRow extends Omit<DelayOptions, 'reads' | 'seed'> {
  readonly name: string
  readonly delays: Delays
}

export async function measureLoss(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const placements = countOf(options, 'placements', 1_000)
  const reads = countOf(options, 'reads', 4_000)
  progress(`${placements} placements of each kind`)
  const shares = SHAPES.flatMap(shape => sharesOf(shape, placements))
  progress(`the reader at ${READ_PLACEMENTS} of them`)
  const disagreements = await readerDisagrees()
  const delays: DelayRow[] = []
  for (const condition of conditions()) {
    progress(`${reads} reads: ${condition.name}`)
    delays.push({ ...condition, delays: await measureDelays({ ...condition, reads, seed: 1 }) })
  }
  const links: LinkRow[] = []
  for (const condition of linkConditions()) {
    progress(`${LINK_READS} reads over real connections: ${condition.name}`)
    links.push({ ...condition, delays: await measureLinks(condition, LINK_READS) })
  }
  return {
    checks: [
      ...shareChecks(shares),
      equal(
        `symbols of ${READ_PLACEMENTS} placements that the reader can read and the rule cannot, or so`,
        disagreements,
        0
      ),
      ...delayChecks(delays),
      ...linkChecks(links)
    ],
    details: { placements, reads, shares, delays: delays.map(summaryOf), links: links.map(linkSummary) },
    text: [...shareText(shares), '', ...delayText(delays), '', ...linkText(links)],
    svg: stacked(sharePlot(shares), delayPlot(delays))
  }
}

function countOf(options: OptionValues, name: string, otherwise: number): number {
  const count = Number(options[name] ?? otherwise)
  if (Number.isInteger(count) && count > 0) return count
  throw new UsageError('BENCH_USAGE', `--${name} takes a whole number above 0`)
}

// ---------------------------------------------------------------------------------------------- what is lost

export function sharesOf(shape: Shape, placements: number): ShareRow[] {
  return SCHEMES.flatMap((scheme, which) =>
    Array.from({ length: shape.m + 2 }, (_, i): ShareRow => {
      const random = generator(1 + which + 10 * i + 100 * shape.nodes)
      const all = Array.from({ length: placements }, () => lostShare(scheme, shape, i + 1, random)).sort(
        (a, b) => a - b
      )
      const mean = all.reduce((sum, share) => sum + share, 0) / placements
      const withLoss = all.filter(share => share > 0).length / placements
      return {
        ...shape,
        scheme,
        gone: i + 1,
        mean,
        p95: quantile(all, 0.95),
        worst: all.at(-1) ?? 0,
        placementsWithLoss: withLoss
      }
    })
  )
}

export function shareChecks(rows: readonly ShareRow[]): Check[] {
  const coded = rows.filter(({ scheme }) => scheme === 'plain' || scheme === 'diagonal')
  return coded.map(row => {
    const { scheme, nodes, gone, m, mean, worst } = row
    const name = `${scheme} Reed-Solomon, ${gone} of ${nodes} nodes gone: share lost`
    if (gone <= m) return equal(`${name}, at worst`, worst, 0)
    return atMost(`${name}, mean, off what any layout loses`, Math.abs(mean - expectedLoss(row, gone)), MEAN_ERROR, '')
  })
}

/** Data symbols at random placements of which the real reader and the rule say different things. */
export async function readerDisagrees(placements = READ_PLACEMENTS): Promise<number> {
  const shape: Shape = { nodes: 8, k: 3, m: 2 }
  const random = generator(7)
  let disagreements = 0
  for (let placement = 0; placement < placements; placement++) {
    const { names, gone } = randomNodes(random, shape.nodes, 2 + (placement % 4))
    const holders = planHolders(names, shape.k, shape.m, placement)
    const data = randomBytes(holders.length * shape.k * 64)
    const { time, network, reader, manifest } = await openRig({
      ...shape,
      random,
      symbolBytes: 64,
      data,
      holders,
      forcedTimeoutMs: 50
    })
    for (const node of gone) network.break(node, 'gone')
    const lost = lostSymbols(shape, holders, gone)
    for (let symbol = 0; symbol < dataSymbols(gridShapeOf(manifest, 0)); symbol++) {
      const read = isReadable(reader, manifest, symbol * 64, data.subarray(symbol * 64, (symbol + 1) * 64))
      if ((await time.passUntil(read)) === lost[symbol]) disagreements++
    }
  }
  return disagreements
}

async function isReadable(
  { shards }: Peer,
  manifest: StreamManifest,
  offset: number,
  bytes: Uint8Array
): Promise<boolean> {
  try {
    return Buffer.compare(await shards.readData(manifest, offset, bytes.length), bytes) === 0
  } catch (error) {
    if (hasCode(error, 'SHARD_LOST')) return false
    throw error
  }
}

function shareText(rows: readonly ShareRow[]): string[] {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
  const lines = rows.map(({ scheme, nodes, gone, mean, p95, placementsWithLoss }) => [
    scheme,
    `${gone} of ${nodes}`,
    percent(mean),
    percent(p95),
    percent(placementsWithLoss)
  ])
  return table([['stored', 'gone', 'lost: mean', '95th percentile', 'placements with loss'], ...lines])
}

// ---------------------------------------------------------------------------------------------- how long it takes

/** Healthy first. */
function conditions(): Omit<DelayRow, 'delays'>[] {
  const { forcedTimeoutMs } = configSchema.shape.shards.parse({})
  const faults = ['none', 'slow', 'hung', 'gone'] as const
  return faults.flatMap(fault => [
    { name: `${fault}, without`, fault, forcedTimeoutMs: Infinity, hedge: 0 },
    { name: `${fault}, with`, fault, forcedTimeoutMs, hedge: 0 },
    { name: `${fault}, hedged`, fault, forcedTimeoutMs, hedge: 1 }
  ])
}

function summaryOf({ name, fault, forcedTimeoutMs, hedge, delays }: DelayRow) {
  const { allMs, hitMs, degraded, messagesPerRead } = delays
  const forced = Number.isFinite(forcedTimeoutMs) ? forcedTimeoutMs : 'none'
  const of = (ms: readonly number[]) => ({ p50: quantile(ms, 0.5), p99: quantile(ms, 0.99), worst: ms.at(-1) })
  return { name, fault, forcedTimeoutMs: forced, hedge, allMs: of(allMs), hitMs: of(hitMs), degraded, messagesPerRead }
}

/** Bounds are times what it takes when all is well; of what the faulty holder has, with one forced timeout on top. */
export function delayChecks(rows: readonly DelayRow[]): Check[] {
  const find = (name: string): DelayRow | undefined => rows.find(row => row.name === name)
  const all = (name: string, q: number): number => tenth(quantile(find(name)?.delays.allMs ?? [], q))
  const hit = (name: string, q: number): number => tenth(quantile(find(name)?.delays.hitMs ?? [], q))
  const messages = (name: string): number => find(name)?.delays.messagesPerRead ?? Number.NaN
  const wrong = rows.reduce((sum, { delays }) => sum + delays.wrong, 0)
  const [well50, well99] = [all('none, with', 0.5), all('none, with', 0.99)]
  const forcedMs = find('none, with')?.forcedTimeoutMs ?? Number.NaN
  const times = messages('none, with') / messages('none, without')
  return [
    equal('reads that came wrong', wrong, 0),
    atMost('messages of a read with the forced timeout, all well, times those without', times, 1.1, ''),
    ...['slow', 'hung', 'gone'].flatMap(fault => [
      atMost(`${fault}: p50 with the forced timeout`, all(`${fault}, with`, 0.5), tenth(1.5 * well50), 'ms'),
      atMost(`${fault}: p99 with it`, all(`${fault}, with`, 0.99), tenth(3 * well99), 'ms'),
      atMost(
        `${fault}: p99 with it, of what that holder has`,
        hit(`${fault}, with`, 0.99),
        tenth(forcedMs + 3 * well99),
        'ms'
      ),
      note(`${fault}: p99 without it, of what that holder has`, hit(`${fault}, without`, 0.99), 'ms')
    ])
  ]
}

const tenth = (value: number): number => Math.round(value * 10) / 10

function delayText(rows: readonly DelayRow[]): string[] {
  const ms = (value: number): string => `${value.toFixed(1)} ms`
  const lines = rows.map(({ name, delays: { allMs, hitMs, degraded, messagesPerRead } }) => [
    name,
    ...[allMs, hitMs].flatMap(each => [ms(quantile(each, 0.5)), ms(quantile(each, 0.99))]),
    `${degraded}`,
    messagesPerRead.toFixed(1)
  ])
  const head = ['holder, forced timeout', 'all: p50', 'p99', 'of that holder: p50', 'p99', 'decoded', 'messages a read']
  return table([head, ...lines])
}

// ---------------------------------------------------------------------------------------------- over real connections

function linkConditions(): (LinkCondition & { readonly name: string })[] {
  const { forcedTimeoutMs } = configSchema.shape.shards.parse({})
  return [
    { name: 'all well, without', fault: 'none', forcedTimeoutMs: NEVER_MS },
    { name: 'all well, with', fault: 'none', forcedTimeoutMs },
    { name: `${LATE_MS} ms late, without`, fault: 'late', forcedTimeoutMs: NEVER_MS },
    { name: `${LATE_MS} ms late, with`, fault: 'late', forcedTimeoutMs },
    { name: 'hung, with', fault: 'hung', forcedTimeoutMs }
  ]
}

const linkSummary = ({ name, delays }: LinkRow) => ({
  name,
  p50: quantile(delays.allMs, 0.5),
  p99: quantile(delays.allMs, 0.99),
  degraded: delays.degraded,
  forcedTimeoutMs: delays.forcedTimeoutMs
})

function linkChecks(rows: readonly LinkRow[]): Check[] {
  const wrong = rows.reduce((sum, { delays }) => sum + delays.wrong, 0)
  const p99 = (row: LinkRow, boundMs: number): Check =>
    atMost(`over real connections: p99, ${row.name}`, quantile(row.delays.allMs, 0.99), boundMs, 'ms')
  // Below what that holder takes, and a tenth of what a request may take.
  const late = rows.filter(({ fault, forcedTimeoutMs }) => fault === 'late' && forcedTimeoutMs < NEVER_MS)
  const hung = rows.filter(({ fault }) => fault === 'hung')
  return [
    equal('over real connections: reads that came wrong', wrong, 0),
    ...late.map(row => p99(row, LATE_MS)),
    ...hung.map(row => p99(row, 1_000))
  ]
}

function linkText(rows: readonly LinkRow[]): string[] {
  const lines = rows.map(row => {
    const { name, p50, p99, degraded, forcedTimeoutMs } = linkSummary(row)
    const timeout = forcedTimeoutMs >= NEVER_MS ? 'none' : `${forcedTimeoutMs.toFixed(0)} ms`
    return [name, `${p50.toFixed(1)} ms`, `${p99.toFixed(1)} ms`, `${degraded}`, timeout]
  })
  return table([['over real connections', 'all: p50', 'p99', 'decoded', 'forced timeout at the end'], ...lines])
}

/** One picture above the other. */
function stacked(...pictures: readonly string[]): string {
  const sizes = pictures.map(svg => /width="(\d+)" height="(\d+)"/.exec(svg)?.slice(1).map(Number) ?? [0, 0])
  const width = Math.max(...sizes.map(([wide = 0]) => wide))
  let at = 0
  const placed = pictures.map((svg, i) => {
    const moved = svg.replace('<svg ', `<svg y="${at}" `)
    at += sizes[i]?.[1] ?? 0
    return moved
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${at}">\n${placed.join('')}</svg>\n`
}
