/**
 * Rebuilds here the columns that this peer is the target of (`planning/repair.ts`), one grid after the other: reads what is
 * needed from others, and puts the column into its own store. Interrupted at any point it goes on where it was, because what
 * its store has already is not rebuilt again. Nobody else is asked to do anything.
 *
 * Reads for repairs are paced (`repair.megabytesPerSecond`), and wait while VMs are restored anywhere.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { RepairSettings } from '../../config/schema.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { ColumnRepair, RepairPlan } from '../planning/repair.ts'
import type { Clock, Log, ShardStore, StreamId, StreamManifest } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { Report } from './group-agent.ts'
import type { Holdings } from './holdings.ts'
import type { KeptStreams } from './kept-streams.ts'
import type { Redundancy } from './redundancy.ts'

/** After a group has a new generation its VMs are restored, and read the same disks and links. A guess. */
const QUIET_MS = 5_000
/** After so many checks all are asked again what they have: one may have found damage, and no room to repair it. A guess. */
const ANEW_CHECKS = 10

export interface RepairDeps {
  readonly self: PeerId
  readonly redundancy: Pick<Redundancy, 'look'>
  readonly kept: Pick<KeptStreams, 'manifest'>
  readonly holdings: Pick<Holdings, 'forget'>
  readonly store: Pick<ShardStore, 'putColumn' | 'verifyColumn'>
  /** A column of a grid anew, from others (`shards/rebuild.ts`). */
  rebuilding(manifest: StreamManifest): (grid: number, column: number) => Promise<Uint8Array>
  readonly directory: Pick<GroupDirectory, 'onRecord' | 'onForgotten'>
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  readonly settings: RepairSettings
}

export interface RepairStats {
  /** Since the peer started. */
  readonly columns: number
  readonly bytes: number
  /** Tries that came to nothing. */
  readonly failures: number
  /** Columns that this peer is to rebuild and has not yet. */
  readonly due: number
  /** Columns that were found damaged in this peer's store, and are neither whole again nor needed no more. */
  readonly damaged: number
}

interface Due extends Pick<ColumnRepair, 'stream' | 'column'> {
  /** Others have it whole: grids that are missing here are not needed. */
  readonly damagedOnly?: true
}

export class RepairAgent {
  readonly #deps: RepairDeps
  /** Of each group that there is, as far as we have heard. */
  readonly #generations = new Map<string, number>()
  /** Columns that this peer's own store has found damaged, by name: there is nothing to wait for. */
  readonly #hurt = new Map<string, Due>()
  /** Columns whose last try came to nothing: others go first, or these would keep them for ever. */
  readonly #failed = new Set<string>()
  /** What was planned when it was last looked. */
  #planned: ReadonlySet<string> = new Set()
  #running = false
  #wanted: 'no' | 'soon' | 'urgent' = 'no'
  #cancelTimer: () => void = () => {}
  #wake: () => void = () => {}
  #stopped = false
  #freeAtMs = 0
  #askedAllAtMs: number
  #stats = { columns: 0, bytes: 0, failures: 0, due: 0 }

  constructor(deps: RepairDeps) {
    this.#deps = deps
    this.#askedAllAtMs = deps.clock.now()
    deps.directory.onRecord(({ id, generation }) => {
      const before = this.#generations.get(id)
      this.#generations.set(id, generation)
      if (before !== undefined && before < generation) this.#pause(QUIET_MS)
    })
    deps.directory.onForgotten(id => this.#generations.delete(id))
  }

  start(): void {
    this.#schedule()
  }

  stop(): void {
    this.#stopped = true
    this.#cancelTimer()
    this.#wake()
  }

  stats(): RepairStats {
    return { ...this.#stats, damaged: this.#hurt.size }
  }

  /** Somebody asks for it: members that are dead now count as gone. */
  now(): void {
    this.#want('urgent')
  }

  /** A column of this peer's own store was found damaged, or not to be what the manifest says. */
  damaged(stream: StreamId, column: number): void {
    const { holdings, self } = this.#deps
    const name = nameOf({ stream, column })
    holdings.forget(self, stream)
    // A rebuild that fails reads this very column, and has it found damaged again: it is tried again when it is time.
    if (this.#hurt.has(name)) return
    this.#hurt.set(name, { stream, column })
    this.#want('soon')
  }

  #schedule(): void {
    this.#cancelTimer()
    if (!this.#stopped)
      this.#cancelTimer = this.#deps.clock.after(this.#deps.settings.checkEveryMs, () => this.#want('soon'))
  }

  #want(how: 'soon' | 'urgent'): void {
    if (this.#wanted !== 'urgent') this.#wanted = how
    if (this.#running || this.#stopped) return
    this.#running = true
    this.#run()
      .catch((error: unknown) => {
        if (!this.#stopped)
          this.#deps.log.warn({ error: messageOf(error) }, 'what is to be repaired cannot be told now')
      })
      .finally(() => {
        this.#running = false
        this.#schedule()
      })
  }

  async #run(): Promise<void> {
    const { report } = this.#deps
    while (this.#wanted !== 'no' && !this.#stopped) {
      const urgent = this.#wanted === 'urgent'
      this.#wanted = 'no'
      const before = { ...this.#stats }
      await this.#round(urgent)
      const columns = this.#stats.columns - before.columns
      if (columns === 0) continue
      report('repair.done', {
        columns,
        bytes: this.#stats.bytes - before.bytes,
        failures: this.#stats.failures - before.failures
      })
    }
  }

  /** Looks once, and rebuilds what is due here until it is done or it is time to look again. */
  async #round(urgent: boolean): Promise<void> {
    const { redundancy, clock, settings } = this.#deps
    const anew = urgent || clock.now() - this.#askedAllAtMs >= ANEW_CHECKS * settings.checkEveryMs
    if (anew) this.#askedAllAtMs = clock.now()
    const before = [...this.#hurt.keys(), ...this.#failed]
    const { kept, plan } = await redundancy.look({ urgent, anew })
    this.#forgetDone(before, kept.streams, plan)
    const own: Due[] = plan.repairs.filter(repair => this.#isOwn(repair))
    own.push(...this.#copies(before, plan))
    const due = own.filter(repair => urgent || this.#isRipe(repair, kept.streams))
    this.#planned = new Set(own.map(nameOf))
    this.#stats.due = own.length
    due.sort((a, b) => Number(this.#failed.has(nameOf(a))) - Number(this.#failed.has(nameOf(b))))
    const lookAgainMs = clock.now() + settings.checkEveryMs
    for (const repair of due) {
      const stream = kept.streams.find(each => each.stream === repair.stream)
      if (this.#stopped || stream === undefined) return
      if (clock.now() >= lookAgainMs) {
        this.#want(urgent ? 'urgent' : 'soon')
        return
      }
      if (!(await this.#rebuild(repair, stream))) return
    }
  }

  /**
   * What this peer's store has spoiled it tries to rebuild whoever is the target: all others think that it has it. Where that came
   * to nothing it is left to the target, who hears of it when it asks all again.
   */
  #isOwn(repair: ColumnRepair): boolean {
    const name = nameOf(repair)
    return (
      repair.target === this.#deps.self || (repair.why === 'lost' && this.#hurt.has(name) && !this.#failed.has(name))
    )
  }

  /** Of `names`, what is needed no more, or there again; which what is damaged here and whole elsewhere is not. */
  #forgetDone(names: readonly string[], kept: readonly Pick<Due, 'stream'>[], plan: RepairPlan): void {
    const open = openIn(plan)
    const streams = new Set(kept.map(({ stream }) => stream))
    for (const name of names) {
      const hurt = this.#hurt.get(name)
      if (open.has(name) || (hurt !== undefined && streams.has(hurt.stream))) continue
      this.#hurt.delete(name)
      this.#failed.delete(name)
    }
  }

  /**
   * Of `names`, what is damaged here and has no need of a repair, since others have it whole. It is mended all the same, or it would
   * be found again and again for as long as it is kept, and after a restart count as whole until then.
   */
  #copies(names: readonly string[], plan: RepairPlan): Due[] {
    const open = openIn(plan)
    return names.flatMap(name => {
      const hurt = open.has(name) ? undefined : this.#hurt.get(name)
      return hurt === undefined ? [] : [{ ...hurt, damagedOnly: true }]
    })
  }

  /** A holder that is up may still be getting its columns: they are rebuilt when they are missing twice. */
  #isRipe(repair: Due, streams: readonly { stream: StreamId; holders: readonly PeerId[] }[]): boolean {
    const name = nameOf(repair)
    const planned = streams.find(({ stream }) => stream === repair.stream)?.holders[repair.column]
    return planned !== this.#deps.self || this.#planned.has(name) || this.#hurt.has(name)
  }

  /** False: there is no room for any more. */
  async #rebuild(repair: Due, stream: Parameters<KeptStreams['manifest']>[0]): Promise<boolean> {
    const { self, kept, holdings, log } = this.#deps
    try {
      await this.#rebuildGrids(repair, await kept.manifest(stream))
      this.#failed.delete(nameOf(repair))
      this.#stats.columns++
      this.#stats.due--
      this.#hurt.delete(nameOf(repair))
      return true
    } catch (error) {
      if (this.#stopped) return false
      this.#failed.add(nameOf(repair))
      this.#stats.failures++
      log.warn({ ...repair, error: messageOf(error) }, 'a column could not be rebuilt; it is tried again')
      return !hasCode(error, 'STORE_FULL')
    } finally {
      holdings.forget(self, repair.stream)
    }
  }

  /** A grid that cannot be rebuilt keeps back no other: the first error is thrown when all were tried. */
  async #rebuildGrids({ column, damagedOnly }: Due, manifest: StreamManifest): Promise<void> {
    const { store, rebuilding } = this.#deps
    const rebuild = rebuilding(manifest)
    let failure: Error | undefined
    const { k, m } = manifest
    for (const [grid, { symbolBytes }] of manifest.grids.entries()) {
      await this.#turn()
      const gridBytes = (k + m) * symbolBytes // of one column
      const state = await store.verifyColumn(manifest.stream, grid, column)
      if (state !== 'missing') this.#count(gridBytes)
      if (state === 'whole' || (state === 'missing' && damagedOnly)) continue
      await this.#turn()
      try {
        const bytes = await rebuild(grid, column)
        await store.putColumn(manifest.stream, grid, column, bytes)
        this.#stats.bytes += bytes.length
      } catch (error) {
        if (!(error instanceof Error) || hasCode(error, 'STORE_FULL')) throw error
        failure ??= error
      } finally {
        this.#count(k * gridBytes) // what fails has read, too
      }
    }
    if (failure !== undefined) throw failure
  }

  /** So much was read: nothing more is until it would have been at the highest rate. */
  #count(bytes: number): void {
    const { clock, settings } = this.#deps
    this.#freeAtMs = Math.max(this.#freeAtMs, clock.now()) + bytes / (settings.megabytesPerSecond * 1_000)
  }

  #pause(ms: number): void {
    this.#freeAtMs = Math.max(this.#freeAtMs, this.#deps.clock.now() + ms)
  }

  /** Resolves when something may be read for a repair again. */
  async #turn(): Promise<void> {
    const { clock } = this.#deps
    while (!this.#stopped && clock.now() < this.#freeAtMs) {
      await new Promise<void>(resolve => {
        const cancel = clock.after(Math.max(0, this.#freeAtMs - clock.now()), resolve)
        this.#wake = () => {
          cancel()
          resolve()
        }
      })
    }
    if (this.#stopped) throw new DiapauseError('REPAIR_STOPPED', 'this peer stops')
  }
}

/** Those that are planned, and those that are needed and beyond repair now. */
function openIn({ repairs, impossible }: RepairPlan): Set<string> {
  const beyond = impossible.flatMap(({ stream, columns }) => columns.map(column => ({ stream, column })))
  return new Set([...repairs, ...beyond].map(nameOf))
}

const nameOf = ({ stream, column }: Due): string => `${stream} ${column}`
