/**
 * The pages that are left when a VM stands still for its cut, read by the main thread. The worker thread would have to
 * be woken for them, and it gives way to everything on the host (`priority.ts`): with it in the pause a hundred pages
 * took 3 to 31 ms (three VMs, two busy cores); a system call each takes one.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { PageRanges } from '../ports.ts'

/** 8 MiB, about 2 ms of the event loop. What is more goes to the worker. */
export const MAX_LAST_PAGES = 2_048

export const countPages = (pages: PageRanges): number =>
  pages.reduce((sum, word, i) => (i % 2 === 1 ? sum + word : sum), 0)

export class LastPages {
  readonly #fd: number
  #closed = false

  /** IMAGE_RAM where the file cannot be opened. */
  constructor(ramPath: string) {
    try {
      this.#fd = openSync(ramPath, 'r')
    } catch (cause) {
      throw new DiapauseError('IMAGE_RAM', `cannot read the RAM of the VM at ${ramPath}`, { cause })
    }
  }

  /** Their bytes, end to end. IMAGE_MEMORY_SIZE beyond the end of RAM, IMAGE_CANCELLED after `close`. */
  read(pages: PageRanges): Uint8Array {
    if (this.#closed) throw new DiapauseError('IMAGE_CANCELLED', 'the capture was cancelled')
    const bytes = Buffer.allocUnsafeSlow(countPages(pages) * PAGE_BYTES)
    let at = 0
    for (let i = 0; i + 1 < pages.length; i += 2) {
      const first = pages[i] ?? 0
      const length = (pages[i + 1] ?? 0) * PAGE_BYTES
      const read = readSync(this.#fd, bytes, at, length, first * PAGE_BYTES)
      if (read !== length)
        throw new DiapauseError('IMAGE_MEMORY_SIZE', `RAM ends within the ${length} bytes at page ${first}`)
      at += length
    }
    return bytes
  }

  /** Safe at any time. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    closeSync(this.#fd)
  }
}
