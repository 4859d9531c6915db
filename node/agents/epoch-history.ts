/**
 * What became of epochs, as this peer saw it: of its own VMs by what its agents report, of the others by what their owners tell
 * when they are cut and durable. So of most epochs every peer knows what each VM cost, and whoever is asked can tell.
 *
 * Nothing waits for it. It is in memory at once and reaches the disk in the background when an epoch is decided, a batch a
 * second at most; a disk that fails costs what a crash would lose and one warning.
 */
import type { PeerId } from '../../protocols/core.ts'
import { MAX_REASON, seenEpochSchema, seenKey } from '../../protocols/epoch/history.ts'
import type { ReportMessage } from '../../protocols/epoch/messages.ts'
import { messageOf } from '../errors.ts'
import type { Clock, EpochCause, EpochHistory, EpochHistoryStore, Log, SeenCut, SeenEpoch } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import { HistoryRoom } from './history-room.ts'

/** What is new is on disk after this, unless the power fails. A guess: what may be lost at a crash. */
const WRITE_MS = 1_000
/** After a write that failed. A guess: a full disk is not made better by trying. */
const WRITE_AGAIN_MS = 60_000
/** The file is written anew when it has twice what is kept, and this: so that small ones are left alone. A guess. */
const SPARE_BYTES = 1 << 20

export interface EpochRecorderOptions {
  readonly directory: Pick<GroupDirectory, 'get' | 'onReport' | 'onForgotten'>
  readonly clock: Clock
  wallMs(): number
  readonly log: Log
  /** Undefined: in memory only. It is the recorder's to close. */
  readonly store: EpochHistoryStore | undefined
}

/** Reads what earlier runs of this peer saw; from then on it listens. */
export async function createEpochHistory(options: EpochRecorderOptions): Promise<EpochRecorder> {
  const room = new HistoryRoom()
  try {
    for (const epoch of (await options.store?.load()) ?? []) room.put(epoch)
  } catch (error) {
    options.log.warn({ error: messageOf(error) }, 'the history of epochs cannot be read: it begins anew')
  }
  return new EpochRecorder(options, room)
}

/** Moments by this peer's own clock, which no one sets. */
interface Watched {
  readonly openedMs: number
  readonly cutMs: Map<string, number>
}

export class EpochRecorder implements EpochHistory {
  readonly #options: EpochRecorderOptions
  readonly #room: HistoryRoom
  readonly #listeners = new Set<(epoch: SeenEpoch) => void>()
  /** Of epochs that are not decided: group → name of the epoch. */
  readonly #watched = new Map<string, Map<string, Watched>>()
  /** To be written, by group and name. */
  readonly #unwritten = new Map<string, SeenEpoch>()
  #rewrite = false
  #cancelWrite: (() => void) | undefined
  #writing: Promise<void> = Promise.resolve()
  #failing = false
  #stopped = false

  constructor(options: EpochRecorderOptions, room: HistoryRoom) {
    this.#options = options
    this.#room = room
    options.directory.onReport((message, from) => this.#onMessage(message, from))
    options.directory.onForgotten(group => this.#forget(group))
  }

  of(group: string, limit?: number): readonly SeenEpoch[] {
    return this.#room.of(group, limit)
  }

  onSeen(listener: (epoch: SeenEpoch) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** What the peer reports to people anyway, as far as it is about epochs. */
  readonly noteReport = (kind: string, fields: Readonly<Record<string, unknown>>): void => {
    const { group, epoch, vm, generation } = fields
    if (typeof group !== 'string' || typeof epoch !== 'number') return
    if (kind === 'cut' || kind === 'epoch.durable') {
      if (typeof vm !== 'string' || typeof generation !== 'number') return
      const { pauseMs, cutAtMs, prepareMs, leadMs, stats } = fields
      const told = { pauseMs, cutAtMs, prepareMs, leadMs, image: stats } as SeenCut // the schema has the last word
      this.#onVm({ group, generation, epoch }, vm, kind === 'cut' ? 'cut' : 'durable', told)
    } else if (kind === 'epoch.opened') {
      this.#note(this.#watch({ group, generation: this.#generationOf(group), epoch }))
    } else if (kind === 'epoch.committed' || kind === 'epoch.aborted') {
      this.#onEnd(group, epoch, kind === 'epoch.committed' ? 'committed' : 'aborted', fields)
    }
  }

  /** Told by who opened it, at once. */
  noteCause(group: string, generation: number, epoch: number, { by, policy, why }: EpochCause): void {
    const cause = { by, policy, why: why.slice(0, MAX_REASON) }
    this.#note({ ...this.#watch({ group, generation, epoch }), cause })
  }

  /** What is decided already gets to disk. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancelWrite?.()
    await this.#writing
    await this.#write()
    await this.#options.store?.close()
  }

  #generationOf(group: string): number {
    return this.#options.directory.get(group)?.generation ?? 0
  }

  #onMessage(message: ReportMessage, from: PeerId): void {
    const { kind, group, generation, epoch, vm } = message
    const record = this.#options.directory.get(group)
    if (record === undefined || record.generation !== generation || record.owners[vm] !== from) return
    const name = { group, generation, epoch }
    if (kind === 'durable') this.#onVm(name, vm, kind, { image: message.stats })
    if (kind !== 'cut') return
    const { prepareMs, leadMs, atWallMs: cutAtMs, pauseMs } = message
    this.#onVm(name, vm, kind, { prepareMs, leadMs, cutAtMs, ...(pauseMs !== undefined && { pauseMs }) })
  }

  #onVm(name: Name, vm: string, what: 'cut' | 'durable', told: SeenCut): void {
    const newest = this.#room.of(name.group, 1).at(-1)
    // Of an epoch that ended before this peer began: there is nothing to add to.
    if (newest !== undefined && newest.epoch > name.epoch && this.#room.get(name) === undefined) return
    const seen = this.#watch(name)
    const nowMs = this.#options.clock.now()
    const watched = this.#watched.get(name.group)?.get(seenKey(name))
    const sinceMs = what === 'durable' ? watched?.cutMs.get(vm) : undefined
    if (what === 'cut') watched?.cutMs.set(vm, nowMs)
    const known = Object.entries({ ...told, ...(sinceMs !== undefined && { durableMs: nowMs - sinceMs }) })
    const cut = Object.fromEntries(known.filter(([, value]) => value !== undefined))
    this.#note({ ...seen, vms: { ...seen.vms, [vm]: { ...seen.vms[vm], ...cut } } })
  }

  #onEnd(group: string, epoch: number, outcome: 'committed' | 'aborted', fields: Readonly<Record<string, unknown>>) {
    // Where a takeover voids it the record is of the next generation already.
    const open = this.#room.of(group).findLast(each => each.epoch === epoch && each.outcome === 'open')
    const seen = open ?? this.#watch({ group, generation: this.#generationOf(group), epoch })
    if (seen.outcome !== 'open') return
    const openedMs = this.#watched.get(group)?.get(seenKey(seen))?.openedMs
    const { skewMs, reason } = fields
    this.#note({
      ...seen,
      outcome,
      ...(openedMs !== undefined && { tookMs: this.#options.clock.now() - openedMs }),
      ...(typeof skewMs === 'number' && { skewMs: Math.max(0, skewMs) }),
      ...(typeof reason === 'string' && { reason: reason.slice(0, MAX_REASON) })
    })
    this.#watched.get(group)?.delete(seenKey(seen))
  }

  /** What is known of it so far; it is watched from now on where it is new. */
  #watch(name: Name): SeenEpoch {
    const known = this.#room.get(name)
    if (known !== undefined) return known
    const { clock, wallMs } = this.#options
    const watched = this.#watched.get(name.group) ?? new Map<string, Watched>()
    this.#watched.set(name.group, watched)
    // Of older ones we have missed the end: they are kept as they are.
    for (const seen of this.#room.of(name.group)) if (watched.delete(seenKey(seen))) this.#writeSoon(seen)
    watched.set(seenKey(name), { openedMs: clock.now(), cutMs: new Map() })
    return { ...name, outcome: 'open', openedAtMs: Math.max(0, wallMs()), vms: {} }
  }

  /** An account beyond its limits would make others refuse it, and this peer at its next start. */
  #note(epoch: SeenEpoch): void {
    if (this.#stopped) return
    const { success, error } = seenEpochSchema.safeParse(epoch)
    if (!success) {
      this.#options.log.error({ epoch, error: error.message }, 'what was seen of an epoch is not sound')
      return
    }
    this.#room.put(epoch)
    if (epoch.outcome !== 'open') this.#writeSoon(epoch)
    for (const listener of this.#listeners) listener(epoch)
  }

  #forget(group: string): void {
    this.#watched.delete(group)
    this.#room.forget(group)
    this.#rewrite = true
    this.#schedule(WRITE_MS)
  }

  #writeSoon(epoch: SeenEpoch): void {
    if (this.#options.store === undefined || this.#stopped) return
    this.#unwritten.set(`${epoch.group}/${seenKey(epoch)}`, epoch)
    this.#schedule(this.#failing ? WRITE_AGAIN_MS : WRITE_MS)
  }

  #schedule(ms: number): void {
    if (this.#options.store === undefined || this.#stopped || this.#cancelWrite !== undefined) return
    this.#cancelWrite = this.#options.clock.after(ms, () => {
      this.#writing = this.#write().finally(() => {
        this.#cancelWrite = undefined
        if (this.#unwritten.size > 0) this.#schedule(this.#failing ? WRITE_AGAIN_MS : WRITE_MS)
      })
    })
  }

  async #write(): Promise<void> {
    const { store, log } = this.#options
    const epochs = [...this.#unwritten.values()]
    if (store === undefined || (epochs.length === 0 && !this.#rewrite)) return
    this.#unwritten.clear()
    try {
      const tooLarge = store.bytes > 2 * this.#room.bytes + SPARE_BYTES
      if (this.#rewrite || tooLarge) await store.replace(this.#room.all().filter(epoch => !this.#isWatched(epoch)))
      else await store.append(epochs)
      this.#rewrite = false
      if (this.#failing) log.info({}, 'the history of epochs can be written again')
      this.#failing = false
    } catch (error) {
      for (const epoch of epochs) {
        const key = `${epoch.group}/${seenKey(epoch)}`
        if (this.#room.get(epoch) !== undefined && !this.#unwritten.has(key)) this.#unwritten.set(key, epoch)
      }
      const message = 'the history of epochs is kept in memory until it can be written; is the disk full?'
      if (!this.#failing) log.warn({ error: messageOf(error) }, message)
      this.#failing = true
    }
  }

  #isWatched(epoch: SeenEpoch): boolean {
    return this.#watched.get(epoch.group)?.has(seenKey(epoch)) === true
  }
}

type Name = Pick<SeenEpoch, 'group' | 'generation' | 'epoch'>
