/**
 * Copies committed epochs to the second home. A group's keeper (`keepers.ts`) does it, some time after a commit and at most
 * once an interval; where another is its keeper by now, whoever was at it leaves off. What is copied is held in the
 * group's record meanwhile, as for an export, so that its shards stay whatever is committed. One group after the other.
 *
 * Two that take themselves for the keeper do no harm, but bytes sent twice: each holds the epoch under a word of its own, objects
 * are named by what is in them, each is there before what names it is put, and who cleans up spares what is younger than a week
 * (`node/second-home/copy.ts`, `sweep-plan.ts`).
 */
import { bootPaths } from '../../protocols/boot-files.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { CommittedEpoch, GroupRecord } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type {
  BootFile,
  Clock,
  HomeCopy,
  HomeCopying,
  HomeEpochName,
  ImageManifest,
  Log,
  SecondHome,
  StreamKeys
} from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import { EpochReaders } from './epoch-readers.ts'
import type { Report } from './group-agent.ts'
import type { Keepers } from './keepers.ts'

/** A first epoch waits so long, for a burst of commits after a start. 1 s: a guess. */
const SETTLE_MS = 1_000
/** A copy that failed is tried again after this, or the interval, if that is shorter. A minute: a guess. */
const AGAIN_MS = 60_000

export interface SecondHomeAgentDeps {
  readonly self: PeerId
  readonly keepers: Pick<Keepers, 'isOurs' | 'follow'>
  /** Of this run of the peer: what an earlier one held is over. */
  readonly run: string
  readonly directory: Pick<GroupDirectory, 'onForgotten' | 'get' | 'refresh' | 'change'>
  readonly membership: { record(): ClusterRecord }
  readonly home: SecondHome
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  readonly intervalMs: number
  readonly keep: number
  wallMs(): number
  readManifest(hash: string): Promise<ImageManifest>
  /** What VMs boot from, by its name in a specification. FILE_MISSING. */
  openFile(name: string): Promise<BootFile>
  /** IMAGE_KEY. */
  keysOf(group: string): readonly StreamKeys[]
}

/** An epoch that was copied; `without`: what its VMs boot from, and this host does not have. */
export type CopiedEpoch = HomeCopy & { readonly epoch: number; readonly without: readonly string[] }

export interface GroupCopies {
  readonly copying?: { readonly epoch: number; readonly doneBytes: number; readonly allBytes: number } | undefined
  readonly last?: (CopiedEpoch & { readonly atMs: number }) | undefined
  readonly failed?: { readonly atMs: number; readonly code: string; readonly message: string } | undefined
}

type How = Omit<HomeCopying, 'progress'>

interface GroupState {
  copies: GroupCopies
  /** A copy is under way, or waits for that of another group. */
  busy: boolean
  /** When the last copy was begun, by the clock. */
  begunMs: number | undefined
  cancelTimer: (() => void) | undefined
  /** By the clock: when that timer goes off. */
  dueMs: number
  /** Ends a copy that is under way because this peer is the group's copier. */
  stop: AbortController | undefined
}

export class SecondHomeAgent {
  readonly #deps: SecondHomeAgentDeps
  readonly #groups = new Map<string, GroupState>()
  readonly #stop = new AbortController()
  readonly #readers: EpochReaders
  /** The copy that is under way, and those that wait for it. */
  #queue: Promise<unknown> = Promise.resolve()

  constructor(deps: SecondHomeAgentDeps) {
    this.#deps = deps
    this.#readers = new EpochReaders({ ...deps, kind: 'home' })
    deps.directory.onForgotten(group => this.#forget(group))
    deps.keepers.follow(record => this.#consider(record))
  }

  /** Resolves when what was copied is held no longer, or cannot be released now: a home that does not answer is not waited for. */
  async stop(): Promise<void> {
    this.#stop.abort()
    for (const group of this.#groups.keys()) this.#forget(group)
    await this.#queue
  }

  copiesOf(group: string): GroupCopies {
    return this.#groups.get(group)?.copies ?? {}
  }

  /** Whoever copies it else: the committed epoch, now; `all` as `HomeCopying` has it. HOME_BUSY, HOME_NO_KEY, GROUP_UNKNOWN, EPOCH_NOT_KEPT. */
  async push(group: string, all = false): Promise<CopiedEpoch> {
    const state = this.#stateOf(group)
    if (state.busy) throw new DiapauseError('HOME_BUSY', `Group "${group}" is being copied at this moment.`)
    return await this.#inTurn(group, state, { signal: this.#stop.signal, all })
  }

  #consider(record: GroupRecord): void {
    const { directory, keepers, clock } = this.#deps
    const { id, committed, removed } = record
    if (removed || !keepers.isOurs(record)) return this.#forget(id)
    const state = this.#stateOf(id)
    if (committed === null || state.copies.last?.epoch === committed.epoch || this.#stop.signal.aborted) return
    const waitMs = this.#waitMs(state, committed)
    const dueMs = clock.now() + waitMs
    if (state.cancelTimer !== undefined && (state.stop !== undefined || dueMs >= state.dueMs)) return
    state.cancelTimer?.()
    state.dueMs = dueMs
    state.cancelTimer = clock.after(waitMs, () => {
      const stop = new AbortController()
      state.stop = stop
      this.#inTurn(id, state, { signal: AbortSignal.any([stop.signal, this.#stop.signal]) })
        .catch(() => {}) // told by `#inTurn`
        .finally(() => {
          state.cancelTimer = undefined
          state.stop = undefined
          const latest = directory.get(id)
          if (latest !== undefined && this.#groups.get(id) === state) this.#consider(latest)
        })
    })
  }

  #waitMs({ copies, begunMs }: GroupState, { epoch }: CommittedEpoch): number {
    const { clock, intervalMs } = this.#deps
    if (copies.failed !== undefined) return Math.min(AGAIN_MS, intervalMs)
    // Somebody went back: what was given up must not stay the newest there for an interval.
    if (copies.last !== undefined && epoch < copies.last.epoch) return SETTLE_MS
    return begunMs === undefined ? SETTLE_MS : Math.max(0, begunMs + intervalMs - clock.now())
  }

  #stateOf(group: string): GroupState {
    const known = this.#groups.get(group)
    if (known !== undefined) return known
    const idle = { begunMs: undefined, cancelTimer: undefined, stop: undefined }
    const state: GroupState = { copies: {}, busy: false, dueMs: 0, ...idle }
    this.#groups.set(group, state)
    return state
  }

  #forget(group: string): void {
    const state = this.#groups.get(group)
    if (state === undefined) return
    if (state.stop === undefined) {
      state.cancelTimer?.()
      state.cancelTimer = undefined
    }
    state.stop?.abort()
    if (!state.busy) this.#groups.delete(group)
  }

  /** Its outcome is told in status, log and events: of failures there only the first, and others than the one before. */
  #inTurn(group: string, state: GroupState, how: How): Promise<CopiedEpoch> {
    const { log, report, wallMs, home, clock } = this.#deps
    const { signal } = how
    state.busy = true
    const done = this.#queue.then(async () => {
      state.begunMs = clock.now()
      try {
        checkWanted(signal)
        const copied = await this.#copy(group, state, how)
        state.copies = { last: { ...copied, atMs: wallMs() } }
        report('home.copied', { group, ...copied })
        return copied
      } catch (error) {
        const code = error instanceof DiapauseError ? error.code : 'INTERNAL'
        const failed = { atMs: wallMs(), code, message: messageOf(error) }
        const isNews = state.copies.failed?.code !== code
        state.copies = { ...state.copies, copying: undefined, ...(!signal.aborted && { failed }) }
        if (!signal.aborted && isNews) report('home.failed', { group, code, reason: messageOf(error) })
        throw error
      } finally {
        state.busy = false
      }
    })
    this.#queue = done.catch((error: unknown) =>
      log.debug({ group, error: messageOf(error) }, `not copied to ${home.url}`)
    )
    return done
  }

  async #copy(group: string, state: GroupState, how: How): Promise<CopiedEpoch> {
    const { membership, home, keep } = this.#deps
    const { id: cluster, name, recovery } = membership.record()
    if (recovery === undefined) {
      const message = 'The cluster has no recovery key to seal epochs to: make one (diapause recovery-key new).'
      throw new DiapauseError('HOME_NO_KEY', message)
    }
    const { record, committed, release } = await this.#hold(group)
    try {
      const { epoch, generation } = committed
      const progress = (doneBytes: number, allBytes: number): void => {
        state.copies = { ...state.copies, copying: { epoch, doneBytes, allBytes } }
      }
      progress(0, 0)
      const images: Record<string, ImageManifest> = {}
      for (const [vm, hash] of Object.entries(committed.images)) {
        checkWanted(how.signal)
        images[vm] = await this.#deps.readManifest(hash)
      }
      const { vms, outputCommit = false, openFlow = false, retention } = record
      const { files, without } = await this.#filesOf(record)
      const facts = {
        group,
        epoch,
        generation,
        groupGeneration: record.generation,
        vms,
        outputCommit,
        openFlow,
        retention,
        images,
        files,
        keys: this.#deps.keysOf(group)
      }
      const wish = { cluster: { id: cluster, name }, recovery: recovery.public, ...facts }
      const copied = await home.copy(wish, { ...how, progress })
      await this.#sweep({ cluster, group, generation: copied.generation, epoch }, keep, how.signal)
      return { epoch, ...copied, without }
    } finally {
      await release()
    }
  }

  /** What this host lacks another may have, but an epoch without is worth more than none. */
  async #filesOf({ id: group, vms }: GroupRecord) {
    const files: BootFile[] = []
    const without: string[] = []
    for (const name of bootPaths(vms)) {
      try {
        files.push(await this.#deps.openFile(name))
      } catch (error) {
        if (!hasCode(error, 'FILE_MISSING')) throw error
        this.#deps.log.warn({ group, error: messageOf(error) }, 'a file that VMs boot from is not copied')
        without.push(name)
      }
    }
    return { files, without }
  }

  /** An epoch that was copied is copied, whatever becomes of older ones. */
  async #sweep(of: HomeEpochName, keep: number, signal: AbortSignal): Promise<void> {
    const { home, log } = this.#deps
    try {
      const { damaged } = await home.sweep(of, keep, of, signal)
      if (damaged.length > 0) log.warn({ group: of.group, damaged }, 'objects of the second home cannot be read')
    } catch (error) {
      // Whoever copies next cleans up.
      if (!signal.aborted)
        log.warn({ group: of.group, error: messageOf(error) }, 'the second home could not be cleaned up')
    }
  }

  /** The committed epoch stays until `release`. */
  async #hold(group: string) {
    const record = await this.#deps.directory.refresh(group)
    if (record === null || record.removed)
      throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
    const committed: CommittedEpoch | null = record.committed
    if (committed === null) throw new DiapauseError('EPOCH_NOT_KEPT', `Group "${group}" has no epoch yet.`)
    const { release } = await this.#readers.hold(group, committed.epoch)
    if (release === undefined) {
      throw new DiapauseError(
        'EPOCHS_READ',
        `Epoch ${committed.epoch} of group "${group}" cannot be held now: try again later.`
      )
    }
    return { record, committed, release }
  }
}

/** HOME_CANCELLED once it is aborted. */
function checkWanted(signal: AbortSignal): void {
  if (signal.aborted) throw new DiapauseError('HOME_CANCELLED', 'it is not to be copied here any more')
}
