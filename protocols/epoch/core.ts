/**
 * One group's epochs as one peer takes part in them: Mattern's snapshot (Mattern 1989, section "Snapshots", colours
 * instead of markers; Lai and Yang 1987) without a coordinator.
 *
 * An epoch is opened, committed and aborted only in the group's register. All else here are hints that make it quick:
 * the record as announced is the marker; a frame of a newer colour is a marker too, and may come first. Each owner cuts
 * its VMs, tells how many frames each had sent to whom, and reports when an image is durable. Every peer collects the
 * reports, so any peer can commit; the proposer does it at once and the others, by rank, a little later if it has not.
 * Past the deadline any peer aborts. There is no third outcome.
 *
 * Most of a VM's RAM is copied before its cut, while it runs. So that the cuts of a group are milliseconds apart, and none of
 * them shares its host's processors with another one's copying, the owners tell when their VMs are prepared and cut when
 * all are. From the first cut to the last the group's frames wait, so nobody is cut while another one is being copied:
 * the prepared wait as long as its owner says that it gets on, and where it is silent the epoch fails, which costs nothing.
 * Safety does not depend on it: a frame of the new colour cuts at once. Who took longer for its past cuts begins first
 * (`cut-profile.ts`).
 *
 * The core keeps what it needs of one generation; a record with a newer generation wipes it (the restore agent then
 * starts the VMs afresh).
 */
import type { Core, PeerId } from '../core.ts'
import type { GroupRecord } from '../group.ts'
import { CutProfile, type CutTimes } from './cut-profile.ts'
import type { EpochMessage, ReportMessage } from './messages.ts'
import { fateOf, isDecided } from './record.ts'
import { heardMs, newTracker, type Tracker, imagesOf, whyAborted } from './tracker.ts'

export type EpochInput =
  /** A newer record of this group was learned, from a change of our own or from another peer. */
  | { kind: 'record'; record: GroupRecord }
  | { kind: 'message'; from: PeerId; message: ReportMessage }
  /** The switch holds a frame of colour `epoch` for our older VM. */
  | { kind: 'marker'; vm: string; epoch: number }
  /** Our VM runs, has this colour, and can be cut. */
  | { kind: 'vm-ready'; vm: string; colour: number }
  /** Our VM has ended or moved away. */
  | { kind: 'vm-gone'; vm: string }
  /** Our VM is not prepared yet, and its copying gets on: said every `PROGRESS_MS`. */
  | { kind: 'vm-copying'; vm: string; epoch: number }
  /** Our VM has copied what can be copied while it runs. */
  | { kind: 'vm-prepared'; vm: string; epoch: number }
  | ({ kind: 'cut-done'; vm: string; epoch: number; counts: Record<string, number>; atWallMs: number } & CutTimes)
  | { kind: 'image-durable'; vm: string; epoch: number; report: Extract<ReportMessage, { kind: 'durable' }> }
  | { kind: 'vm-failed'; vm: string; epoch: number; reason: string }
  | { kind: 'timer' }

export type EpochEffect =
  /** Begin with this VM of ours: copy while it runs, say 'vm-prepared', wait for 'cut'. */
  | { kind: 'prepare'; vm: string; epoch: number }
  /**
   * Cut this VM of ours now; it has been told to prepare before. `hurry`, which may come later than the word to cut: frames
   * of VMs that were cut wait for it, so what it has not copied by now is left for its pause.
   */
  | { kind: 'cut'; vm: string; epoch: number; hurry: boolean }
  /** Sender `sender` had sent `counts` before its cut: our VMs' recordings end accordingly. */
  | { kind: 'expect'; epoch: number; sender: string; counts: Record<string, number> }
  | { kind: 'broadcast'; message: EpochMessage }
  /** Compare-and-set the group's register; what comes of it returns as a 'record' input. */
  | { kind: 'commit'; generation: number; epoch: number; images: Record<string, string> }
  | { kind: 'abort'; generation: number; epoch: number; reason: string }
  /**
   * Truth has spoken: keep what was captured, or drop it (VMs that were not cut take the colour without). To be reported
   * once: `reason` undefined where it was. `skewMs`: between the first cut and the last by the wall clocks of their hosts,
   * so where hosts differ it has the difference of their clocks in it.
   */
  | { kind: 'committed'; epoch: number; commitMs: number; skewMs: number | undefined }
  | { kind: 'voided'; epoch: number; reason: string | undefined }
  | { kind: 'opened'; epoch: number }
  /** Read the register: what became of an epoch must be known before the next one is cut. */
  | { kind: 'refresh' }
  | { kind: 'timer'; atMs: number }

/** How much later than the proposer a peer of rank r acts in its stead: (r + 1) × this. A guess: two rounds of a busy cluster. */
export const STAND_IN_MS = 300

/**
 * How long a VM that is prepared waits for one of which nothing is heard. A guess: longer than a host is busy with other
 * things, shorter than a deadline.
 */
export const PREPARED_PATIENCE_MS = 5_000

/** Owners say this often that their VMs' copying gets on. A guess: some of it may be lost, and copying it costs next to nothing. */
export const PROGRESS_MS = PREPARED_PATIENCE_MS / 5

/**
 * A VM begins to prepare at most this part of its epoch's deadline later than the slowest, and of that patience. Guesses:
 * what was wrongly planned must not cost the epoch.
 */
const DELAY_OF_DEADLINE = 1 / 4
const DELAY_OF_PATIENCE = 1 / 2

/** Reports of epochs further ahead than this are not kept: each peer would have missed that many records. A guess. */
const MAX_AHEAD = 8

export class EpochCore implements Core<EpochInput, EpochEffect> {
  readonly #self: PeerId
  readonly #members: () => readonly PeerId[]
  #record: GroupRecord | undefined
  /** VM → the newest colour of a frame for it, where the record is to tell first what became of an older epoch. Each is told once. */
  readonly #unanswered = new Map<string, number>()
  /** Epochs that are not decided as far as we know, by number: usually one, two where a record is slower than a frame. */
  readonly #trackers = new Map<number, Tracker>()
  /** Our VMs that can be cut: VM → colour. */
  readonly #ready = new Map<string, number>()
  /** Our VMs that are being prepared and cut: VM → epoch. */
  readonly #cutting = new Map<string, number>()
  /** Those of them that have been told to cut: VM → whether in a hurry. */
  readonly #told = new Map<string, boolean>()
  readonly #profile = new CutProfile()
  /** The newest epoch whose end was reported. */
  #reported = 0

  /** `members`: as they are when it is called. */
  constructor(options: { self: PeerId; members: () => readonly PeerId[] }) {
    this.#self = options.self
    this.#members = options.members
  }

  /** Place among the members in sorted order: who stands in first for a proposer that is gone. */
  get #rank(): number {
    return Math.max(0, [...this.#members()].sort().indexOf(this.#self))
  }

  get record(): GroupRecord | undefined {
    return this.#record
  }

  step(input: EpochInput, nowMs: number): EpochEffect[] {
    switch (input.kind) {
      case 'record':
        return this.#onRecord(input.record, nowMs)
      case 'message':
        return this.#onReport(input.from, input.message, nowMs)
      case 'marker':
        return this.#onMarker(input.vm, input.epoch, nowMs)
      case 'vm-ready':
        this.#forgetCut(input.vm)
        this.#ready.set(input.vm, input.colour)
        return this.#prepareWhatIsDue(nowMs)
      case 'vm-copying':
        return this.#onOwnProgress('copying', input, nowMs)
      case 'vm-prepared':
        return this.#onOwnProgress('prepared', input, nowMs)
      case 'vm-gone':
        this.#ready.delete(input.vm)
        this.#unanswered.delete(input.vm)
        this.#forgetCut(input.vm)
        return []
      case 'cut-done':
        return this.#onOwnCut(input, nowMs)
      case 'image-durable':
        return [{ kind: 'broadcast', message: input.report }, ...this.#onReport(this.#self, input.report, nowMs)]
      case 'vm-failed':
        return this.#onOwnFailure(input, nowMs)
      case 'timer':
        return this.#goOn(nowMs)
    }
  }

  #onRecord(record: GroupRecord, nowMs: number): EpochEffect[] {
    const before = this.#record
    if (before !== undefined && record.version <= before.version) return []
    this.#record = record
    const effects = this.#settle(record, record.generation > (before?.generation ?? record.generation), nowMs)
    if (record.open !== null && record.open.epoch !== before?.open?.epoch) {
      this.#track(record.open.epoch, nowMs)
      effects.push({ kind: 'opened', epoch: record.open.epoch }, ...this.#excuse(record, nowMs))
    }
    const unanswered = [...this.#unanswered]
    this.#unanswered.clear()
    for (const [vm, epoch] of unanswered) effects.push(...this.#onMarker(vm, epoch, nowMs))
    return [...effects, ...this.#goOn(nowMs)]
  }

  /** Whatever is due by now. */
  #goOn(nowMs: number): EpochEffect[] {
    return [...this.#prepareWhatIsDue(nowMs), ...this.#cutWhatIsPrepared(nowMs), ...this.#decide(nowMs)]
  }

  /** Ends every epoch that the record decides, the oldest first; all of them where the group was taken over. */
  #settle(record: GroupRecord, takenOver: boolean, nowMs: number): EpochEffect[] {
    if (takenOver) {
      this.#ready.clear()
      this.#cutting.clear()
      this.#told.clear()
      this.#profile.forget()
    }
    const effects: EpochEffect[] = []
    for (const tracked of [...this.#trackers.values()].sort((a, b) => a.epoch - b.epoch)) {
      const fate = fateOf(record, tracked.epoch)
      if (!takenOver && !isDecided(record, tracked.epoch)) continue
      this.#trackers.delete(tracked.epoch)
      // Two commits were missed: a peer with a VM in them has cut it to both, and knew then. Nothing here waits for it.
      if (fate === 'decided') continue
      this.#reported = tracked.epoch
      if (fate === 'committed') {
        const times = [...tracked.cutAtWallMs.values()]
        const skewMs = times.length === record.vms.length ? Math.max(...times) - Math.min(...times) : undefined
        effects.push({ kind: 'committed', epoch: tracked.epoch, commitMs: nowMs - tracked.sinceMs, skewMs })
        continue
      }
      for (const [vm, colour] of this.#ready) if (colour < tracked.epoch) this.#ready.set(vm, tracked.epoch)
      const reason = takenOver ? 'the group was taken over' : (tracked.failed ?? 'its deadline passed')
      effects.push({ kind: 'voided', epoch: tracked.epoch, reason })
    }
    if (takenOver) this.#reported = 0 // a group that was forgotten and made again counts anew
    return effects
  }

  /** A VM of ours that cannot be cut yet: better no epoch now than one that keeps frames from it until the deadline. */
  #excuse(record: GroupRecord, nowMs: number): EpochEffect[] {
    const epoch = record.open?.epoch ?? 0
    return record.vms
      .filter(({ id }) => record.owners[id] === this.#self && !this.#ready.has(id) && !this.#cutting.has(id))
      .flatMap(({ id }) => this.#failure(record, id, epoch, 'it is still being started or restored', nowMs))
  }

  #track(epoch: number, nowMs: number): Tracker {
    let tracker = this.#trackers.get(epoch)
    if (tracker === undefined) {
      tracker = newTracker(epoch, nowMs)
      this.#trackers.set(epoch, tracker)
    }
    return tracker
  }

  /**
   * A frame was faster than the record. Cutting on its word is right: its sender has cut, so the epoch has been opened.
   * But where an older epoch is undecided as far as we know, the next image would not know what it is a difference to.
   */
  #onMarker(vm: string, epoch: number, nowMs: number): EpochEffect[] {
    const record = this.#record
    if (record === undefined || epoch > record.lastEpoch + MAX_AHEAD) return []
    const fate = fateOf(record, epoch)
    if (fate === 'void') {
      const reason = epoch > this.#reported ? 'it was aborted before this peer learned of it' : undefined
      this.#reported = Math.max(this.#reported, epoch)
      return [{ kind: 'voided', epoch, reason }]
    }
    if (fate === 'committed' || fate === 'decided') return []
    if ([...this.#trackers.keys()].some(older => older < epoch)) {
      this.#unanswered.set(vm, epoch)
      return [{ kind: 'refresh' }]
    }
    this.#track(epoch, nowMs)
    const colour = this.#ready.get(vm)
    if (colour === undefined || colour >= epoch) return []
    return [...(this.#cutting.has(vm) ? [] : this.#prepare(vm, epoch)), ...this.#cut(vm, epoch, true)]
  }

  #prepareWhatIsDue(nowMs: number): EpochEffect[] {
    const { open, vms } = this.#record ?? { open: null, vms: [] }
    const tracker = this.#trackers.get(open?.epoch ?? 0)
    if (open === null || tracker === undefined || tracker.failed !== undefined) return []
    const capMs = Math.min(DELAY_OF_DEADLINE * open.deadlineMs, DELAY_OF_PATIENCE * PREPARED_PATIENCE_MS)
    const group = vms.map(({ id }) => id)
    return [...this.#ready]
      .filter(([vm, colour]) => colour < open.epoch && !this.#cutting.has(vm))
      .flatMap(([vm]) => {
        const atMs = tracker.sinceMs + this.#profile.prepareDelayMs(vm, group, capMs)
        return nowMs < atMs ? [{ kind: 'timer' as const, atMs }] : this.#prepare(vm, open.epoch)
      })
  }

  #prepare(vm: string, epoch: number): EpochEffect[] {
    this.#cutting.set(vm, epoch)
    return [{ kind: 'prepare', vm, epoch }]
  }

  /** Once, or once more in a hurry; and only a VM that was told to prepare for this epoch. */
  #cut(vm: string, epoch: number, hurry: boolean): EpochEffect[] {
    const told = this.#told.get(vm)
    if (this.#cutting.get(vm) !== epoch || told === true || told === hurry) return []
    this.#told.set(vm, hurry)
    return [{ kind: 'cut', vm, epoch, hurry }]
  }

  /** News of an older cut may come late, when the VM is being prepared for the next. */
  #endCut(vm: string, epoch: number): void {
    if (this.#cutting.get(vm) === epoch) this.#forgetCut(vm)
  }

  #forgetCut(vm: string): void {
    this.#cutting.delete(vm)
    this.#told.delete(vm)
  }

  #onOwnProgress(
    kind: 'copying' | 'prepared',
    { vm, epoch }: { readonly vm: string; readonly epoch: number },
    nowMs: number
  ): EpochEffect[] {
    const record = this.#record
    if (record === undefined || this.#cutting.get(vm) !== epoch || isDecided(record, epoch)) return []
    const message = { kind, group: record.id, generation: record.generation, epoch, vm }
    return [{ kind: 'broadcast', message }, ...this.#onReport(this.#self, message, nowMs)]
  }

  /** All VMs of the group are prepared, and it is this one's turn. */
  #cutWhatIsPrepared(nowMs: number): EpochEffect[] {
    const group = (this.#record?.vms ?? []).map(({ id }) => id)
    return [...this.#trackers.values()].flatMap(tracker => {
      const { epoch, prepared, cutAtWallMs } = tracker
      const waiting = [...prepared].filter(vm => this.#cutting.get(vm) === epoch && !this.#told.has(vm))
      const others = group.filter(vm => !prepared.has(vm))
      // Who was cut has heard that all are prepared; we have missed some of it.
      if (others.length === 0 || cutAtWallMs.size > 0) tracker.allPreparedMs = Math.min(tracker.allPreparedMs, nowMs)
      if (tracker.failed !== undefined) return []
      if (tracker.allPreparedMs > nowMs) return this.#waitFor(others, tracker, waiting, nowMs)
      return waiting.flatMap(vm => {
        const atMs = tracker.allPreparedMs + this.#profile.leadDelayMs(vm, group)
        return nowMs < atMs ? [{ kind: 'timer' as const, atMs }] : this.#cut(vm, epoch, false)
      })
    })
  }

  /** Nobody was cut as far as we know, and so no frame waits: better no epoch than one with a VM that may never come. */
  #waitFor(others: readonly string[], tracker: Tracker, waiting: readonly string[], nowMs: number): EpochEffect[] {
    const [vm] = waiting
    if (vm === undefined || this.#record === undefined) return []
    const longest = others.toSorted((a, b) => heardMs(tracker, a) - heardMs(tracker, b))[0] ?? ''
    const atMs = heardMs(tracker, longest) + PREPARED_PATIENCE_MS
    if (nowMs < atMs) return [{ kind: 'timer', atMs }]
    const reason = `it is prepared, and nothing was heard of ${longest} for ${PREPARED_PATIENCE_MS} ms`
    return this.#failure(this.#record, vm, tracker.epoch, reason, nowMs)
  }

  #onOwnCut(input: Extract<EpochInput, { kind: 'cut-done' }>, nowMs: number): EpochEffect[] {
    const record = this.#record
    this.#endCut(input.vm, input.epoch)
    if (this.#ready.has(input.vm)) this.#ready.set(input.vm, input.epoch)
    if (record === undefined) return []
    const { kind: _, ...cut } = input
    const message = { kind: 'cut' as const, group: record.id, generation: record.generation, ...cut }
    return [
      { kind: 'broadcast', message },
      ...this.#onReport(this.#self, message, nowMs),
      ...this.#prepareWhatIsDue(nowMs)
    ]
  }

  #onOwnFailure({ vm, epoch, reason }: Extract<EpochInput, { kind: 'vm-failed' }>, nowMs: number): EpochEffect[] {
    this.#endCut(vm, epoch)
    if (this.#record === undefined) return []
    // Of an epoch that is void already: the next one, if it is open, has waited for this.
    return [...this.#failure(this.#record, vm, epoch, reason, nowMs), ...this.#prepareWhatIsDue(nowMs)]
  }

  #failure({ id, generation }: GroupRecord, vm: string, epoch: number, reason: string, nowMs: number): EpochEffect[] {
    const message = { kind: 'failed' as const, group: id, generation, epoch, vm, reason }
    return [{ kind: 'broadcast', message }, ...this.#onReport(this.#self, message, nowMs)]
  }

  /**
   * A report of a VM by its owner, ourselves included: with an image that anybody names an epoch could be committed that
   * cannot be restored. One of an epoch we have not heard of yet is kept: its record is under way.
   */
  #onReport(from: PeerId, message: ReportMessage, nowMs: number): EpochEffect[] {
    const record = this.#record
    if (record === undefined || message.generation !== record.generation) return []
    if (isDecided(record, message.epoch)) return []
    if (message.epoch > record.lastEpoch + MAX_AHEAD || record.owners[message.vm] !== from) return []
    const tracker = this.#track(message.epoch, nowMs)
    if (message.kind === 'copying') tracker.heardMs.set(message.vm, nowMs)
    if (message.kind === 'prepared') tracker.prepared.add(message.vm)
    if (message.kind === 'copying') return []
    if (message.kind === 'prepared') return this.#cutWhatIsPrepared(nowMs)
    if (message.kind === 'cut') {
      tracker.cutAtWallMs.set(message.vm, message.atWallMs)
      this.#profile.note(message.vm, message)
      const { epoch, vm: sender, counts } = message
      return [{ kind: 'expect', epoch, sender, counts }, ...this.#cutWhatIsPrepared(nowMs)]
    }
    if (message.kind === 'durable') tracker.durable.set(message.vm, message.manifest)
    else tracker.failed ??= `${message.vm}: ${message.reason}`
    return this.#decide(nowMs)
  }

  /** Commit when all is durable, abort on failure or past the deadline: at once as the proposer, later in its stead. */
  #decide(nowMs: number): EpochEffect[] {
    const { open, generation, vms } = this.#record ?? { open: null, generation: 0, vms: [] }
    const tracker = this.#trackers.get(open?.epoch ?? 0)
    if (open === null || tracker === undefined) return []
    const patienceMs = open.proposer === this.#self ? 0 : (this.#rank + 1) * STAND_IN_MS
    const complete = vms.every(vm => tracker.durable.has(vm.id))
    if (complete || tracker.failed !== undefined) tracker.decidableMs ??= nowMs
    const dueMs =
      tracker.askedMs > Number.NEGATIVE_INFINITY
        ? tracker.askedMs + 4 * STAND_IN_MS // an attempt of ours is under way, or has failed
        : (tracker.decidableMs ?? tracker.sinceMs + open.deadlineMs) + patienceMs
    if (nowMs < dueMs) return [{ kind: 'timer', atMs: dueMs }]
    tracker.askedMs = nowMs
    const again: EpochEffect = { kind: 'timer', atMs: nowMs + 4 * STAND_IN_MS }
    const { epoch } = open
    if (complete) return [{ kind: 'commit', generation, epoch, images: imagesOf(tracker) }, again]
    const reason = whyAborted(tracker, vms, open.deadlineMs)
    return [{ kind: 'abort', generation, epoch, reason }, again]
  }
}
