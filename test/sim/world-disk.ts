/**
 * A peer's disk. What was written is there for good when the write has settled; of what was on its way at a crash each
 * entry may be there or not (a torn one counts as not: the stores find it by its checksum). The disk can be full, slow,
 * or have a bad place.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { RegisterStore, ShardStore } from '../../node/ports.ts'
import { countGrids } from '../../node/store/inventory.ts'
import type { StartedGenerations } from '../../node/agents/group-agent.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import type { Kernel } from './kernel.ts'
import type { Life } from './world-host.ts'

interface Write {
  readonly entries: readonly (() => void)[]
}

export class Disk {
  readonly registers = new Map<string, Uint8Array>()
  /** Stream → columns here, as `GRID/COLUMN`. Their content is in the world: a column is a part of what the stream says. */
  readonly columns = new Map<string, Set<string>>()
  readonly manifests = new Map<string, Uint8Array>()
  readonly started = new Map<string, number>()
  /** What the cluster's file says: what a peer knows of its cluster before it has asked. */
  cluster: ClusterRecord | undefined
  /** Streams of which no column can be read here any more. */
  readonly rotten = new Set<string>()
  full = false
  /** Chance that a start cannot read the registers. */
  unreadable = 0
  /** What a write takes longer than it should. */
  slowMs = 0
  /** Called when an entry of a register is on the disk. */
  onRegister: (name: string, bytes: Uint8Array | null) => void = () => {}
  /** Called when a stream or a manifest is to be forgotten. */
  onForget: (name: string) => void = () => {}
  readonly #kernel: Kernel
  readonly #unsynced = new Set<Write>()

  constructor(kernel: Kernel) {
    this.#kernel = kernel
  }

  /** Settles in `life` when all entries are there for good. */
  write(life: Life, entries: readonly (() => void)[]): Promise<void> {
    const write = { entries }
    this.#unsynced.add(write)
    const kernel = this.#kernel
    const delayMs = 0.2 + kernel.random() * (kernel.chance(0.05) ? 40 : 2) + kernel.random() * this.slowMs
    return new Promise(resolve => {
      kernel.at(
        delayMs,
        () => `${life.host.name} fsync`,
        () => {
          if (!this.#unsynced.delete(write)) return
          for (const apply of entries) apply()
          life.enter('io', 'fsynced', resolve)
        }
      )
    })
  }

  crash(): void {
    for (const { entries } of this.#unsynced) {
      const odds = this.#kernel.pick([0, 0.5, 1])
      for (const apply of entries) if (this.#kernel.chance(odds)) apply()
    }
    this.#unsynced.clear()
  }

  // ------------------------------------------------------------------------------------------ what is on it

  registerStore(life: Life): RegisterStore {
    return {
      load: async () => {
        if (this.#kernel.chance(this.unreadable))
          throw new DiapauseError('REGISTER_STORE_CORRUPT', 'the disk cannot be read')
        return [...this.registers]
      },
      persist: async entries => {
        if (this.full) throw new DiapauseError('REGISTER_STORE_WRITE', 'no space left on device')
        await this.write(
          life,
          entries.map(([name, bytes]) => () => {
            if (bytes === null) this.registers.delete(name)
            else this.registers.set(name, bytes)
            this.onRegister(name, bytes)
          })
        )
      },
      close: async () => {}
    }
  }

  startedFile(life: Life): StartedGenerations {
    const known = new Map(this.started)
    let writing: Promise<void> = Promise.resolve()
    const write = async (): Promise<void> => {
      if (this.full) throw new DiapauseError('STARTED_WRITE', 'no space left on device')
      const now = [...known]
      await this.write(life, [() => now.forEach(([name, value]) => this.started.set(name, value))])
    }
    return {
      of: group => known.get(group) ?? 0,
      note: (group, generation) => {
        if ((known.get(group) ?? 0) < generation) known.set(group, generation)
        const written = writing.then(write) // one after the other, as the real file
        writing = written.catch(() => {})
        return written
      }
    }
  }

  async saveCluster(life: Life, record: ClusterRecord): Promise<void> {
    if (this.full) throw new DiapauseError('CLUSTER_WRITE', 'no space left on device')
    await this.write(life, [() => void (this.cluster = record)])
  }

  async putColumn(life: Life, stream: string, place: string): Promise<void> {
    if (this.full) throw new DiapauseError('STORE_FULL', 'no space left on device')
    await this.write(life, [
      () => {
        const places = this.columns.get(stream) ?? new Set()
        this.columns.set(stream, places.add(place))
      }
    ])
  }

  async putManifest(life: Life, hash: string, bytes: Uint8Array): Promise<void> {
    if (this.full) throw new DiapauseError('STORE_FULL', 'no space left on device')
    await this.write(life, [() => void this.manifests.set(hash, bytes)])
  }

  /** As housekeeping sees it. Columns come and go by the cluster's own ways (`world-images.ts`). */
  shardStore(): ShardStore {
    return {
      streams: async () => [...this.columns].map(([stream, places]) => ({ stream, bytes: places.size })),
      columns: async stream => {
        const places = this.rotten.has(stream) ? [] : (this.columns.get(stream) ?? [])
        return countGrids([...places].map(place => ({ column: Number(place.split('/')[1]) })))
      },
      manifests: async () => [...this.manifests.keys()],
      getManifest: async hash => this.manifests.get(hash),
      dropStream: async stream => {
        this.onForget(stream)
        this.columns.delete(stream)
      },
      dropManifest: async hash => {
        this.onForget(hash)
        this.manifests.delete(hash)
      },
      putColumn: notHere,
      readColumn: notHere,
      verifyColumn: notHere,
      refuteColumn: notHere,
      space: async () => ({ liveBytes: 0, deadBytes: 0, freeBytes: this.full ? 0 : Number.MAX_SAFE_INTEGER }),
      eachColumn: () => {
        throw notAsked()
      },
      putManifest: notHere,
      close: async () => {}
    }
  }
}

/** Columns and manifests come and go by the cluster's own ways (`world-images.ts`). */
const notAsked = (): TypeError => new TypeError('nobody should ask a store for this here')
const notHere = (): Promise<never> => Promise.reject(notAsked())
