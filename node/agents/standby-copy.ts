/**
 * A standby copy of one VM on this host: a RAM file that follows the group's committed epochs, and a hypervisor that waits on it
 * with its NICs connected. It is of one image at a time, or between two; whoever is to run the VM takes all of it.
 */
import type { CommittedEpoch, VmSpec } from '../../protocols/group.ts'
import { disksOf, nicsOf } from '../../protocols/group.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { ImageManifest, ImageWorker, Machine, MachineOptions, NicSockets, Restore } from '../ports.ts'
import { LocalDisks } from './local-disks.ts'
import type { LocalVmDeps } from './local-vm.ts'
import { StandbyDisks } from './standby-disks.ts'

/** What cannot be read now may be later: a holder that restarts is back after seconds. A guess. */
const RETRY_MS = 1_000
const MIB = 1_048_576

export interface StandbyCopyDeps {
  readonly vm: LocalVmDeps
  readManifest(hash: string): Promise<ImageManifest>
}

/** All that a VM goes on from; it is the taker's to end. */
export interface StandbyParts {
  readonly machine: Machine
  readonly worker: ImageWorker
  readonly restore: Restore
  readonly disks: LocalDisks
  /** Its NICs wait on them until they are attached. */
  readonly nics: NicSockets
  readonly nicPath: string
  /** For the machine's incoming stream. */
  readonly socketPath: string
  /** Who is told when the machine ends. */
  setOnExit(onExit: (reason: string) => void, onReboot: OnReboot): void
}

type OnReboot = NonNullable<MachineOptions['onReboot']>

/** What a copy is of. */
interface Image {
  readonly epoch: number
  readonly hash: string
}

type State = 'starting' | 'following' | 'ready' | 'failing' | 'taken' | 'ended'

export class StandbyCopy {
  readonly group: string
  readonly spec: VmSpec
  readonly #deps: StandbyCopyDeps
  /** Tells the copies of a VM apart: one may run while the next is made. */
  readonly #name: string
  readonly #onEnd: (why: string) => void
  #onExit: (reason: string) => void
  /** Until it runs, nobody is there to reboot it. */
  #onReboot: OnReboot = () => {}
  #state: State = 'starting'
  #why = ''
  #target: Image
  #ready: Image | undefined
  #machine: Machine | undefined
  #worker: ImageWorker | undefined
  #nics: NicSockets | undefined
  #restore: Restore | undefined
  readonly #disks: LocalDisks
  readonly #contents: StandbyDisks
  readonly #running: Promise<void>
  /** Resolved and renewed at each change of state. */
  #changed = Promise.withResolvers<void>()

  /** Begins at once. `onEnd`: it has ended by itself, all of it. */
  constructor(
    of: { readonly group: string; readonly spec: VmSpec; readonly committed: CommittedEpoch; readonly number: number },
    deps: StandbyCopyDeps,
    onEnd: (why: string) => void
  ) {
    this.group = of.group
    this.spec = of.spec
    this.#deps = deps
    this.#onEnd = onEnd
    this.#name = `${of.spec.id} standby ${of.number}` // no VM has such a name
    this.#target = this.#imageIn(of.committed)
    const path: LocalVmDeps['path'] = kind => this.#path(kind)
    this.#disks = new LocalDisks(of.spec, { group: of.group, generation: of.number }, { ...deps.vm, path })
    this.#contents = new StandbyDisks(disksOf(of.spec).map(({ sizeMiB }) => sizeMiB * MIB))
    this.#onExit = reason => this.#fail(`its machine ${reason}`)
    this.#running = this.#run()
  }

  /** For people: what it is now. */
  get status(): { readonly state: State; readonly epoch: number | undefined; readonly why: string | undefined } {
    return { state: this.#state, epoch: this.#ready?.epoch, why: this.#why === '' ? undefined : this.#why }
  }

  /** Goes on to that epoch, as soon as it is at the one before. */
  follow(committed: CommittedEpoch): void {
    const image = this.#imageIn(committed)
    if (image.hash === this.#target.hash) return
    this.#target = image
    this.#change(this.#state)
  }

  /**
   * All of it, where it is of that image, or is within `waitMs`; else why not. Whoever does not get it leaves it as it was.
   */
  async take(image: string, waitMs: number): Promise<StandbyParts | string> {
    let late = false
    const cancel = this.#deps.vm.clock.after(waitMs, () => {
      late = true
      this.#change(this.#state)
    })
    const mayCome = () => this.#target.hash === image && (this.#state === 'starting' || this.#state === 'following')
    while (!this.#isOf(image) && mayCome() && !late) await this.#changed.promise
    cancel()
    const { machine, worker, restore, nics } = this.#parts()
    if (!this.#isOf(image) || !machine || !worker || !restore || !nics) return this.#whyNot(image)
    this.#change('taken')
    return {
      machine,
      worker,
      restore,
      disks: this.#disks,
      nics,
      nicPath: this.#path('nic'),
      socketPath: this.#path('incoming'),
      setOnExit: (onExit, onReboot) => {
        this.#onExit = onExit
        this.#onReboot = onReboot
      }
    }
  }

  /** Gives back what it has, unless it was taken. Safe at any time. */
  async end(): Promise<void> {
    if (this.#state === 'taken' || this.#state === 'ended') return
    this.#change('ended')
    this.#contents.end(new DiapauseError('STANDBY_ENDED', 'the standby copy was given up'))
    await this.#close()
    await this.#running // what was being made when it ended closes itself
  }

  async #run(): Promise<void> {
    try {
      const ramPath = await this.#start()
      for (;;) {
        while (this.#target.hash === this.#ready?.hash && !this.#isOver) await this.#changed.promise
        if (this.#isOver) return
        await this.#followTo(this.#target, ramPath)
      }
    } catch (error) {
      if (!this.#isOver) this.#fail(messageOf(error))
      else if (this.#state === 'ended') await this.#close()
    }
  }

  /** The file's path. */
  async #start(): Promise<string> {
    const { openWorker, network, hypervisor, path, bootable } = this.#deps.vm
    await bootable?.(this.spec) // before there is anything to give back
    this.#alive()
    const worker = await openWorker(this.group, this.spec)
    this.#worker = worker
    this.#alive()
    this.#nics = await network.reserve?.(this.#path('nic'), nicsOf(this.spec).length)
    this.#alive()
    if (!this.#disks.none) this.#contents.show(await worker.restore(await this.#deps.readManifest(this.#target.hash)))
    const disks = await this.#disks.restored(Promise.resolve(this.#contents.image))
    this.#alive()
    const { spec } = this
    const consolePath = path('console', this.group, spec.id)
    const onExit = (reason: string) => this.#onExit(reason)
    const onReboot: OnReboot = how => this.#onReboot(how)
    this.#machine = hypervisor.define({ spec, ends: this.#nics?.ends ?? [], disks, consolePath, onExit, onReboot })
    const waiting = await this.#machine.wait?.()
    this.#alive()
    if (waiting === undefined) throw new DiapauseError('STANDBY_UNSUPPORTED', 'no machine can wait here')
    return waiting.ramPath
  }

  async #followTo(image: Image, ramPath: string): Promise<void> {
    this.#ready = undefined
    this.#restore = undefined
    this.#change('following')
    try {
      const manifest = await this.#deps.readManifest(image.hash)
      this.#alive()
      const restore = await this.#worker?.restore(manifest, ramPath)
      this.#alive()
      this.#restore = restore
      if (restore !== undefined) this.#contents.show(restore)
      this.#ready = image
      this.#why = ''
      this.#change('ready')
    } catch (error) {
      // A thread that has died takes what it knew of the file with it: the copy is made anew.
      if (this.#isOver || hasCode(error, 'IMAGE_WORKER')) throw error
      this.#why = messageOf(error)
      this.#change('failing')
      const again = new Promise<void>(resolve => this.#deps.vm.clock.after(RETRY_MS, resolve))
      await Promise.race([again, this.#changed.promise])
    }
  }

  #parts() {
    const [machine, worker, restore, nics] = [this.#machine, this.#worker, this.#restore, this.#nics]
    return { machine, worker, restore, nics }
  }

  #isOf(image: string): boolean {
    return this.#state === 'ready' && this.#ready?.hash === image
  }

  #whyNot(image: string): string {
    if (this.#why !== '') return this.#why
    if (this.#target.hash !== image) return `it is of epoch ${this.#target.epoch}`
    return this.#state === 'starting' ? 'it has only begun' : `it is not at epoch ${this.#target.epoch} yet`
  }

  get #isOver(): boolean {
    return this.#state === 'taken' || this.#state === 'ended'
  }

  #alive(): void {
    if (this.#isOver) throw new DiapauseError('STANDBY_ENDED', 'the standby copy was given up')
  }

  #change(state: State): void {
    this.#state = state
    const { resolve } = this.#changed
    this.#changed = Promise.withResolvers()
    resolve()
  }

  #fail(why: string): void {
    if (this.#isOver) return
    this.#change('ended')
    this.#contents.end(new DiapauseError('STANDBY_ENDED', why))
    void this.#close().then(() => this.#onEnd(why))
  }

  async #close(): Promise<void> {
    await Promise.allSettled([
      this.#machine?.destroy(),
      this.#nics?.close(),
      this.#worker?.close(),
      this.#restore?.closeDisks(),
      this.#disks.end()
    ])
  }

  #imageIn({ epoch, images }: CommittedEpoch): Image {
    return { epoch, hash: images[this.spec.id] ?? '' }
  }

  #path(kind: Parameters<LocalVmDeps['path']>[0]): string {
    return this.#deps.vm.path(kind, this.group, this.#name)
  }
}
