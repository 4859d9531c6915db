/**
 * A file that follows the RAM of a VM from one committed image to the next, for a hypervisor that waits on it. It is the RAM
 * of one image at a time: while pages are written it is between two, and of no use. So contents are fetched first, as far as
 * memory for that allows, and what then remains is to write some MB. Whatever was begun and not finished is written again
 * by the next image: `#unsure` are all pages that may be neither as in the one nor as in the other.
 *
 * A page's bytes come out of a sealed extent, which opens only as what was sealed at that place of that stream; ids of contents
 * are noted as pages pass, so that the VM's next image is a difference.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import { ContentIds } from './content-ids.ts'
import { LiveDeltas } from './delta-extents.ts'
import type { VmFacts } from './facts.ts'
import { noteHash } from './page-hashes.ts'
import { PageSet } from './page-set.ts'
import type { PageTable } from './page-table.ts'
import { PlaceReader, type ReadStream } from './place-reader.ts'
import { carryContents, changedPages } from './table-diff.ts'

/** Pages that are fetched before the first is written, 32 MiB: more than most epochs change. A guess. */
const FETCHED_PAGES = 8192
/** Written between two turns of the event loop: 1 MiB. */
const TURN_PAGES = 256

const ZEROS = new Uint8Array(PAGE_BYTES)

export interface Applied {
  /** Pages that were written. */
  readonly pages: number
  /** What `PageState.noteDeltas` takes; empty: no delta was read. */
  readonly deltaBytes: ReadonlyMap<number, number>
}

export class StandbyRam {
  readonly #facts: VmFacts
  readonly #ids: ContentIds
  readonly #fd: number
  /** Of the image that the file is, but for `#unsure`; undefined: zeros. */
  #table: PageTable | undefined
  readonly #unsure: PageSet
  #following = false
  #closed = false

  /** `path`: a file of the size of RAM that holds zeros, or is of no use. */
  constructor(facts: VmFacts, path: string, ramPages: number) {
    this.#facts = facts
    this.#ids = new ContentIds(facts.key)
    this.#fd = openSync(path, 'r+')
    this.#unsure = new PageSet(ramPages)
  }

  /**
   * Makes the file the RAM of the image with that table, whose content ids are noted in it. IMAGE_CANCELLED after `close`, and
   * what `read` rejects with: the file is no image then, until this has been called again and has resolved.
   */
  async follow(table: PageTable, read: ReadStream): Promise<Applied> {
    if (this.#following) throw new TypeError('a standby follows one image at a time')
    this.#following = true
    try {
      const changed = changedPages(this.#table, table)
      changed.addAll(this.#unsure)
      if (this.#table !== undefined) carryContents(this.#table, table, changed)
      const due = [...changed.runs(changed.pages, changed.pages)].flatMap(({ wanted }) => wanted)
      const deltas = due.some(page => table.deltaOf(page) !== undefined)
        ? await LiveDeltas.read({ facts: this.#facts, table, read })
        : undefined
      await this.#write(due, table, { changed, deltas, read })
      this.#unsure.clear()
      this.#table = table
      return { pages: due.length, deltaBytes: deltas?.bytes ?? new Map() }
    } finally {
      this.#following = false
      if (this.#closed) closeSync(this.#fd)
    }
  }

  /** Safe at any time, also twice. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    if (!this.#following) closeSync(this.#fd)
  }

  async #write(
    due: readonly number[],
    table: PageTable,
    { changed, deltas, read }: { changed: PageSet; deltas: LiveDeltas | undefined; read: ReadStream }
  ): Promise<void> {
    const reader = new PlaceReader({ facts: this.#facts, table, read })
    let fetched: { readonly page: number; readonly bytes: Uint8Array }[] = []
    for await (const { page, bytes: anchor } of reader.wholes(due)) {
      const bytes = deltas?.contentOf(page, anchor) ?? anchor
      noteHash(table.writable(page), page, this.#ids.of(bytes))
      fetched.push({ page, bytes: bytes.slice() })
      if (fetched.length < FETCHED_PAGES) continue
      await this.#put(fetched, changed)
      fetched = []
    }
    await this.#put(fetched, changed)
    const zeros = due.filter(page => table.placeOf(page) === undefined) // which were not, or may not have been
    await this.#put(
      zeros.map(page => ({ page, bytes: ZEROS })),
      changed
    )
  }

  async #put(pages: readonly { readonly page: number; readonly bytes: Uint8Array }[], changed: PageSet): Promise<void> {
    for (let from = 0; from < pages.length; from += TURN_PAGES) {
      if (this.#closed) throw new DiapauseError('IMAGE_CANCELLED', 'the standby copy was given up')
      if (from === 0) this.#unsure.addAll(changed)
      for (const { page, bytes } of pages.slice(from, from + TURN_PAGES)) {
        writeSync(this.#fd, bytes, 0, PAGE_BYTES, page * PAGE_BYTES)
      }
      await nextTurn()
    }
  }
}
