/**
 * Bases that disks begin with, each stored once in the cluster by its content: who needs one finds in its register where it is, or
 * stores it, or waits for the member that does. Nobody else's work depends on it: where a base cannot be had so, its blocks
 * are captured with the VM's first epoch.
 */
import type { PeerId } from '../../protocols/core.ts'
import { baseKey, type BaseRecord, baseStream, NONCES, parseBaseRecord, type StoredBase } from '../../protocols/base.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type {
  BaseStream,
  BaseWorker,
  Clock,
  DiskFile,
  FailureDetector,
  Log,
  Registers,
  ShardCluster,
  StreamManifest,
  UsedBase
} from '../ports.ts'
import { tolerates } from '../planning/holders.ts'

/** How often it is looked whether another has stored a base. A guess: little beside what storing takes. */
const LOOK_MS = 1_000
/** After so many failures in a row a base goes with the VM's first epoch. A guess. */
const TRIES = 3
/** For another's storing, each time. A guess: 30 GB at 100 MB/s. */
const PATIENCE_MS = 5 * 60_000
/** Of one VM: an image has room for few streams (`MAX_INDEX_STREAMS` less `MAX_STREAMS`). */
const MAX_BASES = 8

/** One cannot be read, or not safely enough: it is stored anew. */
const UNREADABLE = ['SHARD_LOST', 'MANIFEST_MISSING', 'MANIFEST_INVALID']

export interface SharedBasesDeps {
  readonly self: PeerId
  readonly registers: Pick<Registers, 'change'>
  readonly detector: Pick<FailureDetector, 'alive'>
  readonly shards: Pick<ShardCluster, 'readData' | 'putManifest' | 'getManifest'>
  readonly clock: Clock
  readonly log: Log
  /** In [0, 1). */
  random(): number
  /** BASE, as protocols/base.ts has it. Rejects where the file cannot be read, or changes meanwhile. */
  nameOf(file: DiskFile): Promise<string>
  /** Who is to hold a new stream, and how many columns may be lost; `peers`: who is given manifests. */
  holders(): { readonly holders: readonly PeerId[]; readonly peers: readonly PeerId[]; readonly m: number }
  encodeStream(manifest: StreamManifest): { readonly hash: string; readonly bytes: Uint8Array }
  /** MANIFEST_INVALID. */
  decodeStream(bytes: Uint8Array): StreamManifest
}

/** Makes disks that are as `files` lean on bases that are stored once. Resolves with those of which that is so. */
export type ShareBases = (
  files: readonly DiskFile[],
  worker: BaseWorker,
  ended: () => boolean
) => Promise<readonly DiskFile[]>

export class SharedBases {
  readonly #deps: SharedBasesDeps
  /** Nonces of streams that are being stored here. */
  readonly #storing = new Set<number>()
  /** Nonces of streams that could not be read here. */
  readonly #unreadable = new Set<number>()
  /** By base: what VMs of this peer wait for together. */
  readonly #sought = new Map<string, Promise<BaseStream>>()

  constructor(deps: SharedBasesDeps) {
    this.#deps = deps
  }

  readonly share: ShareBases = async (files, worker, ended) => {
    const bases: UsedBase[] = []
    for (const file of files.slice(0, MAX_BASES)) {
      const base = await this.#tried(file, worker, ended)
      if (base !== undefined) bases.push({ file, base })
    }
    if (bases.length === 0 || ended()) return []
    try {
      await worker.use(bases)
      return bases.map(({ file }) => file)
    } catch (error) {
      this.#deps.log.warn({ error: messageOf(error) }, 'bases are captured with the first epoch')
      return []
    }
  }

  async #tried(file: DiskFile, worker: BaseWorker, ended: () => boolean): Promise<BaseStream | undefined> {
    const { clock, log, nameOf } = this.#deps
    for (let failures = 0; !ended(); ) {
      try {
        return await this.#seek(await nameOf(file), file, worker, ended)
      } catch (error) {
        if (++failures === TRIES) {
          log.warn({ path: file.path, error: messageOf(error) }, 'a base is captured with the first epoch')
          return undefined
        }
        await new Promise<void>(resolve => clock.after(LOOK_MS, resolve))
      }
    }
    return undefined
  }

  #seek(base: string, file: DiskFile, worker: BaseWorker, ended: () => boolean): Promise<BaseStream> {
    let sought = this.#sought.get(base)
    if (sought === undefined) {
      sought = this.#find(base, file, worker, ended).finally(() => this.#sought.delete(base))
      this.#sought.set(base, sought)
    }
    return sought
  }

  async #find(base: string, file: DiskFile, worker: BaseWorker, ended: () => boolean): Promise<BaseStream> {
    const { clock, registers, random } = this.#deps
    const untilMs = clock.now() + PATIENCE_MS
    const nonce = Math.floor(random() * NONCES)
    while (!ended() && clock.now() < untilMs) {
      this.#storing.add(nonce)
      try {
        const record = parseBaseRecord(await registers.change(baseKey(base), now => this.#claim(now, nonce)))
        if (record?.nonce === nonce) return await this.#store({ base, nonce, file, worker })
        const read = record?.stored && (await this.#read(baseStream(base, record.nonce), record.nonce, record.stored))
        if (read) return read
        if (record?.stored) continue // unreadable: to be claimed
      } finally {
        this.#storing.delete(nonce)
      }
      await new Promise<void>(resolve => clock.after(LOOK_MS, resolve))
    }
    throw new DiapauseError('BASE_WAITING', `another member is storing base ${base} still, or the VM is gone`)
  }

  #claim(current: unknown, nonce: number): BaseRecord | undefined {
    const { self, detector } = this.#deps
    const record = parseBaseRecord(current)
    const storing = (by: PeerId, of: number): boolean =>
      by === self ? this.#storing.has(of) : detector.alive().includes(by)
    const stays = record && (record.stored ? !this.#unreadable.has(record.nonce) : storing(record.by, record.nonce))
    return stays ? undefined : { by: self, nonce, stored: null }
  }

  /** The register says that this peer stores it. */
  async #store({
    base,
    nonce,
    file,
    worker
  }: {
    readonly base: string
    readonly nonce: number
    readonly file: DiskFile
    readonly worker: BaseWorker
  }): Promise<BaseStream> {
    const { self, registers, shards, holders: plan, encodeStream, nameOf, log } = this.#deps
    const settle = (by: PeerId, stored: StoredBase | null): Promise<unknown> =>
      registers.change(baseKey(base), now =>
        parseBaseRecord(now)?.nonce === nonce ? { by, nonce, stored } : undefined
      )
    try {
      const { holders, peers } = plan()
      const made = await worker.store({ file, stream: baseStream(base, nonce), holders })
      if ((await nameOf(file)) !== base) {
        throw new DiapauseError(
          'BASE_CHANGED',
          `${file.path} has changed while it was read: a base may never be written`
        )
      }
      const { hash, bytes } = encodeStream(made.manifest)
      await shards.putManifest(hash, bytes, peers)
      const { extents, blocks, lengths } = made
      const record = parseBaseRecord(await settle(self, { manifest: hash, extents, blocks, lengths }))
      if (record?.nonce === nonce) return made
      throw new DiapauseError(
        'BASE_CLAIMED',
        `base ${base} is being stored by another member, too; it is asked for again`
      )
    } catch (error) {
      // Nobody has to wait for us; where this cannot be said either, they do until this peer is gone or tries again.
      await settle('', null).catch((why: unknown) => log.info({ base, error: messageOf(why) }, 'a claim stays'))
      throw error
    }
  }

  /** Undefined where it is to be stored anew. */
  async #read(stream: string, nonce: number, stored: StoredBase): Promise<BaseStream | undefined> {
    const { shards, decodeStream, detector, holders: plan } = this.#deps
    const { manifest: hash, ...rest } = stored
    try {
      const manifest = decodeStream(await shards.getManifest(hash))
      const { holders, m } = plan()
      const alive = detector.alive()
      const safe = tolerates(manifest.holders, manifest.m, alive) >= tolerates(holders, m, alive)
      if (safe && manifest.stream === stream) {
        await shards.readData(manifest, rest.lengths.offset, rest.lengths.length)
        return { manifest, ...rest }
      }
    } catch (error) {
      if (!UNREADABLE.some(code => hasCode(error, code))) throw error
    }
    this.#unreadable.add(nonce)
    return undefined
  }
}
