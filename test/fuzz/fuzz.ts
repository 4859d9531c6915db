/** Inputs to targets until there were enough: what came of them, as checks, a table and files of the inputs that failed. */
import { bytesText, table } from '../../node/edge/format.ts'
import { atMost, type Check, equal, note } from '../measure.ts'
import { seedsOf } from './corpus.ts'
import { type Finding, findingChecks, findingText, keep, MOST_FINDINGS } from './findings.ts'
import { inputOf } from './input.ts'
import { type Batch, type BatchResult, type Failed, runPool } from './pool.ts'
import type { Target } from './target.ts'

export interface FuzzOptions {
  readonly targets: readonly Target[]
  /** URL of a module that exports them. */
  readonly module: string
  readonly seed: number
  /** Inputs, shared evenly among the targets; or as many as can be had in so many minutes. */
  readonly until: { readonly runs: number } | { readonly minutes: number }
  /** This one input of each target only; with `input` these bytes in its place. */
  readonly number?: number | undefined
  readonly input?: Uint8Array | undefined
  /** Before, in the same run: they count with what is found now. */
  readonly found?: readonly Finding[]
  /** Folder for inputs that fail. */
  readonly out: string
  readonly hangMs: number
  progress(line: string): void
}

export interface TargetStatistics {
  inputs: number
  readonly refused: Record<string, number>
  slowestMs: number
  largestBytes: number
  findings: number
}

export interface Fuzzed {
  readonly checks: readonly Check[]
  readonly text: readonly string[]
  readonly details: {
    readonly seed: number
    readonly statistics: Readonly<Record<string, TargetStatistics>>
    readonly findings: readonly Finding[]
  }
}

/** Small enough that all threads end together, large enough that nobody waits for messages. */
const BATCH = 250
/** Of the whole process with all its threads and what they load (200 MB); inputs have some 100 KB. A guess. */
const PEAK_MB = 1_500

export async function fuzz(options: FuzzOptions): Promise<Fuzzed> {
  const startedMs = performance.now()
  const findings: Finding[] = [...(options.found ?? [])]
  const statistics = new Map<string, TargetStatistics>(
    options.targets.map(({ name }) => {
      const found = findings.filter(({ target }) => target === name).length
      return [name, { inputs: 0, refused: {}, slowestMs: 0, largestBytes: 0, findings: found }]
    })
  )
  const wanted = (name: string): boolean => (statistics.get(name)?.findings ?? 0) < MOST_FINDINGS
  const done = (batch: Batch, result: BatchResult): boolean => {
    const of = statistics.get(batch.target) as TargetStatistics
    of.inputs += result.inputs
    of.slowestMs = Math.max(of.slowestMs, result.slowest.ms)
    of.largestBytes = Math.max(of.largestBytes, result.largest.bytes)
    for (const [code, count] of Object.entries(result.refused)) of.refused[code] = (of.refused[code] ?? 0) + count
    if (result.failed === undefined) return true
    if (!wanted(batch.target)) return false // another thread was faster
    of.findings++
    const known = { target: batch.target, seed: batch.seed, byBytes: batch.input !== undefined, ...result.failed }
    const finding = keep({ ...known, input: failing(options, batch, result.failed) }, options.out)
    findings.push(finding)
    options.progress(findingText(finding))
    return wanted(batch.target)
  }
  const next = batches(options, wanted)
  await runPool({ module: options.module, next, done, hangMs: options.hangMs })
  return report(options, statistics, findings, performance.now() - startedMs)
}

/** The targets in turn, those that are `wanted`. */
function batches(options: FuzzOptions, wanted: (name: string) => boolean): () => Batch | undefined {
  const { targets, until, seed, number, input } = options
  const each = 'runs' in until ? Math.ceil(until.runs / targets.length) : Infinity
  /** From when the first thread has loaded all targets: that takes seconds on a busy machine. */
  let endMs: number | undefined
  const one = number !== undefined || input !== undefined
  const to = one ? (number ?? 0) + 1 : each
  const given = new Map(targets.map(({ name }) => [name, number ?? 0]))
  let turn = 0
  return () => {
    endMs ??= 'minutes' in until ? performance.now() + until.minutes * 60_000 : Infinity
    if (performance.now() >= endMs) return undefined
    for (let tries = 0; tries < targets.length; tries++) {
      const { name } = targets[turn++ % targets.length] as Target
      const from = given.get(name) ?? 0
      const count = Math.min(BATCH, to - from)
      if (count <= 0 || !wanted(name)) continue
      given.set(name, from + count)
      return { target: name, seed, from, count, input }
    }
    return undefined
  }
}

/** The input of a failure. */
function failing({ targets }: FuzzOptions, batch: Batch, { index }: Failed): Uint8Array {
  const target = targets.find(({ name }) => name === batch.target) as Target
  return inputOf(target, seedsOf(target), { seed: batch.seed, index }, batch.input).input
}

function report(
  options: FuzzOptions,
  statistics: ReadonlyMap<string, TargetStatistics>,
  findings: readonly Finding[],
  tookMs: number
): Fuzzed {
  const all = [...statistics]
  const inputs = all.reduce((sum, [, each]) => sum + each.inputs, 0)
  const slowest = Math.max(...all.map(([, each]) => each.slowestMs))
  const rows = all.map(([name, each]) => {
    const refused = Object.values(each.refused).reduce((sum, count) => sum + count, 0)
    const share = each.inputs === 0 ? '' : `${Math.round((100 * refused) / each.inputs)} %`
    return [name, String(each.inputs), share, `${each.slowestMs.toFixed(1)} ms`, bytesText(each.largestBytes)]
  })
  return {
    checks: [
      ...findingChecks(options.targets, findings),
      // Of these nothing is known: the time was too short.
      equal('targets without an input', all.filter(([, each]) => each.inputs === 0).length, 0),
      note('inputs', inputs),
      note('inputs a second', inputs / (tookMs / 1e3)),
      note('slowest input', slowest, 'ms'),
      atMost('peak memory of the process', process.resourceUsage().maxRSS / 1e3, PEAK_MB, 'MB')
    ],
    text: table([['target', 'inputs', 'refused', 'slowest', 'memory'], ...rows]),
    details: { seed: options.seed, statistics: Object.fromEntries(statistics), findings }
  }
}
