/**
 * One tracker that has started and waits for a VM, so that a VM that is restored does not wait for it: to start one takes 12 to 35 ms
 * on two busy cores, before QEMU is started. It keeps no process alive, and dies with this one.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../ports.ts'
import { TrackerProcess } from './tracker.ts'

/** After one was taken. A guess: when its VM runs. */
const REST_MS = 5_000

/** A helper, and where it listens. */
export interface Listening {
  readonly tracker: TrackerProcess
  readonly socketPath: string
}

export class SpareTracker {
  readonly #options: { readonly binary: string; readonly runDir: string; readonly clock: Clock }
  #spare: Listening | undefined
  #made = 0
  #resting: NodeJS.Timeout | undefined
  #preparing: Promise<void> = Promise.resolve()
  #closed = false

  constructor(options: { readonly binary: string; readonly runDir: string; readonly clock: Clock }) {
    this.#options = options
  }

  /** For a VM with so many pages. HYPERVISOR_TRACKING where none can be started. */
  async take(pages: number): Promise<Listening> {
    const spare = this.#spare
    this.#spare = undefined
    clearTimeout(this.#resting)
    if (!this.#closed) this.#resting = setTimeout(() => this.#again(), REST_MS).unref()
    if (spare === undefined || spare.tracker.isOver) return await this.#start(pages)
    spare.tracker.begin(pages)
    return spare
  }

  async #start(pages: number): Promise<Listening> {
    const { binary, runDir, clock } = this.#options
    const socketPath = join(runDir, `tracker.${++this.#made}.uffd`) // `stale.ts` knows it by its end
    return { tracker: await TrackerProcess.start(binary, { socketPath, pages, clock }), socketPath }
  }

  /** None waits any more when this resolves, and its socket is gone. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#resting)
    await this.#preparing
    const spare = this.#spare
    this.#spare = undefined
    await spare?.tracker.end()
    if (spare) await rm(spare.socketPath, { force: true })
  }

  #again(): void {
    this.#preparing = this.#prepare().catch(() => {}) // the next VM starts its own, and hears why it cannot
  }

  async #prepare(): Promise<void> {
    if (this.#spare !== undefined) return
    const spare = await this.#start(0)
    spare.tracker.wait()
    this.#spare = spare
    void spare.tracker.ended.then(() => {
      if (this.#spare !== spare) return
      this.#spare = undefined
      void rm(spare.socketPath, { force: true })
    })
  }
}
