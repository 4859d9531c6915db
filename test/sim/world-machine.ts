/**
 * A simulated hypervisor: the ports `Hypervisor` and `Machine` as `node/hypervisor/machine.ts` keeps them, over banks
 * (`world-bank.ts`). Calls take time and run one after the other; a VM goes on while its peer's process is stopped, ends with
 * it, and can end by itself.
 */
import { DiapauseError } from '../../node/errors.ts'
import { nicsOf } from '../../protocols/group.ts'
import type {
  CaptureNow,
  DiskControl,
  Hypervisor,
  Machine,
  MachineCut,
  MachineOptions,
  PageRanges,
  RamTracking
} from '../../node/ports.ts'
import { Bank, frameId, setFrameId } from './world-bank.ts'
import { type Book, type CutFact, Run } from './world-book.ts'
import type { Life } from './world-host.ts'
import type { Plug, SimLink } from './world-nic.ts'
import { OUTSIDE, told } from './world-outside.ts'

/** Where a stream of an image comes in: at the image worker for a capture, at the machine for a restore. */
export interface Inlet<T> {
  offer(stream: T): void
}

/** What a machine sends of itself at a cut. */
export interface CutStream {
  readonly fact: CutFact
  /** Undefined where RAM is copied by who listens. */
  readonly pages: readonly string[] | undefined
}

/** What a machine starts from. */
export interface IncomingStream {
  readonly pages: readonly string[]
  /** Settles when the last page has come. */
  readonly complete: Promise<void>
}

export interface MachineWorld {
  readonly life: Life
  readonly book: Book
  readonly capture: 'dirty' | 'portable'
  /** A VM computes this often. */
  readonly tickMs: number
  readonly stays: (stays: boolean) => boolean
  /** Who is on the other side of a NIC. */
  nicOf(path: string): Nic & { readonly vms: readonly string[] }
  /** A VM takes a frame. */
  onTake(run: Run, id: number): void
}

export interface Nic {
  readonly group: string
  readonly vm: string
  readonly generation: number
  /** Ids of the frames that came with the VM's image. */
  readonly injected: Set<number>
}

/** Chance that a VM tells the outside something when it has computed. */
const TELLS = 0.25

type State = 'defined' | 'starting' | 'running' | 'paused' | 'cutting' | 'ended' | 'destroyed'

export function simHypervisor(world: MachineWorld, machines: Set<SimMachine>): Hypervisor {
  return {
    description: 'simulated',
    accel: 'tcg',
    capture: world.capture,
    define: options => {
      const machine = new SimMachine(options, world)
      machines.add(machine)
      return machine
    }
  }
}

export class SimMachine implements Machine {
  readonly pid = 1
  readonly #options: MachineOptions
  readonly #world: MachineWorld
  #state: State = 'defined'
  #tail: Promise<unknown> = Promise.resolve()
  #stopsWaiting = 0
  #bank: Bank | undefined
  #link: SimLink | undefined
  /** To the outside, where its group goes there. */
  #uplink: SimLink | undefined
  readonly #deaf: Plug = { takes: () => this.takes(), take: () => {} }
  #tracking: RamTracking | undefined
  #complete: Promise<void> | undefined
  /** Grows whenever it starts or stops: ticks of before are void. */
  #era = 0
  run: Run | undefined

  constructor(options: MachineOptions, world: MachineWorld) {
    this.#options = options
    this.#world = world
  }

  get tracking(): RamTracking | undefined {
    return this.#tracking
  }

  get capture(): CaptureNow {
    return { mode: this.#tracking === undefined ? 'portable' : 'dirty' }
  }

  get bank(): Bank | undefined {
    return this.#bank
  }

  // ------------------------------------------------------------------------------------------ the port

  async start(): Promise<void> {
    await this.#launch()
    await this.#takes(2, 20)
    this.#begin(undefined)
    this.#track()
  }

  async startIncoming(socketPath: string, connectable: () => void): Promise<void> {
    await this.#launch()
    const came = Promise.withResolvers<IncomingStream>()
    const inlet: Inlet<IncomingStream> = { offer: came.resolve }
    this.#world.life.paths.set(socketPath, inlet)
    connectable()
    const { pages, complete } = await came.promise
    await this.#takes(1, 5)
    this.#begin(pages)
    this.#complete = complete.then(
      () => this.#track(),
      (cause: unknown) => {
        this.fail('the source of its pages broke off')
        throw new DiapauseError('HYPERVISOR_INCOMING', 'the source of the pages broke off', { cause })
      }
    )
    this.#complete.catch(() => {})
  }

  incomingComplete(): Promise<void> {
    return this.#complete ?? Promise.reject(this.#outOfOrder('incomingComplete'))
  }

  stop(): Promise<void> {
    this.#stopsWaiting++
    return this.#next('stop', async () => {
      if (this.#state === 'paused') return
      await this.#takes(0.3, 3)
      this.#halt('paused')
    }).finally(() => {
      this.#stopsWaiting--
    })
  }

  resume(): Promise<void> {
    return this.#next('resume', async () => {
      if (this.#state === 'running') return
      await this.#takes(0.3, 2)
      this.#go()
    })
  }

  /** Simulated VMs have none. */
  readonly disks: DiskControl = { here: Promise.resolve(), release() {}, join() {} }

  async prepareCut(): Promise<void> {}

  cut(socketPath: string, stopped: () => Promise<void>, { stays } = { stays: false }): Promise<MachineCut> {
    return this.#next('cut', async () => {
      if (this.#state !== 'running') throw this.#outOfOrder('cut')
      const inlet = this.#world.life.paths.get(socketPath) as Inlet<CutStream> | undefined
      if (inlet === undefined) throw new DiapauseError('HYPERVISOR_STREAM', `nobody listens on ${socketPath}`)
      const withRam = this.#tracking === undefined
      await this.#takes(0.3, 3)
      this.#halt('cutting')
      let failure: Error | undefined
      await stopped().catch((error: Error) => {
        failure = error
      })
      this.#alive('cut')
      const stream = this.#stream(withRam)
      await this.#takes(0.1, 2)
      if (this.#stopsWaiting > 0) {
        this.#enter('paused')
        throw this.#outOfOrder('cut')
      }
      if (this.#world.stays(stays) && failure === undefined) this.#enter('paused')
      else this.#go()
      if (failure !== undefined) throw failure
      const streamed = this.#takes(withRam ? 5 : 0, withRam ? 60 : 1).then(() => inlet.offer(stream))
      streamed.catch(() => {})
      return { pauseMs: 1, streamed, layers: [] }
    })
  }

  async type(): Promise<void> {}

  async destroy(): Promise<void> {
    this.#halt('destroyed')
    this.#disconnect()
    await this.#world.life.wait(1, 'machine ends')
  }

  // ------------------------------------------------------------------------------------------ what others do to it

  /** It ends by itself; or with its host, in silence. */
  fail(reason: string): void {
    if (this.#state === 'ended' || this.#state === 'destroyed' || this.#state === 'defined') return
    this.#halt('ended')
    this.#disconnect()
    this.#world.life.enter('io', 'machine ended', () => this.#options.onExit(reason))
  }

  takes(): boolean {
    return this.run?.executing === true && !this.#world.life.dead
  }

  take(frame: Uint8Array): void {
    if (this.run === undefined) return
    this.run.taken.push(frameId(frame))
    const { host } = this.#world.life
    host.kernel.note(() => `${host.name} guest ${this.#options.spec.id} takes frame ${frameId(frame)}`)
    this.#world.onTake(this.run, frameId(frame))
    for (const answer of this.#bank?.take(frame) ?? []) this.#send(answer.to, answer.bytes)
  }

  page(number: number): string {
    return (this.#bank as Bank).page(number)
  }

  // ------------------------------------------------------------------------------------------ inside

  /** Where NIC number `index` is plugged in; '': there is none. */
  #path(index: number): string {
    const end = this.#options.ends[index]
    return end?.kind === 'stream' ? end.path : ''
  }

  async #launch(): Promise<void> {
    if (this.#state !== 'defined') throw this.#outOfOrder('start')
    this.#enter('starting')
    await this.#takes(2, 15)
    const { life } = this.#world
    const { group, vm, generation, injected, vms } = this.#world.nicOf(this.#path(0))
    this.#link = life.paths.get(this.#path(0)) as SimLink | undefined
    this.#bank = new Bank(vm, vms, vms.indexOf(vm) + 1)
    this.run = new Run({ group, vm, generation, life, injected })
    this.#link?.connect(this)
    this.#uplink = life.paths.get(this.#path(1)) as SimLink | undefined
    this.#uplink?.connect(this.#deaf)
  }

  #begin(pages: readonly string[] | undefined): void {
    this.#alive('start')
    if (pages !== undefined) this.#bank?.load(pages)
    if (this.run !== undefined) this.#world.book.runs.push(this.run)
    this.#go()
  }

  #track(): void {
    const bank = this.#bank
    if (this.#world.capture !== 'dirty' || bank === undefined) return
    const ramPath = `ram of ${this.#path(0)}`
    this.#world.life.paths.set(ramPath, this)
    let all = true
    this.#tracking = {
      ramPath,
      changed: async () => {
        await this.#takes(0, 0.3)
        const pages = all ? Array.from({ length: bank.pages }, (_, i) => i) : [...bank.dirty]
        all = false
        bank.dirty.clear()
        return Uint32Array.from(pages.flatMap(page => [page, 1])) satisfies PageRanges
      }
    }
  }

  #stream(withRam: boolean): CutStream {
    const { run, link, bank } = { run: this.run as Run, link: this.#link, bank: this.#bank as Bank }
    const pages = Array.from({ length: bank.pages }, (_, i) => bank.page(i))
    const fact = { run, sent: run.sent.length, taken: run.taken.length, pages, recent: link?.told ?? new Set<number>() }
    return { fact, pages: withRam ? pages : undefined }
  }

  #go(): void {
    if (this.#state === 'ended' || this.#state === 'destroyed' || this.run === undefined) return
    this.#enter('running')
    this.run.executing = true
    this.run.sinceMs = this.#world.life.host.kernel.nowMs
    this.#era += 1
    this.#link?.give()
    this.#tick(this.#era)
  }

  #halt(state: State): void {
    this.#era += 1
    if (this.run !== undefined) this.run.executing = false
    this.#enter(state)
  }

  #tick(era: number): void {
    const { host } = this.#world.life
    const label = (): string => `${host.name} guest ${this.run?.vm} computes`
    host.hardware(this.#world.tickMs * host.kernel.between(0.5, 1.5), label, () => {
      if (era !== this.#era || this.#world.life.dead) return
      for (const { to, bytes } of this.#bank?.tick() ?? []) this.#send(to, bytes)
      if (this.#uplink !== undefined && host.kernel.chance(TELLS)) this.#tell(this.#uplink)
      this.#tick(era)
    })
  }

  #send(to: string, bytes: Uint8Array): void {
    if (this.run === undefined) return
    const { run, options, host } = { run: this.run, options: this.#options, host: this.#world.life.host }
    setFrameId(bytes, this.#world.book.sent(run, to))
    host.kernel.note(() => `${host.name} guest ${options.spec.id} sends frame ${frameId(bytes)} to ${to}`)
    this.#link?.send(bytes)
  }

  #disconnect(): void {
    this.#link?.disconnect(this)
    this.#uplink?.disconnect(this.#deaf)
  }

  #tell(uplink: SimLink): void {
    const bytes = told(nicsOf(this.#options.spec)[1]?.mac ?? '')
    if (this.run !== undefined) setFrameId(bytes, this.#world.book.sent(this.run, OUTSIDE))
    uplink.send(bytes)
  }

  #next<T>(call: string, work: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(() => {
      if (this.#state !== 'running' && this.#state !== 'paused') throw this.#outOfOrder(call)
      return work()
    })
    this.#tail = turn.catch(() => {})
    return turn
  }

  async #takes(lowMs: number, highMs: number): Promise<void> {
    const { life } = this.#world
    await life.wait(life.host.kernel.between(lowMs, highMs), 'QMP')
    this.#alive('call')
  }

  #alive(call: string): void {
    if (this.#state === 'ended' || this.#state === 'destroyed') throw this.#outOfOrder(call)
  }

  #enter(state: State): void {
    if (this.#state !== 'destroyed' && (this.#state !== 'ended' || state === 'destroyed')) this.#state = state
  }

  #outOfOrder(call: string): DiapauseError {
    return new DiapauseError('HYPERVISOR_STATE', `${call} is out of order: the machine is ${this.#state}`)
  }
}
