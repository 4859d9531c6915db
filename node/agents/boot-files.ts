/**
 * What VMs boot from. Most of it lies at paths of the hosts, which their operators see to; who makes a group may ask whether
 * it does. The rest the cluster keeps itself, by content (`protocols/boot-files.ts`): each member that may run VMs fetches what
 * a group's record names as soon as it hears of it, from any member that has it, so that no single host is needed later on; and
 * forgets it when no group names it any more.
 */
import { bootPaths, contentHash, MAX_KEPT_BYTES, PIECE_BYTES } from '../../protocols/boot-files.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { BootFile, BootFiles, Clock, Log } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'

/** A file that nobody could give is asked for again after this, while a group names it. A guess. */
const AGAIN_MS = 10_000
/** How often it is looked for files that no group names. A guess. */
const SWEEP_EVERY_MS = 3_600_000
/** Such a file stays so long: a group that was removed may be made again. A day: a guess. */
const UNNAMED_MS = 86_400_000

export interface BootFileDeps {
  readonly files: BootFiles
  readonly directory: Pick<GroupDirectory, 'onRecord' | 'all' | 'surveyed'>
  /** Other members that may have files. */
  others(): readonly PeerId[]
  /** As `ClusterShards` has them. */
  askPiece(peer: PeerId, hash: string, offset: number): Promise<Uint8Array>
  askPaths(peer: PeerId, paths: readonly string[]): Promise<Uint8Array>
  readonly clock: Clock
  readonly log: Log
}

/** Of one host: what is not at its paths. */
export interface LackingHost {
  readonly peer: PeerId
  readonly paths: readonly string[]
}

export class BootFileAgent {
  readonly #deps: BootFileDeps
  /** By hash: what is being fetched. */
  readonly #fetching = new Map<string, Promise<void>>()
  readonly #timers = new Map<string, () => void>()
  /** What was kept for a group that may have no record yet, and when. */
  readonly #given = new Map<string, number>()
  #stopped = false

  constructor(deps: BootFileDeps) {
    this.#deps = deps
    deps.directory.onRecord(record => this.#consider(record))
    for (const record of deps.directory.all()) this.#consider(record)
    this.#sweepLater()
  }

  stop(): void {
    this.#stopped = true
    for (const cancel of this.#timers.values()) cancel()
    this.#timers.clear()
  }

  /** Where on this host QEMU finds it, fetched first where it must be. FILE_MISSING: no member within reach has it. */
  async pathOf(name: string): Promise<string> {
    const hash = contentHash(name)
    if (hash === undefined) return name
    await this.#fetch(hash)
    return this.#deps.files.pathOf(hash)
  }

  /** Resolves when what the VM boots from is here, as far as the cluster keeps it. FILE_MISSING. */
  async bootable(vm: VmSpec): Promise<void> {
    await Promise.all(namedIn([vm]).map(hash => this.#fetch(hash)))
  }

  /** A file of this host, or of the cluster's keeping. FILE_MISSING, FILE_CHANGED. */
  async open(name: string): Promise<BootFile> {
    return { ...(await this.#deps.files.open(await this.pathOf(name))), path: name }
  }

  /** Kept here from now on, for a group that is to name it within a day. FILE_DAMAGED, FILE_TOO_LARGE, FILES_FULL. */
  async keep(hash: string, content: () => AsyncIterable<Uint8Array>): Promise<void> {
    this.#given.set(hash, this.#deps.clock.now())
    if (!(await this.#deps.files.has(hash))) await this.#deps.files.keep(hash, limited(content(), 'who brings it'))
  }

  /** Of `hosts` (which may be this one), those that lack what these VMs boot from; who does not answer is not among them. */
  async lacking(vms: readonly VmSpec[], hosts: readonly PeerId[]): Promise<LackingHost[]> {
    const { files, askPaths, others, log } = this.#deps
    const paths = bootPaths(vms).filter(path => contentHash(path) === undefined)
    if (paths.length === 0) return []
    const asked = hosts.map(async (peer): Promise<LackingHost> => {
      try {
        const there = await (others().includes(peer) ? askPaths(peer, paths) : files.at(paths))
        return { peer, paths: paths.filter((_, i) => there[i] === 0) }
      } catch (error) {
        log.info({ peer, error: messageOf(error) }, 'whether it has what VMs boot from is not known')
        return { peer, paths: [] }
      }
    })
    return (await Promise.all(asked)).filter(({ paths: lacked }) => lacked.length > 0)
  }

  #consider({ vms, removed, id }: GroupRecord): void {
    if (removed) return
    for (const hash of namedIn(vms)) void this.#fetchLater(hash, id)
  }

  async #fetchLater(hash: string, group: string): Promise<void> {
    const { clock, log, directory } = this.#deps
    if (this.#stopped || this.#timers.has(hash)) return
    try {
      await this.#fetch(hash)
    } catch (error) {
      log.warn({ group, error: messageOf(error) }, 'a file that VMs boot from could not be fetched yet')
      if (this.#stopped || this.#timers.has(hash)) return
      const again = (): void => {
        this.#timers.delete(hash)
        if (wantedBy(directory.all()).has(hash)) void this.#fetchLater(hash, group)
      }
      this.#timers.set(hash, clock.after(AGAIN_MS, again))
    }
  }

  async #fetch(hash: string): Promise<void> {
    if (await this.#deps.files.has(hash)) return
    let fetching = this.#fetching.get(hash)
    if (fetching === undefined) {
      fetching = this.#fetchAnywhere(hash).finally(() => this.#fetching.delete(hash))
      this.#fetching.set(hash, fetching)
    }
    await fetching
  }

  async #fetchAnywhere(hash: string): Promise<void> {
    const { others, files, log } = this.#deps
    const reasons: Record<string, string> = {}
    for (const peer of others()) {
      try {
        await files.keep(hash, limited(this.#contentAt(peer, hash), `member ${peer}`))
        log.info({ peer, hash }, 'fetched a file that VMs boot from')
        return
      } catch (error) {
        reasons[peer] = messageOf(error)
      }
    }
    throw new DiapauseError('FILE_MISSING', `no member within reach has the file of content ${hash}`, {
      details: { hash, reasons }
    })
  }

  async *#contentAt(peer: PeerId, hash: string): AsyncGenerator<Uint8Array> {
    for (let offset = 0; ; ) {
      const piece = await this.#deps.askPiece(peer, hash, offset)
      if (piece.length > PIECE_BYTES) {
        const told = `member ${peer} gives ${piece.length} bytes of a file at once instead of ${PIECE_BYTES} or fewer`
        throw new DiapauseError('FILE_DAMAGED', told)
      }
      if (piece.length > 0) yield piece
      if (piece.length < PIECE_BYTES) return
      offset += piece.length
    }
  }

  #sweepLater(): void {
    const { clock, directory, files, log } = this.#deps
    const cancel = clock.after(SWEEP_EVERY_MS, () => {
      // Who has not learned of all groups yet does not know what they name.
      for (const [hash, atMs] of this.#given) if (clock.now() - atMs > UNNAMED_MS) this.#given.delete(hash)
      const wanted = new Set([...wantedBy(directory.all()), ...this.#given.keys()])
      const swept = directory.surveyed ? files.removeOthers(wanted, UNNAMED_MS) : Promise.resolve()
      swept
        .catch((error: unknown) =>
          log.warn({ error: messageOf(error) }, 'files that no VM boots from were not removed')
        )
        .finally(() => {
          if (!this.#stopped) this.#sweepLater()
        })
    })
    this.#timers.set('sweep', cancel)
  }
}

/** Its hash is known at its end only: FILE_TOO_LARGE before it fills the disk. `who` gives it. */
async function* limited(content: AsyncIterable<Uint8Array>, who: string): AsyncGenerator<Uint8Array> {
  let bytes = 0
  for await (const piece of content) {
    bytes += piece.length
    if (bytes > MAX_KEPT_BYTES) {
      const message = `a file that VMs boot from may have ${MAX_KEPT_BYTES} bytes, and ${who} gives more: take a smaller one, or name it by its path`
      throw new DiapauseError('FILE_TOO_LARGE', message)
    }
    yield piece
  }
}

const namedIn = (vms: readonly VmSpec[]): string[] => bootPaths(vms).flatMap(path => contentHash(path) ?? [])

const wantedBy = (groups: readonly GroupRecord[]): Set<string> =>
  new Set(groups.flatMap(({ vms, removed }) => (removed ? [] : namedIn(vms))))
