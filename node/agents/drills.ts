/**
 * Drills on this peer, one at a time: whether there is memory for one, its epoch held while it is read (`epoch-readers.ts`), what
 * became of it told in the group's record, as an event and in the log.
 */
import type { PeerId } from '../../protocols/core.ts'
import { endDrill } from '../../protocols/epoch/drills.ts'
import type { DrillOutcome, GroupRecord, KeptEpoch } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import { keptEpoch } from '../planning/retention-policy.ts'
import type { DrillReport, DrillWish, Log } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import { DrillRun, type DrillRunDeps, interrupted } from './drill-run.ts'
import { EpochReaders, type EpochReadersDeps } from './epoch-readers.ts'

export interface DrillsDeps extends DrillRunDeps {
  /** Of this run of the peer: what an earlier one held is over. */
  readonly run: string
  readonly directory: Pick<GroupDirectory, 'onRecord' | 'onForgotten' | 'all' | 'refresh' | 'change'>
  readonly keepers: EpochReadersDeps['keepers']
  readonly membership: { record(): ClusterRecord }
  readonly nameOf: (peer: PeerId) => string
  readonly log: Log
  wallMs(): number
  /** While there are any, a drill on request leaves no word in the group's record. */
  olderMembers(): readonly string[]
  /** `drills.memoryMiB`. */
  readonly memoryMiB: number | undefined
}

export interface DrillOptions {
  readonly signal: AbortSignal
  /** How far it is, for people. */
  tell(text: string): void
  /** It is one of the group's schedule: `DrillSchedule.runs`. */
  readonly scheduled?: string | undefined
}

const MIB = 1_048_576
/** What a VM takes beside its memory: QEMU with the code that it has translated, and the image worker's thread. A guess. */
const BESIDE_MIB = 160

export class Drills {
  readonly #deps: DrillsDeps
  readonly #readers: EpochReaders
  readonly #stop = new AbortController()
  /** The group that a drill is under way of. */
  #busy: string | undefined
  /** Ends it for what comes first. */
  #precedence = new AbortController()
  /** Of each group that there is, as far as we have heard. */
  readonly #generations = new Map<string, number>()
  #done: Promise<unknown> = Promise.resolve()

  constructor(deps: DrillsDeps) {
    this.#deps = deps
    this.#readers = new EpochReaders({ ...deps, kind: 'drill' })
    for (const { id, generation } of deps.directory.all()) this.#generations.set(id, generation)
    deps.directory.onRecord(record => this.#giveWay(record))
    deps.directory.onForgotten(id => this.#generations.delete(id))
  }

  /** Resolves when nothing is left of one that was under way. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#done
  }

  /** Resolves when the drill that is under way, if any, has ended. */
  async settled(): Promise<void> {
    await this.#done
  }

  /**
   * A drill that fails resolves, too, and says so. What cannot be done at all rejects: GROUP_UNKNOWN, EPOCH_NOT_KEPT, EPOCHS_READ,
   * DRILL_BUSY, DRILL_MEMORY, DRILL_FOLDER, REGISTER_UNAVAILABLE; DRILL_INTERRUPTED when `signal` aborts;
   * DRILL_GAVE_WAY.
   */
  async run(wish: DrillWish, { signal, ...options }: DrillOptions): Promise<DrillReport> {
    if (this.#busy !== undefined) {
      const message = `This peer is at a drill of group "${this.#busy}" already: try again later, or ask another peer.`
      throw new DiapauseError('DRILL_BUSY', message)
    }
    if (this.#stop.signal.aborted) throw interrupted(wish.group)
    this.#busy = wish.group
    this.#precedence = new AbortController()
    const any = AbortSignal.any([signal, this.#stop.signal, this.#precedence.signal])
    const drill = this.#drill(wish, { ...options, signal: any }).finally(() => {
      this.#busy = undefined
    })
    this.#done = drill.catch(() => {})
    return await drill
  }

  async #drill(wish: DrillWish, { signal, tell, scheduled }: DrillOptions): Promise<DrillReport> {
    const { directory, self, nameOf, report } = this.#deps
    const { group } = wish
    const seen = await directory.refresh(group)
    if (seen === null || seen.removed) throw unknown(group)
    const { epoch } = keptEpoch(seen, wish.epoch ?? seen.committed?.epoch)
    this.#requireMemory(seen)
    const { record, release } = await this.#readers.hold(group, epoch)
    try {
      const target = keptEpoch(record ?? seen, epoch)
      if (release === undefined) throw busy(group)
      report('drill.begun', { group, epoch })
      const result = await this.#unless(signal, seen, target, wish, tell)
      const told = { ...result, peer: nameOf(self) }
      await this.#tellOutcome(told, scheduled)
      return told
    } finally {
      await release?.()
    }
  }

  async #unless(
    signal: AbortSignal,
    record: GroupRecord,
    epoch: KeptEpoch,
    wish: DrillWish,
    tell: (text: string) => void
  ) {
    try {
      return await new DrillRun(this.#deps, wish, record, epoch, tell).run(signal)
    } catch (error) {
      if (signal.aborted) {
        this.#deps.report('drill.interrupted', { group: wish.group, epoch: epoch.epoch, reason: messageOf(error) })
      }
      throw error
    }
  }

  /** Tells everybody what became of a drill. Of one that was not run for lack of something, who was to run it says so. */
  async tellOutcome(group: string, outcome: DrillOutcome, scheduled: string | undefined): Promise<void> {
    const { directory, report, log } = this.#deps
    const { epoch, failed, tookMs } = outcome
    if (failed === undefined) report('drill.passed', { group, epoch, tookMs })
    else {
      report('drill.failed', { group, epoch, tookMs, reason: failed })
      log.error({ group, epoch, reason: failed }, 'a drill has failed: this group might not come back from that epoch')
    }
    const older = scheduled === undefined ? this.#deps.olderMembers() : []
    if (older.length > 0)
      return log.info({ group, older }, 'what became of a drill is not noted: older members know no drills')
    try {
      await directory.change(group, endDrill(outcome, scheduled))
    } catch (error) {
      log.warn({ group, error: messageOf(error) }, 'what became of a drill cannot be written down')
    }
  }

  async #tellOutcome({ group, epoch, tookMs, failed }: DrillReport, scheduled: string | undefined): Promise<void> {
    const { self, wallMs } = this.#deps
    const outcome = { epoch, by: self, atMs: Math.round(wallMs()), tookMs, ...(failed !== undefined && { failed }) }
    await this.tellOutcome(group, outcome, scheduled)
  }

  /** VMs that go back to an epoch on this host need its processors, disks and network more than a drill does. */
  #giveWay({ id, generation, owners, removed, resting }: GroupRecord): void {
    const before = this.#generations.get(id)
    this.#generations.set(id, generation)
    if (before === undefined || generation <= before || removed || resting) return
    if (!Object.values(owners).includes(this.#deps.self)) return
    const message = `group "${id}" is being restored on this host, which comes first: try the drill again later`
    this.#precedence.abort(new DiapauseError('DRILL_GAVE_WAY', message))
  }

  #requireMemory({ id, vms }: GroupRecord): void {
    const { host, memoryMiB } = this.#deps
    const neededMiB = vms.reduce((sum, spec) => sum + spec.memoryMiB + BESIDE_MIB, 0)
    const availableMiB = Math.floor(host.availableBytes() / MIB)
    const mayMiB = Math.min(availableMiB, memoryMiB ?? Math.floor(availableMiB / 2))
    if (neededMiB <= mayMiB) return
    const limit =
      memoryMiB === undefined
        ? `half of what is available`
        : `drills.memoryMiB is ${memoryMiB}, ${availableMiB} available`
    throw new DiapauseError(
      'DRILL_MEMORY',
      `A drill of group "${id}" needs ${neededMiB} MiB of memory and may have ${mayMiB} here (${limit}): free some, set drills.memoryMiB, or ask another peer.`,
      { details: { neededMiB, mayMiB, availableMiB } }
    )
  }
}

const unknown = (group: string) => new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)

const busy = (group: string) =>
  new DiapauseError('EPOCHS_READ', `As many epochs of group "${group}" are read as can be at a time: try again later.`)
