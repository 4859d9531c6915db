/**
 * One VM under QEMU. The states are
 *
 *     defined → starting → running ⇄ paused ← waiting     (destroy leads from anywhere to destroyed,
 *                   ↓         ↕                  ↑         the end of the process to ended)
 *                   ↓      cutting               ↑
 *                   → → → → → → → → → → → → → → →
 *
 * and the calls that change them run one after the other. Two of them do not wait in that queue: `destroy`, which only
 * kills, and the wish of `stop`, which a cut in progress honours: a peer whose lease runs out must get its VM stopped,
 * and a cut that started it again afterwards would undo that.
 */
import { rm } from 'node:fs/promises'
import { DiapauseError } from '../errors.ts'
import type { CaptureNow, Clock, Machine, MachineCut, MachineOptions, RamTracking } from '../ports.ts'
import { migrationEnd, type Mode, prepare } from './background-snapshot.ts'
import {
  type Accel,
  filesOf,
  type MachinePaths,
  machineArguments,
  requireEnds,
  requireSocketPath
} from './command-line.ts'
import type { QemuProgram } from './confinement.ts'
import { typeOn } from './console.ts'
import { cutAll, cutDevices } from './cutting.ts'
import { continueAfterDevices } from './device-state.ts'
import { DiskLayers } from './disk-layers.ts'
import { listenForStream, loadDevices, wholeStream } from './incoming.ts'
import type { GuestChannel } from './guest-agent.ts'
import { type HostRam, MachineRam } from './machine-ram.ts'
import { spawnQemu, type QemuProcess } from './process.ts'
import { handled, listenForQmp, QmpClient } from './qmp.ts'
import { type GuestPower, watchResets } from './resets.ts'
import { Vcpus } from './vcpus.ts'

type Ready = (qmp: QmpClient) => Promise<void>
type State = 'defined' | 'starting' | 'waiting' | 'running' | 'paused' | 'cutting' | 'ended' | 'destroyed'

export interface MachineContext extends HostRam {
  readonly program: QemuProgram
  readonly accel: Accel
  /** Marks the process, see command-line.ts. */
  readonly guest: string
  readonly paths: MachinePaths
  /** The channel at `paths.agent`. */
  readonly agent: GuestChannel | undefined
  /** Whether this QEMU starts a VM again when its background snapshot has begun (before 9.0). */
  readonly resumesByItself: boolean
  readonly clock: Clock
}

export class QemuMachine implements Machine {
  readonly #options: MachineOptions
  readonly #context: MachineContext
  #state: State = 'defined'
  #process: QemuProcess | undefined
  #qmp: QmpClient | undefined
  #vcpus: Vcpus | undefined
  #power: GuestPower | undefined
  readonly #ram: MachineRam
  readonly disks: DiskLayers
  readonly agent: GuestChannel | undefined
  /** What QEMU is prepared for. */
  #mode: Mode | undefined
  /** The last call of the queue; never rejects. */
  #tail: Promise<unknown> = Promise.resolve()
  #stopsWaiting = 0
  #afterCut: 'running' | 'paused' = 'running'
  /** It stands still since a cut after which it was to, and its disks are as QEMU has left them. */
  #stayed = false
  /** The migration that is under way, out or in: no cut before it has settled. Never rejects. */
  #migration: Promise<unknown> | undefined
  #incoming: Promise<void> | undefined
  /** Settles when nothing more is made for it; never rejects. */
  #launched: Promise<unknown> | undefined
  #giveUpLaunch: (() => void) | undefined
  #cleaned: Promise<void> | undefined
  #exitReason = ''
  #lost = ''

  constructor(options: MachineOptions, context: MachineContext) {
    this.#options = options
    this.#context = context
    this.#ram = new MachineRam(options.spec, context)
    this.disks = new DiskLayers(options.spec, options.disks, context)
    this.agent = context.agent
    requireEnds(options.spec, options.ends)
  }

  get pid(): number | undefined {
    return this.#exitReason === '' ? this.#process?.pid : undefined
  }

  get tracking(): RamTracking | undefined {
    return this.pid === undefined ? undefined : this.#ram.tracking
  }

  get capture(): CaptureNow {
    return this.#ram.capture
  }

  start(): Promise<void> {
    return this.#launch('boot', qmp => this.#makeReadyToCut(qmp))
  }

  async startIncoming(socketPath: string, connectable: () => void): Promise<void> {
    requireSocketPath(socketPath, `the incoming stream of VM ${this.#options.spec.id}`)
    await this.#launch('incoming', async qmp => {
      await this.#prepare(qmp, 'postcopy')
      const running = qmp.waitEvent('RESUME')
      this.#incoming = handled(this.#receive(qmp, migrationEnd(qmp)))
      this.#busyUntil(this.#incoming)
      await listenForStream(qmp, socketPath)
      connectable()
      await running
    })
  }

  async wait(): Promise<{ readonly ramPath: string }> {
    let ramPath = ''
    const ready = async (qmp: QmpClient) => {
      await this.#prepare(qmp, 'devices')
      ramPath = await this.#ram.armEmpty(this.pid)
    }
    await this.#launch('incoming', ready, 'waiting')
    return { ramPath }
  }

  async load(socketPath: string, connectable: () => void): Promise<void> {
    requireSocketPath(socketPath, `the incoming stream of VM ${this.#options.spec.id}`)
    if (!this.#is('waiting') || !this.#qmp) throw this.#outOfOrder('load')
    this.#enter('starting')
    const loading = loadDevices(this.#qmp, this.#options.spec.id, { socketPath, connectable })
    await loading.catch(error => this.#explain('load', error))
    this.disks.goOn()
    this.#enter('paused')
  }

  incomingComplete(): Promise<void> {
    if (this.#incoming && this.#state !== 'starting') return this.#incoming
    return Promise.reject(this.#outOfOrder('incomingComplete', 'startIncoming has not resolved'))
  }

  stop(): Promise<void> {
    this.#stopsWaiting++
    return this.#next('stop', async qmp => {
      if (this.#state === 'paused') return
      await qmp.command('stop')
      this.#enter('paused')
    }).finally(() => {
      this.#stopsWaiting--
    })
  }

  resume(): Promise<void> {
    return this.#next('resume', async qmp => {
      if (this.#state === 'running') return
      if (this.#stayed) await this.#migration // QEMU would stop it again at its end
      if (!(await this.#power?.bootAnew())) await continueAfterDevices(qmp, this.#context.clock)
      if (this.#afterCut === 'paused') this.disks.goOn()
      ;[this.#stayed, this.#afterCut] = [false, 'running']
      this.#enter('running')
    })
  }

  prepareCut(): Promise<void> {
    return this.#next('prepareCut', () => this.disks.prepare(this.tracking !== undefined))
  }

  async cut(socketPath: string, stopped: () => Promise<void>, { stays } = { stays: false }): Promise<MachineCut> {
    requireSocketPath(socketPath, `the snapshot's stream of VM ${this.#options.spec.id}`)
    return this.#next('cut', async qmp => {
      if (this.#state !== 'running') throw this.#outOfOrder('cut', 'the VM is stopped')
      if (this.#migration) {
        throw new DiapauseError(
          'HYPERVISOR_BUSY',
          `VM ${this.#options.spec.id} cannot be cut: its last stream has not ended. Wait for it and cut again`
        )
      }
      this.#ram.requireMode()
      const withoutRam = this.tracking !== undefined
      await this.#prepare(qmp, withoutRam ? 'devices' : stays ? 'whole' : 'snapshot')
      await this.disks.enterCut(withoutRam || stays)
      this.#enter('cutting')
      this.#vcpus?.goFirst()
      this.#afterCut = 'running'
      try {
        const { clock, resumesByItself } = this.#context
        const { pauseMs, streamed } = await (withoutRam ? cutDevices : cutAll)(qmp, {
          path: socketPath,
          stays,
          resumesByItself,
          clock,
          power: this.#power as GuestPower, // there since it was launched
          frozen: () => this.#frozen(stopped),
          stopWanted: () => this.#stopsWaiting > 0,
          unlessStopped: () => this.#unlessStopped()
        })
        this.#stayed = stays
        if (stays) this.#afterCut = 'paused'
        const told = handled(streamed.catch(error => this.#explain('cut', error)))
        this.#busyUntil(told)
        return { pauseMs, streamed: told, layers: this.disks.frozen }
      } finally {
        if (this.#afterCut === 'running') this.disks.goOn()
        this.#vcpus?.giveWay()
        this.#enter(this.#afterCut)
      }
    })
  }

  async type(text: string): Promise<void> {
    if (!this.#qmp || !this.#process || this.#is('ended') || this.#is('destroyed')) throw this.#outOfOrder('type')
    typeOn(this.#process.input, text)
  }

  async destroy(): Promise<void> {
    this.#enter('destroyed')
    this.#giveUpLaunch?.()
    this.#process?.kill()
    await this.#launched // or it would leave what it is just making
    await this.#process?.exited
    await this.#cleanUp()
  }

  /** Starts QEMU, waits until it answers, and does `ready`. Kills it where any of that fails. */
  #launch(how: 'boot' | 'incoming', ready: Ready, then: State = 'running'): Promise<void> {
    const launching = this.#start(how, ready, then)
    this.#launched ??= launching.catch(() => {})
    return launching
  }

  async #start(how: 'boot' | 'incoming', ready: Ready, then: State): Promise<void> {
    if (this.#state !== 'defined') throw this.#outOfOrder('start')
    this.#enter('starting')
    const { program, accel, guest, paths, clock } = this.#context
    try {
      const listener = await listenForQmp(paths.qmp)
      this.#giveUpLaunch = listener.close
      const { spec, ends } = this.#options
      const ram = await this.#ram.make(then === 'waiting')
      await this.disks.create()
      await this.agent?.listen()
      if (this.#is('destroyed')) throw this.#outOfOrder('start')
      const start = { incoming: how === 'incoming', sharedRam: ram !== undefined, disks: this.disks.arguments }
      const args = machineArguments({ accel, guest, spec, ends, paths, ...start })
      const files = filesOf(spec, paths, this.#options.disks)
      const process = (this.#process = await spawnQemu(program, args, ram, { files }))
      if (this.#is('destroyed')) process.kill()
      void process.exited.then(({ reason }) => this.#onExited(reason, listener.close))
      this.#qmp = await QmpClient.open(await listener.connection, { clock })
      void this.#qmp.closed.then(error => this.#lose(error))
      this.disks.attach(this.#qmp, why => this.#lose(why))
      this.#power = watchResets(this.#qmp, this.#context, this.#options, () => this.#turnedOff())
      this.#vcpus = await Vcpus.of(this.#qmp)
      this.#vcpus.giveWay()
      await ready(this.#qmp)
      if (!this.#is('starting')) throw this.#outOfOrder('start')
      this.#enter(then)
      if (this.#power.off) this.#turnedOff()
    } catch (error) {
      const why = await this.#explain('start', error).catch(explained => explained)
      this.#giveUpLaunch?.()
      this.#process?.kill()
      await this.#process?.exited
      if (!this.#is('destroyed')) this.#state = 'ended'
      await this.#cleanUp()
      throw why
    }
  }

  /** Its guest has turned it off, and it boots anew: after what is under way, and when it is resumed where it is not to run. */
  #turnedOff(): void {
    if (this.#is('starting')) return // asked for again when it has
    const anew = this.#next('boot anew', async () => {
      if (this.#state === 'running') await this.#power?.bootAnew()
    })
    anew.catch(error => this.#lose(error))
  }

  async #receive(qmp: QmpClient, ended: ReturnType<typeof migrationEnd>): Promise<void> {
    try {
      await wholeStream(this.#options.spec.id, ended)
      await this.#makeReadyToCut(qmp)
    } catch (error) {
      await this.#explain('startIncoming', error)
    }
  }

  async #makeReadyToCut(qmp: QmpClient): Promise<void> {
    await this.#ram.arm(this.pid)
    await this.#prepare(qmp, this.tracking === undefined ? 'snapshot' : 'devices')
    this.disks.goOn()
  }

  async #prepare(qmp: QmpClient, mode: Mode): Promise<void> {
    if (this.#mode === mode) return
    this.#mode = undefined
    await prepare(qmp, mode)
    this.#mode = mode
  }

  /** The VM stands still: at the same time its disks are frozen and its caller does what it has to do. */
  async #frozen(stopped: () => Promise<void>): Promise<void> {
    const [disks, caller] = await Promise.allSettled([this.disks.freeze(), stopped()])
    for (const outcome of [disks, caller]) if (outcome.status === 'rejected') throw outcome.reason
  }

  #unlessStopped(): void {
    if (this.#stopsWaiting === 0) return
    this.#afterCut = 'paused'
    throw this.#outOfOrder('cut', 'stop was called in the middle of it; the VM stays stopped')
  }

  /** Queues a call; it needs a VM that runs or is paused when its turn comes. */
  #next<T>(name: string, work: (qmp: QmpClient) => Promise<T>): Promise<T> {
    const turn = this.#tail.then(async () => {
      if (!this.#qmp || (this.#state !== 'running' && this.#state !== 'paused')) throw this.#outOfOrder(name)
      try {
        return await work(this.#qmp)
      } catch (error) {
        return this.#explain(name, error)
      }
    })
    this.#tail = turn.catch(() => {})
    return turn
  }

  #busyUntil(migration: Promise<void>): void {
    const settled = migration
      .catch(() => {})
      .then(() => {
        if (this.#migration === settled) this.#migration = undefined
      })
    this.#migration = settled
  }

  /**
   * Rejects with `error`, or, where QEMU is gone, with what that means to the caller and why it went. A VM that is
   * frozen for good is killed here.
   */
  async #explain(name: string, error: unknown): Promise<never> {
    if (!(error instanceof DiapauseError)) throw error
    const { code } = error
    if (/^HYPERVISOR_(STREAM|INCOMING|STOPPED)$/.test(code)) this.#lose(error)
    if (!code.startsWith('QMP_') || code === 'QMP_REFUSED') throw error
    if (this.#is('destroyed')) throw this.#outOfOrder(name)
    this.#process?.kill()
    await this.#process?.exited
    throw new DiapauseError('HYPERVISOR_EXITED', `QEMU of VM ${this.#options.spec.id} ${this.#exitReason}`, {
      cause: error
    })
  }

  /** A QEMU that is frozen or does not obey may not run: it could not even be stopped when the lease ends. */
  #lose(why: DiapauseError): void {
    if (why.code !== 'QMP_CLOSED' && this.#lost === '') this.#lost = `was killed: ${why.message}`
    this.#process?.kill()
  }

  #onExited(status: string, stopListening: () => void): void {
    const reason = this.#lost || status
    this.#exitReason = reason
    stopListening()
    const alarm = (['running', 'paused', 'cutting', 'waiting'] as const).some(state => this.#is(state))
    if (!this.#is('destroyed')) this.#state = 'ended'
    void this.#cleanUp()
    if (alarm) this.#options.onExit(reason)
  }

  /** QEMU is gone, which is what counts: never rejects. What a read-only disk keeps is removed by the peer's next run, as after a kill. */
  #cleanUp(): Promise<void> {
    const { paths, log } = this.#context
    this.#qmp?.close()
    this.agent?.close()
    const steps = [() => this.#ram.close(), () => this.disks.remove(), () => rm(paths.qmp, { force: true })]
    const warn = (err: unknown) =>
      log.warn({ vm: this.#options.spec.id, err }, 'what a VM has left stays until this peer starts again')
    return (this.#cleaned ??= Promise.all(steps.map(step => step().catch(warn))).then(() => {}))
  }

  #is(state: State): boolean {
    return this.#state === state
  }

  /** `ended` and `destroyed` are final. */
  #enter(state: State): void {
    if (this.#state === 'destroyed' || (this.#state === 'ended' && state !== 'destroyed')) return
    this.#context.log.debug({ vm: this.#options.spec.id, from: this.#state, to: state }, 'machine state')
    this.#state = state
  }

  #outOfOrder(call: string, why: string = `the machine is ${this.#state}`): DiapauseError {
    return new DiapauseError('HYPERVISOR_STATE', `VM ${this.#options.spec.id}: ${call} is out of order: ${why}`, {
      details: { state: this.#state, call }
    })
  }
}
