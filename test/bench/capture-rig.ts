/** A VM with much memory in use on a peer of its own (`capture-peer.ts`), and what changes in its RAM from cut to cut. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ProcessCalls } from './capture-calls.ts'
import type { EpochCost, PeerCalls, PeerOptions, RapidEpoch } from './capture-peer.ts'
import { type Changes, type RamPlace, RamTruth } from './capture-truth.ts'

const handlers = (look: (place: RamPlace) => void) => ({ look })

/** What the peer may call. */
export type BenchCalls = ReturnType<typeof handlers>

export type VmOptions = Omit<PeerOptions, 'folder'>

export interface Epoch extends EpochCost {
  /** Undefined: nobody looked. */
  readonly truth: Changes | undefined
}

/** Commands of load.c without their number (test/guest/load.c). */
export const LOADS = {
  idle: 'idle',
  /** 20.5 MB/s over 200 MiB. */
  random: 'write 5000 4096 51200',
  small: 'write 20000 8 20000'
} as const
export type Load = keyof typeof LOADS

/** Pages of random bytes, over 200 MiB. */
export const pagesASecond = (rate: number): string => `write ${rate} 4096 51200`

export class CaptureRig {
  readonly #child: ChildProcess
  readonly #calls: ProcessCalls<PeerCalls>
  readonly #folder: string
  readonly #truth = new RamTruth()
  #changes: Changes | undefined
  accel = ''
  bootBytes = 0

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child
    this.#folder = folder
    const look = (place: RamPlace): void => void (this.#changes = this.#truth.look(place))
    this.#calls = new ProcessCalls(child, handlers(look))
  }

  /** Resolves when the guest has filled its memory. */
  static async start(options: VmOptions): Promise<CaptureRig> {
    const folder = await mkdtemp(join(tmpdir(), 'diapause-capture-'))
    const argument: PeerOptions = { folder, ...options }
    const script = new URL('capture-peer.ts', import.meta.url)
    const execArgv = ['--max-semi-space-size=1'] // as bootstrap.mjs does
    const rig = new CaptureRig(fork(script, [JSON.stringify(argument)], { execArgv }), folder)
    try {
      const { accel, bootBytes } = await rig.#calls.call('boot', undefined)
      rig.accel = accel
      rig.bootBytes = bootBytes
      return rig
    } catch (error) {
      await rig.stop()
      throw error
    }
  }

  /** What the guest does from now on, and what it has done since it was told before: pages a second, by its own clock. */
  async load(command: string): Promise<number> {
    const { pages, us } = await this.#calls.call('tell', 'status')
    await this.#calls.call('tell', command)
    return us > 0 ? pages / (us / 1e6) : 0
  }

  async tell(command: string) {
    return await this.#calls.call('tell', command)
  }

  async epoch(look = true): Promise<Epoch> {
    this.#changes = undefined
    const cost = await this.#calls.call('cut', look)
    return { ...cost, truth: this.#changes }
  }

  async rapid(count: number, intervalMs: number): Promise<RapidEpoch[]> {
    return await this.#calls.call('rapid', { count, intervalMs })
  }

  async stop(): Promise<void> {
    await this.#calls.call('close', undefined).catch(() => {})
    const ended = this.#child.exitCode !== null || once(this.#child, 'exit')
    if (this.#child.connected) this.#child.disconnect()
    await ended
    await rm(this.#folder, { recursive: true, force: true })
  }
}
