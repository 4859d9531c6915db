/**
 * One group on this peer: runs its epoch core, and the VMs that the record gives to this peer. Every record with a newer
 * generation ends the VMs of the older one here and starts this peer's share of the new one, from the committed epoch.
 */
import { EpochCore, type EpochEffect, type EpochInput } from '../../protocols/epoch/core.ts'
import type { ReportMessage } from '../../protocols/epoch/messages.ts'
import type { Keeping } from '../../protocols/epoch/kept.ts'
import { abortEpoch, cameTooLate, commitCameTooLate, commitEpoch, takeOver } from '../../protocols/epoch/record.ts'
import { type GroupRecord, groupKey, type VmSpec } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import { brief, type Note } from '../../protocols/decisions/facts.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import { planRestore, without } from '../planning/placement.ts'
import type { Clock, FailureDetector, Leases, Log, Reboot, Switch } from '../ports.ts'
import { type TellingDeps, tellOfRestore, tellTime, tellUplink } from './after-restore.ts'
import type { CutWords } from './cut-words.ts'
import { factOfPlan } from './decisions-sources.ts'
import type { GroupDirectory } from './directory.ts'
import type { Hosting, Report } from './host-parts.ts'
import { lossesBorne } from './leaning.ts'
import { LocalVm } from './local-vm.ts'
import type { Placing } from './placing.ts'
import { restoreFacts, type RestoreFactsDeps } from './restore-facts.ts'
import { type Held, heldBack, type LineDeps } from './restore-line.ts'

export type { Hosting, Report, StartedGenerations } from './host-parts.ts'

export interface GroupAgentDeps extends LineDeps, Pick<RestoreFactsDeps, 'leaving' | 'about'> {
  readonly self: PeerId
  readonly members: () => readonly PeerId[]
  /** Members that new VMs and new shards may go to. */
  readonly storage: () => readonly PeerId[]
  /** A member's name. */
  readonly nameOf: (peer: PeerId) => string
  readonly hosting: Hosting | undefined
  readonly directory: GroupDirectory
  readonly leases: Leases
  readonly detector: FailureDetector
  readonly network: Switch
  /** Living members that may be of an older version, and would not understand all that this one says. */
  readonly older: () => readonly string[]
  /** What goes on to be kept when an epoch is committed now. */
  readonly keeping: () => Keeping
  readonly placing: Placing
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  /** For the decision log. */
  readonly note: Note
}

/** After this many failures in a row the VMs are given to other hosts: what they lack here may be there. A guess. */
const LOCAL_RETRIES = 2
/** A VM that could not be started or has ended is tried again, with the whole group, after this; doubled up to 32 times it. A guess. */
const RETRY_MS = 1_000

const voided = (epoch: number): DiapauseError =>
  new DiapauseError('EPOCH_ABORTED', `Epoch ${epoch} was aborted before this VM was cut to it.`)

export class GroupAgent {
  readonly #deps: GroupAgentDeps
  readonly #core: EpochCore
  readonly #vms = new Map<string, LocalVm>()
  /** VM → the epoch that it is prepared for, the word to cut, and that to do so in a hurry. */
  readonly #goes = new Map<
    string,
    { readonly epoch: number; readonly go: PromiseWithResolvers<void>; readonly hurry: PromiseWithResolvers<void> }
  >()
  #generation = 0
  #refusedReports = 0
  #retries = 0
  #timerMs = Number.POSITIVE_INFINITY
  #cancelTimer: () => void = () => {}
  #stopped = false
  /** Ends of VMs under way: the next generation uses the same sockets and starts after them. */
  #ending: Promise<unknown> = Promise.resolve()

  constructor(deps: GroupAgentDeps) {
    this.#deps = deps
    this.#core = new EpochCore({ self: deps.self, members: deps.members })
  }

  get vms(): readonly LocalVm[] {
    return [...this.#vms.values()]
  }

  onRecord(record: GroupRecord): void {
    if (this.#stopped) return
    if (record.removed || record.resting) this.#deps.network.removeGroup(record.id)
    else this.#deps.network.setGroup(record)
    this.#feed({ kind: 'record', record })
    if (record.generation > this.#generation) this.#startGeneration(record)
  }

  /** Reports of a generation that is over: the core does nothing about them. */
  get refusedReports(): number {
    return this.#refusedReports
  }

  onReport(message: ReportMessage, from: PeerId): void {
    if (message.generation < this.#generation) this.#refusedReports++
    this.#feed({ kind: 'message', from, message })
  }

  onMarker(vm: string, epoch: number): void {
    this.#feed({ kind: 'marker', vm, epoch })
  }

  onLease(event: 'lapse' | 'regained' | 'lost', generation: number): void {
    for (const vm of this.#vms.values()) {
      if (vm.generation !== generation) continue
      if (event === 'regained') vm.unfence()
      else vm.fence()
      const { hosting } = this.#deps
      if (event === 'regained' && hosting !== undefined) void tellTime(vm, this.#telling(vm, hosting))
    }
    // Lost for good: a newer generation exists. Its record, read from a majority, ends these VMs.
    if (event === 'lost') void this.#refresh()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancelTimer()
    await this.#endAll()
    const id = this.#core.record?.id
    if (id !== undefined) await this.#deps.leases.release(groupKey(id)) // a successor need not wait for it to run out
  }

  #feed(input: EpochInput): void {
    if (!this.#stopped) for (const effect of this.#core.step(input, this.#deps.clock.now())) this.#apply(effect)
  }

  #apply(effect: EpochEffect): void {
    const group = this.#core.record?.id ?? ''
    switch (effect.kind) {
      case 'broadcast':
        return this.#deps.directory.broadcast(effect.message)
      case 'expect':
        for (const vm of this.#vms.values()) vm.expect(effect.epoch, effect.sender, effect.counts)
        return
      case 'prepare':
        return void this.#takePart(effect.vm, effect.epoch)
      case 'cut':
        if (effect.hurry) this.#goes.get(effect.vm)?.hurry.resolve()
        this.#goes.get(effect.vm)?.go.resolve()
        return
      case 'opened':
        return this.#deps.report('epoch.opened', { group, epoch: effect.epoch })
      case 'committed': {
        const { epoch, commitMs, skewMs } = effect
        for (const vm of this.#vms.values()) vm.committed(epoch)
        return this.#deps.report('epoch.committed', { group, epoch, commitMs, skewMs })
      }
      case 'voided':
        for (const vm of this.#vms.values()) vm.voided(effect.epoch)
        for (const { epoch, go } of this.#goes.values()) if (epoch === effect.epoch) go.reject(voided(epoch))
        if (effect.reason === undefined) return
        return this.#deps.report('epoch.aborted', { group, epoch: effect.epoch, reason: effect.reason })
      case 'commit': {
        const { generation, epoch, images } = effect
        const isLate = (now: GroupRecord): boolean => commitCameTooLate(now, generation, epoch)
        return this.#change(group, commitEpoch(generation, epoch, images, this.#deps.keeping()), isLate)
      }
      case 'abort':
        this.#deps.log.warn({ group, epoch: effect.epoch, reason: effect.reason }, 'asking for the epoch to be aborted')
        return this.#change(group, abortEpoch(effect.generation, effect.epoch), now =>
          cameTooLate(now, effect.generation)
        )
      case 'refresh':
        return void this.#refresh()
      case 'timer':
        return this.#setTimer(effect.atMs)
    }
  }

  /** What comes of it returns as a record; the core asks again where nothing does. */
  #change(...[group, next, isLate]: Parameters<GroupDirectory['change']>): void {
    this.#deps.directory
      .change(group, next, isLate)
      .catch((error: unknown) =>
        this.#deps.log.warn({ group, error: messageOf(error) }, 'the group register could not be changed')
      )
  }

  #setTimer(atMs: number): void {
    if (atMs >= this.#timerMs) return
    this.#cancelTimer()
    this.#timerMs = atMs
    this.#cancelTimer = this.#deps.clock.after(Math.max(0, atMs - this.#deps.clock.now()), () => {
      this.#timerMs = Number.POSITIVE_INFINITY
      this.#feed({ kind: 'timer' })
    })
  }

  #startGeneration(record: GroupRecord): void {
    this.#generation = record.generation
    const ended = this.#endAll()
    // When they have ended, because who starts the group elsewhere goes by it.
    if (record.removed || record.resting) return void ended.then(() => this.#release(record)).catch(() => {})
    const { hosting, self } = this.#deps
    const ours = record.vms.filter(spec => record.owners[spec.id] === self)
    if (hosting === undefined || ours.length === 0) return
    // An earlier run of this peer had these VMs in this very generation. They died with it, and the others have gone on
    // since: alone they would come back to a past that no longer fits. The whole group goes back, in a new generation.
    if (hosting.started.of(record.id) >= record.generation) return this.#restart(record.generation, 0, 'peer-restarted')
    const noted = hosting.started.note(record.id, record.generation)
    const after = { noted, ended: Promise.all([ended, noted]) }
    for (const each of Object.values(after)) each.catch(() => {}) // awaited by those that start
    const heldOf = heldBack(record, this.#deps, hosting)
    for (const spec of ours) void this.#startVm(record, spec, hosting, { ...after, held: heldOf(spec.id) })
  }

  /** The lease of VMs that have ended. By then the group may run again here, under a newer one, which stays. */
  async #release({ id, generation }: GroupRecord): Promise<void> {
    if (this.#generation === generation) await this.#deps.leases.release(groupKey(id))
  }

  #endAll(): Promise<unknown> {
    const old = [...this.#vms.values()]
    this.#vms.clear()
    for (const { epoch, go } of this.#goes.values()) go.reject(voided(epoch))
    for (const vm of old) this.#feed({ kind: 'vm-gone', vm: vm.spec.id })
    this.#ending = Promise.all([
      this.#ending,
      ...old.map(vm => vm.destroy().then(() => this.#reportVm('vm.destroyed', vm)))
    ]).catch((error: unknown) => this.#deps.log.error({ error: messageOf(error) }, 'a VM did not end cleanly'))
    return this.#ending
  }

  async #startVm(
    record: GroupRecord,
    spec: VmSpec,
    hosting: Hosting,
    { held, ...after }: { readonly noted: Promise<void>; readonly ended: Promise<unknown>; readonly held: Held }
  ): Promise<void> {
    const failed = (reason: string): void => this.#failed(vm, reason)
    const rebooted = (how: Reboot): void => this.#reportVm(`vm.${how}`, vm)
    const vm = new LocalVm(record, spec, { ...hosting.vm, ...held }, failed, rebooted)
    this.#vms.set(spec.id, vm)
    const mayRun = this.#deps.leases.acquire(groupKey(record.id), record.generation)
    mayRun.catch(() => {}) // awaited by the VM's start
    try {
      const standby = await hosting.standbys?.take(record, spec)
      const ready = typeof standby === 'object' ? standby : undefined
      if (ready === undefined) await after.ended
      if (ready === undefined && this.#vms.get(spec.id) !== vm) return // it would open what nobody closes: its end is behind it
      const { committed } = record
      if (committed === null) {
        await vm.boot(0, mayRun)
        this.#reportVm('vm.started', vm)
        tellUplink(vm.spec, this.#telling(vm, hosting))
        await vm.disks.shared
        if (this.#vms.get(spec.id) === vm) this.#feed({ kind: 'vm-ready', vm: spec.id, colour: 0 })
        return
      }
      const hash = committed.images[spec.id] as string
      // The VM of before was killed, and nobody hears it any more; what a copy has is its own, so its end need not be waited for.
      const [manifest, mayGoOn] = [hosting.readManifest(hash), Promise.all([mayRun, ready ? after.noted : after.ended])]
      const { spawnToRunMs, complete } = await vm.resumeFrom(committed, manifest, mayGoOn, ready)
      const from = ready ? { from: 'standby' } : { from: 'shards', noStandby: standby }
      this.#reportVm('vm.resumed', vm, { epoch: committed.epoch, spawnToRunMs, ...from, ...held.told() })
      tellUplink(vm.spec, this.#telling(vm, hosting))
      void tellOfRestore(vm, this.#telling(vm, hosting))
      void vm.disks.local?.then(read => this.#reportVm('vm.disks-local', vm, { ...read }))
      const counts = await complete
      this.#reportVm('vm.complete', vm, { ...counts })
      this.#feed({ kind: 'vm-ready', vm: spec.id, colour: committed.epoch })
      this.#retries = 0
    } catch (error) {
      if (this.#vms.get(spec.id) !== vm) return // a newer generation has ended it
      this.#failed(vm, messageOf(error), error)
    }
  }

  #telling(vm: LocalVm, { vm: { wallMs }, uplink }: Hosting): TellingDeps {
    return { clock: this.#deps.clock, wallMs, uplink, report: (kind, fields) => this.#reportVm(kind, vm, fields) }
  }

  async #takePart(id: string, epoch: number): Promise<void> {
    const vm = this.#vms.get(id)
    const record = this.#core.record
    const { self, hosting, storage, detector, placing } = this.#deps
    if (vm === undefined || record === undefined || hosting === undefined) return
    const alive = new Set(detector.alive())
    const living = storage().filter(peer => alive.has(peer))
    const placed = { ...placing.place(living, hosting.shape, record.id), storedAt: hosting.storedAt }
    const go = Promise.withResolvers<void>()
    go.promise.catch(() => {}) // awaited in the cut, if that comes so far
    const hurry = Promise.withResolvers<void>()
    this.#goes.set(id, { epoch, go, hurry })
    const words: CutWords = {
      copying: () => this.#feed({ kind: 'vm-copying', vm: id, epoch }),
      mayCut: () => {
        this.#feed({ kind: 'vm-prepared', vm: id, epoch })
        return go.promise
      },
      rests: () => this.#core.record?.open?.epoch === epoch && this.#core.record.open.rest === true,
      hurry: hurry.promise
    }
    try {
      const { manifest, stats } = await vm.cut(epoch, placed, words, ({ pauseMs, ...done }) => {
        const { atWallMs: cutAtMs, prepareMs, leadMs } = done
        this.#reportVm('cut', vm, { epoch, pauseMs, cutAtMs, prepareMs, leadMs })
        const told = this.#deps.older().length === 0 && { pauseMs }
        this.#feed({ kind: 'cut-done', vm: id, epoch, ...done, ...told })
      })
      const tolerates = lossesBorne(manifest, placed)
      const { hash, objects } = hosting.encodeManifest(manifest)
      await Promise.all(objects.map(each => hosting.shards.putManifest(each.hash, each.bytes, placed.peers)))
      this.#reportVm('epoch.durable', vm, { epoch, stats, tolerates })
      const about = { group: record.id, generation: vm.generation, epoch, vm: id }
      this.#feed({ kind: 'image-durable', vm: id, epoch, report: { kind: 'durable', ...about, manifest: hash, stats } })
    } catch (error) {
      if (this.#vms.get(id) !== vm) return
      this.#deps.log.warn({ vm: id, epoch, owner: self, error: messageOf(error) }, 'this VM cannot make the epoch')
      this.#feed({ kind: 'vm-failed', vm: id, epoch, reason: messageOf(error).slice(0, 500) })
    } finally {
      if (this.#goes.get(id)?.go === go) this.#goes.delete(id)
    }
  }

  /**
   * A VM of ours has ended or did not start: the whole group goes back to the committed epoch, here and at the others,
   * in a new generation. Tried less and less often, since a cause that stays would otherwise restart the group for ever.
   */
  #failed(vm: LocalVm, reason: string, error?: unknown): void {
    if (this.#stopped || this.#vms.get(vm.spec.id) !== vm) return
    this.#vms.delete(vm.spec.id)
    this.#goes.get(vm.spec.id)?.go.reject(new DiapauseError('VM_DESTROYED', reason))
    this.#feed({ kind: 'vm-gone', vm: vm.spec.id })
    this.#ending = Promise.all([this.#ending, vm.destroy()]).catch(() => {})
    this.#reportVm('vm.failed', vm, { reason })
    this.#deps.log.error({ vm: vm.spec.id, generation: vm.generation, reason, error }, 'a VM has failed')
    if (hasCode(error, 'LEASE_REFUSED')) return void this.#refresh()
    this.#restart(vm.generation, RETRY_MS * 2 ** Math.min(this.#retries++, 5), 'vm-failed')
  }

  /** Asks for a new generation until there is one: nobody else does, for this peer is alive. */
  #restart(generation: number, waitMs: number, why?: 'vm-failed' | 'peer-restarted'): void {
    const group = this.#core.record?.id ?? ''
    if (why !== undefined) {
      this.#deps.note({ kind: 'restart-due', group, generation, why, waitMs, failures: this.#retries })
    }
    this.#deps.clock.after(waitMs, () => {
      const record = this.#core.record
      if (this.#stopped || record === undefined || record.generation !== generation) return
      this.#newGeneration(record).catch((error: unknown) => {
        this.#deps.log.warn({ group, error: messageOf(error) }, 'the group cannot be started again yet')
        this.#deps.note({ kind: 'restart-waits', group, generation, text: brief(messageOf(error)) })
        this.#restart(generation, RETRY_MS)
      })
    })
  }

  /** A host that failed to run the group's VMs this often gives them up, if another one is alive. */
  async #newGeneration(record: GroupRecord): Promise<void> {
    const { directory, storage, self, hosting } = this.#deps
    const facts = restoreFacts({ ...this.#deps, hosts: storage, shape: hosting?.shape }, record)
    const elsewhere = this.#retries > LOCAL_RETRIES ? planRestore(record, without(facts, self)) : undefined
    if (elsewhere !== undefined) {
      const { id: group, generation } = record
      this.#deps.note({ kind: 'gives-up', group, generation, failures: this.#retries })
      this.#deps.note(factOfPlan(record, elsewhere))
      await this.#endAll()
      await this.#release(record) // or the voters would wait for it to run out
    }
    const { id, generation } = record
    const owners = elsewhere?.owners ?? record.owners
    await directory.change(id, takeOver(generation, owners), now => cameTooLate(now, generation, owners))
  }

  async #refresh(): Promise<void> {
    const id = this.#core.record?.id
    if (id === undefined) return
    try {
      await this.#deps.directory.refresh(id)
    } catch (error) {
      // Without a majority nothing may run here anyway; try until there is one.
      this.#deps.log.info({ group: id, error: messageOf(error) }, 'the group register cannot be read yet')
      if (!this.#stopped) this.#deps.clock.after(RETRY_MS, () => void this.#refresh())
    }
  }

  #reportVm(kind: string, vm: LocalVm, fields: Record<string, unknown> = {}): void {
    this.#deps.report(kind, { group: vm.group, vm: vm.spec.id, generation: vm.generation, ...fields })
  }

  /** For the API: types into the console of a VM that runs here. */
  async type(id: string, text: string): Promise<void> {
    const vm = this.#vms.get(id)
    if (vm === undefined) {
      const owner = this.#core.record?.owners[id]
      throw new DiapauseError(
        'VM_ELSEWHERE',
        `VM ${id} does not run on this peer${owner === undefined ? '' : `; ask ${this.#deps.nameOf(owner)}`}.`
      )
    }
    await vm.type(text)
  }
}
