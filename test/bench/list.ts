/** The benchmarks by name. Each gives what it measured; `main.ts` adds the machine, prints and writes. */
import type { Check } from '../measure.ts'

export interface Measured {
  readonly checks: readonly Check[]
  /** Goes into the JSON beside the checks. */
  readonly details?: Readonly<Record<string, unknown>>
  /** What its VMs ran in, where it had any. */
  readonly accel?: string
  /** Lines for people above the checks. */
  readonly text?: readonly string[]
  /** A plot: written to the file that the option `--svg` names, or beside the JSON. */
  readonly svg?: string
}

/** Of the command line, by name; undefined: not given. */
export type OptionValues = Readonly<Record<string, string | undefined>>

export interface Benchmark {
  /** One line: what is measured, against what. */
  readonly summary: string
  /** Options of its own: `--NAME VALUE`, by name, with what VALUE is. */
  readonly options?: Readonly<Record<string, string>>
  /** `progress`: a line for whoever waits. UsageError where an option has no meaning. */
  run(progress: (line: string) => void, options: OptionValues): Promise<Measured>
}

/** Modules are loaded when their benchmark runs. */
export const benchmarks: ReadonlyMap<string, Benchmark> = new Map<string, Benchmark>([
  [
    'code',
    {
      summary:
        'the diagonal code, encode and decode with m columns lost, against the bare library and memcpy; what hashing costs; which symbol size',
      options: {
        only: 'some of 3+2,4+2,8+4,16+4,turns,sizes (all)',
        megabytes: 'of data for each figure (3000): less for a try'
      },
      run: async (progress, options) => (await import('./code.ts')).measureCode(progress, options)
    }
  ],
  [
    'switch',
    {
      summary:
        "two real VMs through two peers, one peer, and QEMU's own socket: throughput, round trip; and the switch alone",
      options: { rounds: 'of the VMs (7)', part: 'all, vms or alone (all)' },
      run: async (progress, options) => (await import('./switch.ts')).measureSwitch(progress, options)
    }
  ],
  [
    'failover',
    {
      summary:
        'real peers and VMs: kill -9, SIGSTOP and partition of an owner, round after round; who spoke when, how long it took',
      options: {
        fault: 'kill, stop, pause, partition, standby (kill, with copies of all VMs) or all (all)',
        rounds: 'of each (kill and standby: 20, others: 5)'
      },
      run: async (progress, options) => (await import('./failover.ts')).measureFailover(progress, options)
    }
  ],
  [
    'epochs',
    {
      summary:
        'ten epochs a minute under load while hosts die and join: all decided, each committed one restored and audited, cuts checked frame by frame',
      options: {
        seconds: 'how long epochs are taken; the restores come after it (300)',
        sabotage: 'early, early-dropped, in-flight or untaken: break the switch so, which must be found'
      },
      run: async (progress, options) => (await import('./epochs.ts')).measureEpochs(progress, options)
    }
  ],
  [
    'exact',
    {
      summary: 'a real VM under load, cut again and again: each image against the whole RAM file, byte for byte',
      options: {
        cuts: 'how many (500)',
        sabotage: 'forget: leave written pages out now and then, which must be found'
      },
      run: async (progress, options) => (await import('./exact.ts')).measureExact(progress, options)
    }
  ],
  [
    'agree',
    {
      summary:
        'a real VM that counts in RAM and, with fsync, on ext4: cut at random times, each image restored and its disks checked',
      options: {
        cuts: 'how many images (100)',
        seed: 'of the times of cuts and of what is aborted (1)',
        sabotage: 'late-layer: freeze the disks when the VM runs again, which must be found'
      },
      run: async (progress, options) => (await import('./agree.ts')).measureAgree(progress, options)
    }
  ],
  [
    'buffers',
    {
      summary: '500 Mb/s for a forced skew of 4 s: frames that are held, and frames that are recorded, beyond memory',
      options: { seconds: 'of skew (4): less for a try' },
      run: async (progress, options) => (await import('./switch-buffers.ts')).measureBuffers(progress, options)
    }
  ],
  [
    'skew',
    {
      summary:
        'real VMs, TCP streams, cuts forced apart by 0 to 4 s: how long they stand still, live and restored, by what is done with frames',
      options: { skews: 'seconds (0,1,2,4)', svg: 'file for the plot (beside the JSON)' },
      run: async (progress, options) => (await import('./skew.ts')).measureSkew(progress, options)
    }
  ],
  [
    'capture',
    {
      summary:
        "a real VM with 1 GB in use: pause, bytes shipped, seconds, processor and memory of its epochs, both modes, beside QEMU's savevm",
      options: {
        only: 'some of loads,sizes,pauses,rapid,pipeline,disks,neighbours (all)',
        fill: 'MiB in use (1024): less for a try'
      },
      run: async (progress, options) => (await import('./capture.ts')).measureCapture(progress, options)
    }
  ],
  [
    'restore',
    {
      summary:
        "VM of 256 MB to 4 GB out of the shards of five hosts, one of them dead: first instruction, first answer, all pages; beside QEMU's -incoming and loadvm",
      options: { sizes: 'of RAM, MiB (256,1024,4096)', rounds: 'of each way (5)' },
      run: async (progress, options) => (await import('./restore.ts')).measureRestore(progress, options)
    }
  ],
  [
    'sources',
    {
      summary:
        'a host that serves pages is killed in the middle of a restore, round after round: is the VM there, is its RAM right?',
      options: { rounds: 'how many (50)' },
      run: async (progress, options) => (await import('./sources.ts')).measureSources(progress, options)
    }
  ],
  [
    'loss',
    {
      summary:
        'what is lost when nodes are gone, four ways to store it at equal overhead; delay of reads with and without the forced timeout',
      options: {
        placements: 'random ones of each kind (1000)',
        reads: 'of each kind (4000)',
        svg: 'file for the plot (beside the JSON)'
      },
      run: async (progress, options) => (await import('./loss.ts')).measureLoss(progress, options)
    }
  ],
  [
    'redundancy',
    {
      summary:
        'real peers and VMs: two of five hosts die during an epoch, fresh ones come, all is repaired, two more die: is every epoch there?',
      run: async progress => (await import('./redundancy.ts')).measureRedundancy(progress)
    }
  ],
  [
    'store',
    {
      summary:
        'durable puts and gets of shards of 256 KiB and 1 MiB against a plain file with fdatasync; bytes on disk',
      options: { mebibytes: 'of each measurement, a multiple of 8 (384): less for a try' },
      run: async (progress, options) => (await import('./store.ts')).measureStore(progress, options)
    }
  ],
  [
    'power-loss',
    {
      summary: 'a store on a real file system whose power goes under writes, round after round: is it all there?',
      options: { rounds: 'how many (1000)', sabotage: 'unsynced: acknowledge without fdatasync, which must be found' },
      run: async (progress, options) => (await import('./power-loss.ts')).measurePowerLoss(progress, options)
    }
  ],
  [
    'rot',
    {
      summary:
        'bits that turn and files that are cut in stores: all found, all rebuilt from the others, nothing wrong served',
      options: { damages: 'how many (10000)' },
      run: async (progress, options) => (await import('./rot.ts')).measureRot(progress, options)
    }
  ],
  [
    'dashboard',
    {
      summary: 'the page in Chromium, of 100 VMs and 1,000 epochs: weight, first paint, frames while one scrolls',
      run: async progress => (await import('./dashboard.ts')).measureDashboard(progress)
    }
  ]
])
