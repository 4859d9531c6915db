/** Each target in turn on all processors, for the same time: what fails becomes findings, and what reaches more may stay. */
import { availableParallelism } from 'node:os'
import { table } from '../../node/edge/format.ts'
import { grownOf } from './corpus.ts'
import { CHOICES } from './grow.ts'
import { type Finding, findingText, idOf, keep, MOST_FINDINGS } from './findings.ts'
import { GrowThread } from './grow-thread.ts'
import type { Failure } from './run-input.ts'
import type { Target } from './target.ts'

export interface GrowAllOptions {
  readonly targets: readonly Target[]
  /** URL of a module that exports them. */
  readonly module: string
  readonly seed: number
  /** For all targets together. */
  readonly minutes: number
  /** Where it is to stay: given the fewest inputs that reach all of it, for each target. */
  readonly write?: ((name: string, inputs: readonly Uint8Array[]) => void) | undefined
  /** Folder for inputs that fail. */
  readonly out: string
  readonly hangMs: number
  progress(line: string): void
}

/** Of one target. */
export interface Growth {
  /** Mutated inputs, without those that were run again to look for what reached more. */
  tried: number
  /** Inputs that stay beside its seeds. */
  kept: number
  /** Blocks of the parser that its seeds reach, and that all reach. 0: so many inputs failed that nobody looked. */
  blocksOfSeeds: number
  blocks: number
  findings: number
}

export interface GrownAll {
  readonly growth: Readonly<Record<string, Growth>>
  readonly findings: readonly Finding[]
  readonly text: readonly string[]
}

/**
 * No target is begun when the time is over, so that few minutes may be too few for all; which come first goes by the seed. Takes longer than
 * its minutes where an input hangs, and by what the last looks take.
 */
export async function growAll(options: GrowAllOptions): Promise<GrownAll> {
  const { targets, minutes, seed } = options
  const threads = Math.min(availableParallelism(), targets.length)
  const ms = (minutes * 60_000) / Math.ceil(targets.length / threads)
  const findings: Finding[] = []
  const growth = new Map<string, Growth>()
  const first = seed % targets.length
  const waiting = [...targets.slice(first), ...targets.slice(0, first)]
  const work = async (): Promise<void> => {
    const thread = new GrowThread(options)
    try {
      await thread.ready()
      const endMs = performance.now() + minutes * 60_000
      for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
        growth.set(target.name, await growTarget(target, thread, { options, ms, findings }))
        if (performance.now() >= endMs) return
      }
    } finally {
      await thread.close()
    }
  }
  await Promise.all(Array.from({ length: threads }, work))
  return { growth: Object.fromEntries(growth), findings, text: growthTable(growth) }
}

function growthTable(growth: ReadonlyMap<string, Growth>): string[] {
  const rows = [...growth].map(([name, { tried, kept, blocksOfSeeds, blocks, findings }]) => [
    name,
    ...[tried, kept, blocksOfSeeds, blocks].map(String),
    findings === 0 ? '' : `${findings} findings`
  ])
  const head = ['growing', 'tried', 'kept', 'blocks of seeds', 'blocks', '']
  return table([head, ...rows.sort(([a = ''], [b = '']) => (a < b ? -1 : 1))])
}

interface GrowOne {
  readonly options: GrowAllOptions
  readonly ms: number
  /** Of all targets. */
  readonly findings: Finding[]
}

/** Goes on behind an input that takes the thread with it, until there are enough of them, or one does so a second time. */
async function growTarget({ name }: Target, thread: GrowThread, { options, ms, findings }: GrowOne): Promise<Growth> {
  const { seed, write } = options
  const endMs = performance.now() + ms
  const failed = new Set<string>()
  const kept = grownOf(name)
  const listener = {
    kept: (input: Uint8Array): void => void kept.push(input),
    failed: (input: Uint8Array, failure: Failure): void => {
      if (failed.has(idOf(input)) || failed.size === MOST_FINDINGS) return
      failed.add(idOf(input))
      const finding = keep({ target: name, seed, index: CHOICES, byBytes: true, input, ...failure }, options.out)
      findings.push(finding)
      options.progress(findingText(finding))
    }
  }
  let [from, tried] = [1, 0]
  for (;;) {
    const known = kept.filter(input => !failed.has(idOf(input)))
    const wish = { name, seed, ms: endMs - performance.now(), known, from, fewest: write !== undefined }
    const result = await thread.grow({ ...wish, failed: [...failed] }, listener)
    if ('inputs' in result) {
      write?.(name, result.inputs)
      const { before, after, inputs } = result
      return {
        tried: tried + result.tried,
        kept: inputs.length,
        blocksOfSeeds: before,
        blocks: after,
        findings: failed.size
      }
    }
    const again = failed.has(idOf(result.input))
    listener.failed(result.input, result.failure)
    tried += Math.max(0, result.next - from)
    from = Math.max(from, result.next)
    if (again || failed.size >= MOST_FINDINGS) {
      // More than it takes, as nobody looks which do: the next time does, and what a long run has kept is not to go with its last thread.
      const sound = kept.filter(input => !failed.has(idOf(input)))
      write?.(name, sound)
      return { tried, kept: sound.length, blocksOfSeeds: 0, blocks: 0, findings: failed.size }
    }
  }
}
