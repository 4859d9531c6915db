/**
 * The disks of one VM of one generation on this host: what they hold at its start, which files of them an image is made of,
 * and until when those files stay. What was written is on its way into an image until an epoch with it is committed.
 */
import { disksOf, type VmSpec } from '../../protocols/group.ts'
import type { Clock, DiskFile, ImageWorker, Log, Machine, MachineDisks, Restore, ServeBlocks } from '../ports.ts'
import type { ShareBases } from './bases.ts'
import { type LazyDisks, serveLazily } from './lazy-disks.ts'

const MIB = 1_048_576

export interface LocalDisksDeps {
  readonly clock: Clock
  readonly log: Log
  readonly serveBlocks: ServeBlocks
  /** Absent: bases are captured with a VM's first epoch. */
  readonly shareBases?: ShareBases | undefined
  /** `layers`: a folder, for one generation; `blocks`: a socket. */
  path(kind: 'layers' | 'blocks', group: string, vm: string): string
}

export class LocalDisks {
  readonly #vm: VmSpec
  readonly #group: string
  readonly #deps: LocalDisksDeps
  readonly #folder: string
  /** Bases whose content is not stored elsewhere, and that no committed image of this machine holds yet. */
  #bases: readonly DiskFile[] = []
  /** By epochs that are neither committed nor older than one that is. */
  readonly #layers = new Map<number, readonly DiskFile[]>()
  #ended = false
  /** After `fresh`: settles when bases are stored, as far as they can be. No epoch may begin before. */
  shared: Promise<void> = Promise.resolve()
  #lazy: Promise<LazyDisks> | undefined
  /** After `begun`, where disks are served: resolves when all of them are on this host, with what was read of them. */
  local: Promise<{ readonly bytes: number; readonly ms: number }> | undefined

  constructor(vm: VmSpec, of: { readonly group: string; readonly generation: number }, deps: LocalDisksDeps) {
    this.#vm = vm
    this.#group = of.group
    this.#deps = deps
    this.#folder = `${deps.path('layers', of.group, vm.id)}.${of.generation}`
  }

  get none(): boolean {
    return disksOf(this.#vm).length === 0
  }

  /** As the VM finds them at its first boot, whose images `worker` will make. */
  fresh(worker?: Pick<ImageWorker, 'bases'>): MachineDisks | undefined {
    if (this.none) return undefined
    const disks = disksOf(this.#vm)
    this.#bases = disks.flatMap(({ base }, disk) => (base ? [{ disk, path: base.path, format: base.format }] : []))
    if (worker?.bases && this.#bases.length > 0) {
      const shared = this.#deps.shareBases?.(this.#bases, worker.bases, () => this.#ended)
      this.shared = Promise.resolve(shared).then((files = []) => {
        this.#bases = this.#bases.filter(base => !files.includes(base))
      })
      this.shared.catch(() => {}) // awaited when the VM has booted
    }
    return { folder: this.#folder, starts: disks.map(() => ({ kind: 'new' })) }
  }

  /** As an image holds them, which need not be read yet. Rejects where they cannot be served. */
  async restored(restore: Promise<Pick<Restore, 'disks' | 'closeDisks'>>): Promise<MachineDisks | undefined> {
    if (this.none) return undefined
    const { clock, log, serveBlocks: serve, path } = this.#deps
    const [group, vm] = [this.#group, this.#vm.id]
    const sizes = disksOf(this.#vm).map(({ sizeMiB }) => sizeMiB * MIB)
    const socketPath = path('blocks', group, vm)
    this.#lazy = serveLazily({ group, vm, sizes, restore, serve, socketPath, clock, log })
    const { starts } = await this.#lazy
    return { folder: this.#folder, starts }
  }

  /** The machine has begun with them: what serves them ends when nobody needs it. */
  begun({ disks }: Machine): void {
    const lazy = this.#lazy
    if (lazy) this.local = disks.here.then(async () => (await lazy).end())
  }

  /** What the image of `epoch` is made of, which left `layers`; the oldest first. */
  cutTo(epoch: number, layers: readonly DiskFile[]): readonly DiskFile[] {
    this.#layers.set(epoch, layers)
    return [...this.#bases, ...layers]
  }

  committed(epoch: number, machine: Machine | undefined): void {
    const layers = this.#layers.get(epoch)
    // Not an epoch of this machine: its image holds nothing that was written since.
    if (layers === undefined) return
    for (const known of this.#layers.keys()) if (known <= epoch) this.#layers.delete(known)
    this.#bases = []
    machine?.disks.release(layers)
  }

  /**
   * `epoch` is void, and no later one is being captured. Its layers stay for the next, and as one: of epochs that come to
   * nothing one after the other chains would grow, and pauses with them (two disks: 0.1 s at 100 layers, 0.5 s at 300).
   */
  voided(epoch: number, machine: Machine | undefined): void {
    for (const known of this.#layers.keys()) if (known <= epoch) this.#layers.delete(known)
    if (this.#layers.size === 0) machine?.disks.join()
  }

  /** The VM has ended. */
  async end(): Promise<void> {
    this.#ended = true
    const lazy = await this.#lazy?.catch(() => undefined)
    await lazy?.end()
  }
}
