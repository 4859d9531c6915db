/**
 * The source side of the migration of a VM whose RAM is there as a file (`standby-ram.ts`): small blocks and devices. QEMU has all
 * it needs when the stream has ended, and closes it.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import { devicesStream } from '../hypervisor/migration-stream.ts'
import type { BootSet } from './boot-set.ts'
import type { VmFacts } from './facts.ts'
import type { MachinePart } from './machine.ts'
import type { PageState } from './page-state.ts'
import { SEGMENT_PAGES } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { StandbyRam } from './standby-ram.ts'
import type { Request } from './working-set.ts'

/** Pages whose contents are noted between two turns of the event loop: 3 ms, while the VM runs already and reads its disks. */
const NOTED_AT_ONCE = 4 * SEGMENT_PAGES

/** The file that a VM's worker keeps, if any. */
export class Standby {
  readonly #facts: VmFacts
  readonly #state: PageState
  readonly #onServed: () => void
  #path = ''
  #ram: StandbyRam | undefined

  /** `onServed`: the VM has the file, and `state` has its image's table and knows all its contents. */
  constructor(facts: VmFacts, state: PageState, onServed: () => void) {
    this.#facts = facts
    this.#state = state
    this.#onServed = onServed
  }

  /** What makes the file at `path` the RAM of an image; undefined: no file. As `StandbyRam.follow`. */
  to(path: string | undefined): ((image: BootSet, read: ReadStream) => Promise<StandbySource>) | undefined {
    return path === undefined ? undefined : (image, read) => this.#follow(path, image, read)
  }

  async #follow(path: string, { pages, part }: BootSet, read: ReadStream): Promise<StandbySource> {
    if (this.#ram === undefined || this.#path !== path) {
      this.#ram?.close()
      this.#ram = new StandbyRam(this.#facts, path, this.#state.ramPages)
      this.#path = path
    }
    await pages.whole()
    const { deltaBytes } = await this.#ram.follow(pages.table, read)
    return new StandbySource(part, async goesOn => {
      this.#ram?.close() // the VM's own from now on
      this.#ram = undefined
      this.#state.noteDeltas(deltaBytes)
      for (let page = 0; page < this.#state.ramPages; page += NOTED_AT_ONCE) {
        this.#state.rememberPages(page, page + NOTED_AT_ONCE)
        await nextTurn()
        goesOn() // else the page state may be another image's
      }
      this.#onServed()
    })
  }
}

export class StandbySource {
  /** The VM has all of its RAM: it asks for nothing. */
  readonly requests: readonly Request[] = []
  readonly #pieces: readonly Uint8Array[]
  readonly #served: (goesOn: () => void) => Promise<void>
  #socket: Socket | undefined
  #failure: Error | undefined

  /** `served` is called when QEMU has taken all of it, and `serve` ends with it; `goesOn` throws where it was cancelled. */
  constructor({ machine, bootPages }: MachinePart, served: (goesOn: () => void) => Promise<void>) {
    this.#pieces = [...devicesStream(machine, bootPages)] // now: nothing is to be done when it is needed
    this.#served = served
  }

  /** Resolves when QEMU has read all. MIGRATION_STREAM_CLOSED, IMAGE_CANCELLED. */
  async serve(socketPath: string): Promise<{ pagesFaulted: number; pagesPushed: number }> {
    this.#goesOn()
    const socket = connect(socketPath)
    this.#socket = socket
    try {
      await Promise.race([once(socket, 'connect'), once(socket, 'close')]) // closed at once where it is cancelled
      this.#goesOn()
      for (const piece of this.#pieces) socket.write(piece)
      socket.resume().end()
      await once(socket, 'close')
    } catch (cause) {
      this.#failure ??= new DiapauseError('MIGRATION_STREAM_CLOSED', 'QEMU did not take the devices: see its log', {
        cause
      })
    }
    this.#goesOn()
    await this.#served(() => this.#goesOn())
    return { pagesFaulted: 0, pagesPushed: 0 }
  }

  #goesOn(): void {
    if (this.#failure) throw this.#failure
  }

  /** Ends `serve`, now or when it is called. */
  cancel(): void {
    this.#failure ??= new DiapauseError('IMAGE_CANCELLED', 'the restore was cancelled')
    this.#socket?.destroy()
  }
}
