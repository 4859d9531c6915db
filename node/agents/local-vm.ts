/**
 * One VM of one generation on this host: its machine, its NIC on the switch and its image worker, moved together.
 * Starts by boot or from an image, is cut to epochs, pauses while the lease is not ours, ends for good with `destroy`.
 */
import type { CommittedEpoch, GroupRecord, VmSpec } from '../../protocols/group.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type {
  Capture,
  DiskFile,
  Hypervisor,
  ImageManifest,
  ImageStats,
  ImageWorker,
  Machine,
  MachineDisks,
  NicPort,
  Reboot,
  Restore,
  Switch
} from '../ports.ts'
import type { CutReport, CutWords } from './cut-words.ts'
import { LocalDisks, type LocalDisksDeps } from './local-disks.ts'
import { PageRounds } from './page-rounds.ts'
import type { Placed } from './placing.ts'
import { type PageCounts, resumeByPostcopy, resumeOnStandby } from './resume.ts'
import type { StandbyParts } from './standby-copy.ts'
import { Standstill } from './standstill.ts'

/**
 * When the last frame is recorded, the group's last VM has just been drained and stands still yet. What is left to do here
 * is processor work that nobody waits for, so it waits for that. A guess: twice a pause.
 */
const OTHERS_CUT_MS = 50

export interface LocalVmDeps extends LocalDisksDeps {
  readonly hypervisor: Hypervisor
  readonly network: Switch
  /** Awaited when the VM could go on from its image: others are to start with it. Absent: nobody is. */
  readonly together?: () => Promise<void>
  /** Wall clock, milliseconds: for reports only. */
  wallMs(): number
  openWorker(group: string, spec: VmSpec): Promise<ImageWorker>
  /** Resolves when this host has what the VM boots from, as far as the cluster keeps it. FILE_MISSING. Absent: it does. */
  bootable?(spec: VmSpec): Promise<void>
  /** Paths of this VM's sockets and console; `layers`: of a folder for its disks, to which a generation is added. */
  path(kind: 'nic' | 'capture' | 'incoming' | 'blocks' | 'console' | 'layers', group: string, vm: string): string
}

export class LocalVm {
  readonly spec: VmSpec
  readonly group: string
  readonly generation: number
  readonly #deps: LocalVmDeps
  readonly #onEnd: (reason: string) => void
  readonly #onReboot: (how: Reboot) => void
  disks: LocalDisks
  #machine: Machine | undefined
  #attaching: Promise<NicPort> | undefined
  #nic: NicPort | undefined
  #reserved: StandbyParts['nics'] | undefined // those of a standby copy wait until they are attached
  #worker: ImageWorker | undefined
  #capture: { readonly epoch: number; cancel(): Promise<void> } | undefined
  #restore: Restore | undefined
  #running = false
  readonly #still: Standstill
  #destroyed = false
  #copied: Promise<unknown> = Promise.resolve() // settles when no cut asks for changed pages: the next may
  #voidedEpoch = -1 // the newest

  constructor(
    record: GroupRecord,
    spec: VmSpec,
    deps: LocalVmDeps,
    onEnd: (reason: string) => void,
    onReboot: (how: Reboot) => void = () => {}
  ) {
    this.spec = spec
    this.group = record.id
    this.generation = record.generation
    this.#deps = deps
    this.#onEnd = onEnd
    this.#onReboot = onReboot
    this.disks = new LocalDisks(spec, this, deps)
    this.#still = new Standstill({
      vm: spec.id,
      nic: () => this.#nic,
      machine: () => this.#machine,
      isUp: () => this.#running,
      lags: error => this.#lags(error),
      onEnd
    })
  }

  get running(): boolean {
    return this.#running && !this.#still.fenced
  }

  get pid(): number | undefined {
    return this.#machine?.pid
  }

  get agent(): Machine['agent'] {
    return this.#machine?.agent
  }

  /** How it is cut now; undefined while there is no machine. */
  get capture(): Machine['capture'] | undefined {
    return this.#machine?.capture
  }

  /** Cold boot; `mayRun` settles when the lease is ours. */
  async boot(epoch: number, mayRun: Promise<void>): Promise<void> {
    const [worker] = await Promise.all([this.#openWorker(), mayRun, this.#deps.bootable?.(this.spec)])
    this.#nic = await this.#attach(epoch)
    await this.#defineMachine(this.#nic, this.disks.fresh(worker)).start()
    this.#setRunning()
  }

  /**
   * Starts from a committed image: by post-copy, QEMU, boot set and lease coming at the same time, or on a standby copy of it.
   * Resolves when it runs; `complete` when its last page has come and it can be cut.
   */
  async resumeFrom(
    committed: CommittedEpoch,
    manifest: Promise<ImageManifest>,
    mayRun: Promise<unknown>,
    standby?: StandbyParts
  ): Promise<{ spawnToRunMs: number; complete: Promise<PageCounts> }> {
    const startedMs = this.#deps.clock.now()
    for (const each of [manifest, mayRun]) each.catch(() => {}) // awaited below; others may fail first
    if (standby) await this.#adopt(standby)
    const bootSet = standby ? Promise.resolve(standby.restore) : this.#bootSet(manifest)
    bootSet.catch(() => {}) // as they
    const [nic, disks] = await Promise.all([
      this.#attach(committed.epoch, standby?.nicPath),
      standby ? undefined : this.disks.restored(bootSet),
      this.#deps.bootable?.(this.spec)
    ])
    this.#nic = nic
    const machine = standby?.machine ?? this.#defineMachine(nic, disks)
    const socketPath = standby?.socketPath ?? this.#deps.path('incoming', this.group, this.spec.id)
    const alive = () => this.#still.unfenced.then(() => this.#alive())
    const parts = { ...this.#deps, nic, mayRun, alive, bootSet, socketPath }
    const { complete } = await (standby ? resumeOnStandby : resumeByPostcopy)(machine, parts)
    this.#setRunning()
    this.disks.begun(machine)
    return { spawnToRunMs: this.#deps.clock.now() - startedMs, complete }
  }

  async #bootSet(manifest: Promise<ImageManifest>): Promise<Restore> {
    const [worker, image] = await Promise.all([this.#openWorker(), manifest])
    this.#alive()
    this.#restore = await worker.restore(image)
    return this.#restore
  }

  /** All of it is this VM's from now on. */
  async #adopt({ machine, worker, restore, disks, nics, setOnExit }: StandbyParts): Promise<void> {
    ;[this.#machine, this.#worker, this.#restore, this.disks, this.#reserved] = [machine, worker, restore, disks, nics]
    setOnExit(reason => this.#exited(reason), this.#onReboot)
    if (this.#destroyed) await this.destroy()
    this.#alive()
  }

  /**
   * The cut: RAM is copied where the machine tracks it; `mayCut` is awaited (the group's other VMs are being copied, too);
   * inbound frames wait, the machine stops, its NIC is drained, the colour turns, the last pages are copied (or a background
   * snapshot begins), the machine runs on (or stays, if the group is to rest), `onCut` is called. Resolves with the image when all of it is durable in shards.
   */
  async cut(
    epoch: number,
    placed: Placed,
    words: CutWords,
    onCut: (report: CutReport) => void
  ): Promise<{ manifest: ImageManifest; stats: ImageStats }> {
    const { machine, nic, worker } = this.#parts()
    const { clock } = this.#deps
    const markedMs = clock.now()
    // Pages that one cut was told of must have reached the worker before the next begins: it tells of each once.
    const before = this.#copied
    const copied = Promise.withResolvers<void>()
    this.#copied = copied.promise
    await before
    let capture: Capture | undefined
    let rounds: PageRounds | undefined
    try {
      const { tracking } = machine
      const socketPath = this.#deps.path('capture', this.group, this.spec.id)
      const ram = tracking && { ramPath: tracking.ramPath }
      this.#notVoided(epoch)
      const begun = await worker.capture({ generation: this.generation, epoch, socketPath, ...placed, ...ram })
      capture = begun
      this.#capture = { epoch, cancel: () => begun.cancel() }
      this.#notVoided(epoch)
      rounds = tracking && new PageRounds(tracking, capture)
      void words.hurry.then(() => rounds?.hurry())
      await rounds?.prepare(clock, () => words.copying())
      await machine.prepareCut()
      const prepareMs = clock.now() - markedMs
      await words.mayCut()
      const toldMs = clock.now()
      this.#notVoided(epoch)
      await rounds?.copyWhatIsMuch()
      const rests = words.rests()
      const parts = { machine, nic, capture, rounds, socketPath, prepareMs, toldMs, rests, onCut }
      const end = await this.#stopAndCut(epoch, parts)
      copied.resolve()
      const [frames] = await Promise.all([nic.recorded(epoch), end.streamed])
      await new Promise<void>(resolve => clock.after(OTHERS_CUT_MS, resolve))
      const manifest = { ...(await capture.finish(frames, end.files)), talks: nic.talks() }
      return { manifest, stats: manifest.stats }
    } catch (error) {
      // The tracker tells of a page once: the worker must hear of it, also where this cut has come to nothing.
      await rounds?.giveUp()
      await capture?.cancel()
      if (hasCode(error, 'IMAGE_WORKER') && this.#worker === worker && !this.#destroyed) await this.#workerDied()
      throw error
    } finally {
      copied.resolve()
      if (this.#capture?.epoch === epoch) this.#capture = undefined
    }
  }

  #notVoided(epoch: number): void {
    if (epoch > this.#voidedEpoch) return
    throw new DiapauseError('EPOCH_ABORTED', `Epoch ${epoch} was aborted before VM ${this.spec.id} was cut to it.`)
  }

  async #stopAndCut(
    epoch: number,
    parts: {
      readonly machine: Machine
      readonly nic: NicPort
      readonly capture: Capture
      readonly rounds: PageRounds | undefined
      readonly socketPath: string
      readonly prepareMs: number
      readonly toldMs: number // when it was told to cut
      readonly rests: boolean
      readonly onCut: (report: CutReport) => void
    }
  ): Promise<{ streamed: Promise<void>; files: readonly DiskFile[] }> {
    const { machine, nic, capture, rounds, socketPath, prepareMs, toldMs, rests, onCut } = parts
    this.#still.notFenced()
    let counts: Record<string, number> = {}
    let atWallMs = 0
    let leadMs = 0
    this.#still.hold()
    try {
      await nic.prepare()
      await nic.hold()
      this.#still.notFenced()
      this.#notVoided(epoch)
      const turn = async (): Promise<void> => {
        await nic.drained()
        counts = { ...(await nic.turn(epoch)) }
        atWallMs = this.#deps.wallMs()
        leadMs = this.#deps.clock.now() - toldMs
        // After the drain: a frame sent late marks its buffer in RAM as used.
        if (rounds) await capture.copyLast(await rounds.last())
      }
      const { pauseMs, streamed, layers } = await machine.cut(socketPath, turn, { stays: rests })
      if (rests) this.#still.rest(epoch)
      this.#still.wake(this.#voidedEpoch)
      onCut({ pauseMs, counts, atWallMs, prepareMs, leadMs })
      return { streamed, files: this.disks.cutTo(epoch, layers) } // wrapped: whoever awaits the cut must not wait for the stream
    } finally {
      this.#still.letGo()
    }
  }

  expect(epoch: number, sender: string, counts: Record<string, number>): void {
    if (sender !== this.spec.id) this.#nic?.expect(epoch, sender, counts)
  }

  committed(epoch: number): void {
    this.#worker?.commit(epoch)
    this.disks.committed(epoch, this.#machine)
  }

  voided(epoch: number): void {
    this.#voidedEpoch = Math.max(this.#voidedEpoch, epoch)
    this.#still.watch(this.#nic?.abandon(epoch))
    this.#still.wake(epoch)
    if (this.#capture?.epoch === epoch) void this.#capture.cancel()
    this.#worker?.abort(epoch)
    if ((this.#capture?.epoch ?? epoch) <= epoch) this.disks.voided(epoch, this.#machine)
  }

  /** The lease is about to end: nothing moves until `unfence`. */
  fence(): void {
    this.#still.fence()
  }

  unfence(): void {
    this.#still.unfence()
  }

  async type(text: string): Promise<void> {
    await this.#parts().machine.type(text)
  }

  /** For good, all parts at once: the VM's next generation waits for it, and on a busy host each takes 50 to 500 ms. */
  async destroy(): Promise<void> {
    this.#destroyed = true
    this.#running = false
    this.#still.end()
    await Promise.all([
      this.#machine?.destroy(),
      this.#detach(),
      this.#capture?.cancel(),
      this.#restore?.cancel(),
      this.#worker?.close(),
      this.disks.end()
    ])
  }

  /** Also what is still being attached: the next generation uses the same sockets. */
  async #detach(): Promise<void> {
    await (await this.#attaching?.catch(() => undefined))?.detach()
    await this.#reserved?.close() // what has not been attached
  }

  #setRunning(): void {
    this.#alive()
    this.#running = true
    this.#still.begun()
  }

  #lags(error: unknown): void {
    const about = { group: this.group, vm: this.spec.id, generation: this.generation, error: messageOf(error) }
    this.#deps.log.warn(about, 'the switch lags behind')
  }

  #alive(): void {
    if (this.#destroyed)
      throw new DiapauseError('VM_DESTROYED', `VM ${this.spec.id} of generation ${this.generation} is gone.`)
  }

  /**
   * A thread that has died takes what it knew of RAM and disks with it. All of RAM can be read again; of disks only what is
   * not merged yet: such a VM goes back to its last image.
   */
  async #workerDied(): Promise<void> {
    if (this.disks.none) await this.#openWorker()
    else this.#onEnd('its image worker has died, and what is on its disks cannot be captured any more')
  }

  /** In the place of the one before, if any. Known to `destroy` at once, whatever else its caller waits for. */
  async #openWorker(): Promise<ImageWorker> {
    const worker = await this.#deps.openWorker(this.group, this.spec)
    await this.#worker?.close()
    this.#worker = worker
    if (this.#destroyed) await worker.close()
    this.#alive()
    return worker
  }

  async #attach(epoch: number, waitsAt?: string): Promise<NicPort> {
    const { group, spec, generation } = this
    const nicPath = waitsAt ?? this.#deps.path('nic', group, spec.id)
    this.#attaching = this.#deps.network.attach({ group, vm: spec.id, generation, epoch, nicPath })
    const nic = await this.#attaching
    this.#alive()
    // Told of while there was no NIC: frames of that colour may wait here already, and the switch asks once for each.
    if (this.#voidedEpoch > epoch) await nic.abandon(this.#voidedEpoch)
    return nic
  }

  #defineMachine({ ends }: NicPort, disks: MachineDisks | undefined): Machine {
    this.#alive()
    this.#machine = this.#deps.hypervisor.define({
      spec: this.spec,
      ends,
      disks,
      consolePath: this.#deps.path('console', this.group, this.spec.id),
      onExit: reason => this.#exited(reason),
      onReboot: this.#onReboot
    })
    return this.#machine
  }

  #exited(reason: string): void {
    if (!this.#destroyed) this.#onEnd(reason)
  }

  #parts(): { machine: Machine; nic: NicPort; worker: ImageWorker } {
    if (this.#machine === undefined || this.#nic === undefined || this.#worker === undefined || !this.#running) {
      throw new DiapauseError('VM_NOT_RUNNING', `VM ${this.spec.id} does not run here yet; try again when it does.`)
    }
    return { machine: this.#machine, nic: this.#nic, worker: this.#worker }
  }
}
