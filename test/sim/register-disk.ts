/**
 * The disk of a simulated peer: what was persisted before a crash is there after it, of what was being written some
 * entries are, whole ones of any of them (torn). It can be full for a while, and fail to be read at a start.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { RegisterStore } from '../../node/ports.ts'
import type { Random } from '../../protocols/core.ts'
import type { Entry } from '../../protocols/register/durable-order.ts'

export interface DiskOptions {
  readonly random: Random
  /** Calls `run` after `ms` of simulated time. */
  at(ms: number, run: () => void): void
  /** Called for each entry that reaches the disk. */
  onWrite(entry: Entry): void
}

export class SimDisk {
  readonly entries = new Map<string, Uint8Array>()
  /** Writes fail. */
  full = false
  /** Chance that a start cannot read it. */
  unreadable = 0
  readonly #options: DiskOptions
  readonly #unsynced = new Set<readonly Entry[]>()

  constructor(options: DiskOptions) {
    this.#options = options
  }

  /** The store as one life sees it: `later` runs what comes after a write, if that life still lives. A dead one writes nothing. */
  store(later: (run: () => void) => void, lives: () => boolean): RegisterStore {
    const { random, at } = this.#options
    return {
      load: async () => {
        if (random() < this.unreadable) throw new DiapauseError('REGISTER_STORE_CORRUPT', 'the disk cannot be read')
        return [...this.entries]
      },
      persist: entries => {
        if (!lives()) return new Promise(() => {})
        this.#unsynced.add(entries)
        return new Promise((resolve, reject) => {
          at(0.2 + random() * (random() < 0.05 ? 40 : 2), () => {
            if (!this.#unsynced.delete(entries)) return
            if (this.full) {
              this.#tear(entries)
              later(() => reject(new DiapauseError('REGISTER_STORE_WRITE', 'the disk is full')))
              return
            }
            for (const entry of entries) this.#write(entry)
            later(resolve)
          })
        })
      },
      close: async () => {}
    }
  }

  /** The power is gone: of what was on its way all, some or nothing has arrived. */
  crash(): void {
    const { random } = this.#options
    for (const entries of this.#unsynced) {
      const dice = random()
      if (dice < 0.3) for (const entry of entries) this.#write(entry)
      else if (dice < 0.6) this.#tear(entries)
    }
    this.#unsynced.clear()
  }

  #tear(entries: readonly Entry[]): void {
    for (const entry of entries) if (this.#options.random() < 0.5) this.#write(entry)
  }

  #write([name, bytes]: Entry): void {
    if (bytes === null) this.entries.delete(name)
    else this.entries.set(name, bytes)
    this.#options.onWrite([name, bytes])
  }
}
