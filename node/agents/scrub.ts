/**
 * Reads everything stored here again and again, so that what a disk has spoiled is found while others can still mend it: all
 * columns in the store's order, then all manifests, within `scrub.periodMs`. What is damaged is repaired at once (`repair.ts`).
 *
 * A pass is planned to take SHARE of the period. How fast it goes is computed anew from what is left and when it should be
 * done, so that after a restart, a night asleep, or when more was stored meanwhile, it still keeps to the period.
 */
import type { Clock, ColumnPlace, Log, ShardStore, StreamId } from '../ports.ts'
import { messageOf } from '../errors.ts'
import type { Report } from './group-agent.ts'

/** Of the period; the rest is for what delays a pass. A guess. */
const SHARE = 0.8
/** A pass that is late is not read faster than in this share of the period. A guess: 100 minutes of a week. */
const HASTE = 0.01
/** It rests when it owes so much time, and not between any two small columns. A guess. */
const REST_MS = 1_000
/** How often it is noted how far a pass is: so much is read again after a restart. A guess. */
const NOTE_MS = 60_000

/** After a pass was broken off by the store's index or a manifest: a disk may be full for a while. A guess. */
const BROKEN_OFF_MS = 60_000

/** How far a pass is; kept on disk. Wall clock. */
export interface ScrubMark {
  readonly startedMs: number
  /** The last column that was checked; absent: none yet. */
  readonly after?: ColumnPlace | undefined
  readonly bytes: number
  readonly columns: number
  /** Columns and manifests. */
  readonly damaged: number
}

export interface ScrubStatus {
  /** Of the pass under way. */
  readonly columns: number
  readonly damaged: number
  readonly startedMs: number
  /** When the last whole pass ended, and what it found; null: none has since this peer started. */
  readonly last: { readonly endedMs: number; readonly columns: number; readonly damaged: number } | null
}

export interface ScrubDeps {
  readonly store: Pick<ShardStore, 'eachColumn' | 'verifyColumn' | 'streams' | 'manifests' | 'getManifest'>
  /** Undefined: there is no mark, or none that can be read. */
  readMark(): Promise<ScrubMark | undefined>
  writeMark(mark: ScrubMark): Promise<void>
  damaged(stream: StreamId, column: number): void
  /** Gets a damaged manifest from others, so that it is here again. */
  refetch(hash: string): Promise<unknown>
  readonly clock: Clock
  wallMs(): number
  readonly log: Log
  readonly report: Report
  /** 0: never. */
  readonly periodMs: number
}

export class Scrub {
  readonly #deps: ScrubDeps
  #mark: ScrubMark
  #last: ScrubStatus['last'] = null
  #owedMs = 0
  #notedAtMs = 0
  #told: StreamId = ''
  #wake: () => void = () => {}
  #stopped = false

  constructor(deps: ScrubDeps) {
    this.#deps = deps
    this.#mark = this.#fresh()
  }

  start(): void {
    const { log, periodMs } = this.#deps
    if (periodMs === 0) return
    this.#run().catch((error: unknown) => {
      if (!this.#stopped)
        log.error({ error: messageOf(error) }, 'what is stored is not checked any more until a restart')
    })
  }

  stop(): void {
    this.#stopped = true
    this.#wake()
  }

  /** Null: it is turned off. */
  status(): ScrubStatus | null {
    if (this.#deps.periodMs === 0) return null
    const { columns, damaged, startedMs } = this.#mark
    return { columns, damaged, startedMs, last: this.#last }
  }

  #fresh(): ScrubMark {
    return { startedMs: this.#deps.wallMs(), bytes: 0, columns: 0, damaged: 0 }
  }

  async #run(): Promise<void> {
    const { readMark, periodMs, wallMs, clock } = this.#deps
    const mark = await readMark()
    // One of the future is of a clock that was wrong.
    if (mark !== undefined && mark.startedMs <= wallMs()) this.#mark = mark
    this.#notedAtMs = clock.now()
    while (!this.#stopped) {
      if (!(await this.#passed())) continue
      if (this.#stopped) return
      await this.#endPass()
      await this.#rest(Math.min(periodMs, Math.max(REST_MS, this.#dueInMs())))
      this.#mark = this.#fresh()
    }
  }

  /** False: the store could not be read on, and after a rest it may be tried again behind what was checked. */
  async #passed(): Promise<boolean> {
    try {
      await this.#pass()
      return true
    } catch (error) {
      if (this.#stopped) return false
      this.#deps.log.error(
        { error: messageOf(error) },
        'the check of what is stored was broken off; it goes on in a minute'
      )
      await this.#rest(BROKEN_OFF_MS)
      return false
    }
  }

  async #pass(): Promise<void> {
    const { store, clock } = this.#deps
    let totalBytes = await bytesOf(store)
    for await (const { stream, grid, column, bytes } of store.eachColumn(this.#mark.after)) {
      if (this.#stopped) return
      const state = await store.verifyColumn(stream, grid, column)
      const found = state === 'damaged'
      if (found) this.#tell(stream, grid, column)
      const { startedMs } = this.#mark
      this.#mark = {
        startedMs,
        after: { stream, grid, column },
        bytes: this.#mark.bytes + bytes,
        columns: this.#mark.columns + 1,
        damaged: this.#mark.damaged + (found ? 1 : 0)
      }
      this.#owedMs += (bytes * this.#leftMs()) / Math.max(bytes, totalBytes - this.#mark.bytes)
      if (this.#owedMs < REST_MS) continue
      await this.#rest(this.#owedMs)
      this.#owedMs = 0
      totalBytes = await bytesOf(store)
      if (clock.now() - this.#notedAtMs >= NOTE_MS) await this.#note()
    }
    await this.#manifests()
  }

  async #manifests(): Promise<void> {
    const { store, refetch, log } = this.#deps
    for (const hash of await store.manifests()) {
      if (this.#stopped) return
      // One that does not fit its name counts as missing.
      if ((await store.getManifest(hash)) !== undefined || !(await store.manifests()).includes(hash)) continue
      this.#mark = { ...this.#mark, damaged: this.#mark.damaged + 1 }
      log.error({ manifest: hash }, 'a stored manifest is damaged: another peer is asked for it')
      await refetch(hash).catch((error: unknown) =>
        log.error({ manifest: hash, error: messageOf(error) }, 'a damaged manifest could not be fetched again')
      )
    }
  }

  #tell(stream: StreamId, grid: number, column: number): void {
    const { damaged, log, report } = this.#deps
    log.error({ stream, grid, column }, 'a stored column is damaged: it is rebuilt from others')
    if (this.#told !== stream) report('scrub.damaged', { stream, grid, column }) // a bad disk would fill all of people's events
    this.#told = stream
    damaged(stream, column)
  }

  async #endPass(): Promise<void> {
    const { report, wallMs } = this.#deps
    const { columns, damaged, bytes } = this.#mark
    this.#last = { endedMs: wallMs(), columns, damaged }
    if (columns > 0) report('scrub.done', { columns, bytes, damaged })
    await this.#note()
  }

  async #note(): Promise<void> {
    const { writeMark, log, clock } = this.#deps
    this.#notedAtMs = clock.now()
    await writeMark(this.#mark).catch((error: unknown) =>
      log.warn({ error: messageOf(error) }, 'how far the check of what is stored is could not be noted')
    )
  }

  /** Until this pass should be done. */
  #dueInMs(): number {
    const { wallMs, periodMs } = this.#deps
    return this.#mark.startedMs + SHARE * periodMs - wallMs()
  }

  #leftMs(): number {
    const { periodMs } = this.#deps
    return Math.min(SHARE * periodMs, Math.max(HASTE * periodMs, this.#dueInMs()))
  }

  async #rest(ms: number): Promise<void> {
    if (this.#stopped) return
    await new Promise<void>(resolve => {
      const cancel = this.#deps.clock.after(ms, resolve)
      this.#wake = () => {
        cancel()
        resolve()
      }
    })
  }
}

async function bytesOf(store: Pick<ShardStore, 'streams'>): Promise<number> {
  return (await store.streams()).reduce((sum, { bytes }) => sum + bytes, 0)
}
