/**
 * What would become of this host's VMs if it died now, looked at all the time, with an alarm when one would miss its objective
 * (`VmSpec.objective`). Each VM is looked at by who runs it: so one peer raises the alarm, and who would be asked for it is
 * there. How long a restore takes is asked of the others (they remember earlier ones), so that is asked for seldom.
 */
import type { PeerId } from '../../protocols/core.ts'
import { committedMsOf } from '../../protocols/epoch/history.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import type { Obstacle, OutlookParts, VmOutlook } from '../../protocols/overview/outlook.ts'
import { messageOf } from '../errors.ts'
import type { StoredImage } from '../planning/obstacles.ts'
import { outlookOf } from '../planning/outlook.ts'
import type { Clock, EpochHistory, Log } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { Report } from './group-agent.ts'

/** A guess: a fifth of the shortest loss that anybody would set at the default interval of epochs. */
const LOOK_EVERY_MS = 2_000
/** Missed in so many looks running before it is told, and kept in as many: an epoch that takes a little longer is no alarm. */
const LOOKS = 2
/**
 * How long a restore takes is asked for so long after a group has another generation, by when its VMs run: in all who answer
 * remember. Then now and then, since who answers changes. At once only by a peer that has just started: later, that would be in
 * the midst of a restore, and what was known before it is good enough. Guesses.
 */
const ASK_AFTER_MS = [0, 8_000, 60_000]
const ASK_EVERY_MS = 600_000
/**
 * What the committed images lean on is read so often: who of those who store it lives is looked at each time. A guess: an epoch adds a
 * stream that those hold who live then, which is no worse than what the images lean on besides.
 */
const READ_EVERY_MS = 10_000
/** A peer counts as just started for so long: by then it has heard of its groups. A guess. */
const FIRST_MS = 6_000

export interface ObjectivesDeps {
  readonly self: PeerId
  readonly directory: Pick<GroupDirectory, 'all'>
  readonly history: Pick<EpochHistory, 'of'>
  readonly clock: Clock
  readonly wallMs: () => number
  readonly log: Log
  readonly report: Report
  /** Parts of a failover as they were measured, by VM, if this host died now. */
  readonly measured: (group: string) => Promise<Readonly<Record<string, OutlookParts>>>
  readonly bySettings: { readonly detectMs: number; readonly decideMs: number }
  /** What a group would go back to, as far as it is known. */
  readonly imagesOf: (record: GroupRecord) => Promise<readonly StoredImage[]>
  /** What would keep it from that if this host died now. */
  readonly obstacle: (record: GroupRecord, images: readonly StoredImage[]) => Obstacle | undefined
}

interface Known {
  readonly generation: number
  /** What was committed when it was looked at last; 0: nothing. */
  epoch: number
  /** When this peer saw that, or the generation, first, by its wall clock: who dies before the next epoch loses what is since. */
  seenMs: number
  readonly sinceMs: number
  /** How often it was asked. */
  asks: number
  parts: Readonly<Record<string, OutlookParts>>
  images: readonly StoredImage[]
  /** When they were read last. */
  readMs: number
  outlooks: Readonly<Record<string, VmOutlook>>
}

const dueMs = (asks: number): number =>
  ASK_AFTER_MS[asks] ?? (ASK_AFTER_MS.at(-1) ?? 0) + (asks - ASK_AFTER_MS.length + 1) * ASK_EVERY_MS

const NOTHING: OutlookParts = { detectMs: null, decideMs: null, runsMs: null }

export class Objectives {
  readonly #deps: ObjectivesDeps
  readonly #groups = new Map<string, Known>()
  /** Alarms that were raised, and looks that say otherwise than what was told last: `GROUP VM OBJECTIVE`. */
  readonly #alarms = new Set<string>()
  readonly #looks = new Map<string, number>()
  #startedMs = 0
  #cancel: () => void = () => {}
  #stopped = false

  constructor(deps: ObjectivesDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#startedMs = this.#deps.clock.now()
    this.#look()
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  /** Of the VMs of a group that this peer owns. */
  outlooksOf(group: string): Readonly<Record<string, VmOutlook>> {
    return this.#groups.get(group)?.outlooks ?? {}
  }

  #look(): void {
    if (this.#stopped) return
    const { directory, self, clock } = this.#deps
    const records = directory.all().filter(({ removed, resting }) => !removed && !resting)
    for (const group of this.#groups.keys()) if (!records.some(({ id }) => id === group)) this.#forget(group)
    for (const record of records) {
      const own = record.vms.filter(({ id }) => record.owners[id] === self)
      if (own.length > 0) this.#lookAt(record, own)
      else this.#forget(record.id)
    }
    this.#cancel = clock.after(LOOK_EVERY_MS, () => this.#look())
  }

  #lookAt(record: GroupRecord, own: readonly VmSpec[]): void {
    const { clock, wallMs, bySettings } = this.#deps
    const nowMs = wallMs()
    const epoch = record.committed?.epoch ?? 0
    let known = this.#groups.get(record.id)
    if (known?.generation !== record.generation) {
      known = {
        generation: record.generation,
        epoch,
        seenMs: nowMs,
        sinceMs: clock.now(),
        asks: known === undefined && clock.now() - this.#startedMs < FIRST_MS ? 0 : 1,
        parts: known?.parts ?? {},
        images: [],
        readMs: Number.NEGATIVE_INFINITY,
        outlooks: {}
      }
      this.#groups.set(record.id, known)
    }
    if (known.epoch !== epoch) {
      known.epoch = epoch
      known.seenMs = nowMs
    }
    if (clock.now() - known.sinceMs >= dueMs(known.asks)) void this.#ask(record.id, known)
    if (clock.now() - known.readMs >= READ_EVERY_MS) void this.#read(record, known)
    const { parts, seenMs, images } = known
    const sinceMs = this.#committedMs(record) ?? seenMs
    const now = { nowMs, sinceMs, obstacle: this.#deps.obstacle(record, images) }
    const each = own.map(({ id, objective }) => {
      return [id, outlookOf(objective, parts[id] ?? NOTHING, bySettings, now)] as const
    })
    known.outlooks = Object.fromEntries(each)
    for (const spec of own) this.#judge(record.id, spec, known.outlooks[spec.id])
  }

  /** Undefined: nobody says, or the VMs went on from it only when their generation began, maybe after a long rest. */
  #committedMs({ id, generation, committed }: GroupRecord): number | undefined {
    if (committed === null || committed.generation < generation) return undefined
    return committed.wallMs ?? committedMsOf(this.#deps.history.of(id), committed.epoch)
  }

  async #ask(group: string, known: Known): Promise<void> {
    known.asks++
    try {
      known.parts = await this.#deps.measured(group)
    } catch (error) {
      this.#deps.log.debug({ group, error: messageOf(error) }, 'it is not known how long restores took')
    }
  }

  async #read(record: GroupRecord, known: Known): Promise<void> {
    const { clock, imagesOf, log } = this.#deps
    known.readMs = clock.now()
    try {
      known.images = await imagesOf(record)
    } catch (error) {
      log.debug({ group: record.id, error: messageOf(error) }, 'it is not known what its images lean on')
    }
  }

  #judge(group: string, { id: vm, objective }: VmSpec, outlook: VmOutlook | undefined): void {
    for (const name of ['backMs', 'lossMs'] as const) {
      const key = `${group} ${vm} ${name}`
      const misses = outlook?.missed.includes(name) === true
      const told = this.#alarms.has(key)
      const looks = misses === told ? 0 : (this.#looks.get(key) ?? 0) + 1
      if (looks === 0) this.#looks.delete(key)
      else this.#looks.set(key, looks)
      if (looks < LOOKS) continue
      this.#looks.delete(key)
      if (misses) this.#alarms.add(key)
      else this.#alarms.delete(key)
      const kind = misses ? 'objective.missed' : 'objective.kept'
      this.#deps.report(kind, { group, vm, objective: name, atMostMs: objective?.[name], wouldBeMs: outlook?.[name] })
    }
  }

  #forget(group: string): void {
    this.#groups.delete(group)
    for (const keys of [this.#alarms, this.#looks]) {
      for (const key of keys.keys()) if (key.startsWith(`${group} `)) keys.delete(key)
    }
  }
}
