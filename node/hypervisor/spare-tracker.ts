/**
 * One tracker that has started and waits for a VM, so that a VM that is restored does not wait for it: to start one takes 12 to 35 ms
 * on two busy cores, before QEMU is started. It keeps no process alive, and dies with this one.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../ports.ts'
import { Spare } from '../spare.ts'
import { TrackerProcess } from './tracker.ts'

/** A helper, and where it listens. */
export interface Listening {
  readonly tracker: TrackerProcess
  readonly socketPath: string
}

export class SpareTracker {
  readonly #options: { readonly binary: string; readonly runDir: string; readonly clock: Clock }
  readonly #spare: Spare<Listening>
  #made = 0

  constructor(options: { readonly binary: string; readonly runDir: string; readonly clock: Clock }) {
    this.#options = options
    this.#spare = new Spare({ make: lost => this.#prepare(lost), end })
  }

  /** For a VM with so many pages. HYPERVISOR_TRACKING where none can be started. */
  async take(pages: number): Promise<Listening> {
    const spare = this.#spare.take()
    if (spare === undefined || spare.tracker.isOver) return await this.#start(pages)
    spare.tracker.begin(pages)
    return spare
  }

  /** None waits any more when this resolves, and its socket is gone. */
  close(): Promise<void> {
    return this.#spare.close()
  }

  async #start(pages: number): Promise<Listening> {
    const { binary, runDir, clock } = this.#options
    const socketPath = join(runDir, `tracker.${++this.#made}.uffd`) // `stale.ts` knows it by its end
    return { tracker: await TrackerProcess.start(binary, { socketPath, pages, clock }), socketPath }
  }

  async #prepare(lost: () => boolean): Promise<Listening> {
    const spare = await this.#start(0)
    spare.tracker.wait()
    void spare.tracker.ended.then(() => {
      if (lost()) rm(spare.socketPath, { force: true }).catch(() => {}) // the peer's next start removes it (`stale.ts`)
    })
    return spare
  }
}

async function end({ tracker, socketPath }: Listening): Promise<void> {
  await tracker.end()
  await rm(socketPath, { force: true })
}
