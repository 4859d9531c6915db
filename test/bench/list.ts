/** The benchmarks by name. Each gives what it measured; `main.ts` adds the machine, prints and writes. */
import type { Check } from '../measure.ts'

export interface Measured {
  readonly checks: readonly Check[]
  /** Goes into the JSON beside the checks. */
  readonly details?: Readonly<Record<string, unknown>>
  /** What its VMs ran in, where it had any. */
  readonly accel?: string
}

export interface Benchmark {
  /** One line: what is measured, against what. */
  readonly summary: string
  /** `progress`: a line for whoever waits. */
  run(progress: (line: string) => void): Promise<Measured>
}

/** Modules are loaded when their benchmark runs. */
export const benchmarks: ReadonlyMap<string, Benchmark> = new Map<string, Benchmark>([
  [
    'erasure',
    {
      summary: 'Reed-Solomon of one grid: encode and decode with m symbols lost, against copying the same bytes',
      run: async progress => (await import('./erasure.ts')).measureErasure(progress)
    }
  ],
  [
    'switch-core',
    {
      summary: 'the switch alone, frames of three sizes: throughput and one-way time, through one switch and two',
      run: async progress => (await import('./switch-core.ts')).measureSwitchCore(progress)
    }
  ],
  [
    'store',
    {
      summary: 'Durable puts of shard columns and reads of symbols, against plain append and fdatasync',
      run: async progress => (await import('./store.ts')).measureStore(progress)
    }
  ]
])
