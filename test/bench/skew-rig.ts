/**
 * Two real VMs on one peer's parts (LocalVm, switch, image workers; shards in memory) with the bank's TCP streams between
 * them, cut with a skew that is forced upon them, and restored from these images as often as one likes.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalVm, type LocalVmDeps } from '../../node/agents/local-vm.ts'
import { wallMs } from '../../node/host/clock.ts'
import { messageOf } from '../../node/errors.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type { Hypervisor, ImageManifest, Machine, Switch } from '../../node/ports.ts'
import { createSwitch, type VirtualSwitch } from '../../node/switch/switch.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { clock, memoryLog } from '../contract/real-clock.ts'
import { MemoryNetwork } from '../contract/switch-support.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { type BankReport, parseConsole, tcpCounts } from '../guest/console.ts'
import { MemoryCluster } from '../unit/image/support.ts'
import { SkewTap } from './skew-tap.ts'

const GROUP = 'skew'
const PEER = 'p1'
const MEMORY_MIB = 128
/** 250 transfers of 40 bytes a second on each stream: a curve, and little work for a guest without KVM. */
const INTERVAL_US = 4_000
const SHAPE = { k: 2, m: 1, symbolBytes: 65_536 }
const HOLDERS = ['a', 'b', 'c']
const LIMIT_MS = 120_000
const POLL_MS = 10
const ASK_AGAIN_MS = 2_000

/** Of both VMs, in their order, at one epoch. */
export interface Images {
  readonly epoch: number
  readonly images: readonly ImageManifest[]
}

export class SkewRig {
  readonly tap = new SkewTap()
  readonly hypervisor: Hypervisor
  readonly #folder: string
  readonly #specs: readonly VmSpec[]
  readonly #switch: VirtualSwitch
  readonly #network: Switch
  readonly #cluster = new MemoryCluster()
  readonly #log = memoryLog()
  #generation = 0
  #lastEpoch = 0
  #questions = 0
  #ranBeforeMs = 0
  /** Of the generation that runs. */
  vms: readonly LocalVm[] = []
  #complete: Promise<unknown> = Promise.resolve()
  readonly #ended: string[] = []

  private constructor(folder: string, specs: readonly VmSpec[], hypervisor: Hypervisor) {
    this.#folder = folder
    this.#specs = specs
    this.hypervisor = hypervisor
    const { openLink } = this.tap
    const transport = new MemoryNetwork().transport(PEER)
    this.#switch = createSwitch({ self: PEER, transport, clock, log: this.#log, mayAct: () => true, openLink })
    this.#network = this.tap.around(this.#switch)
  }

  static async open(): Promise<SkewRig> {
    const guest = await buildGuest()
    const specs = [1, 2].map(index =>
      bankVm(guest, { index, total: 2, memoryMiB: MEMORY_MIB, intervalUs: INTERVAL_US })
    )
    const runDir = await mkdtemp(join(tmpdir(), 'diapause-skew-'))
    const settings = {
      qemu: 'qemu-system-x86_64',
      accel: 'auto',
      trialMs: 5_000,
      capture: 'auto',
      ramDir: '/dev/shm'
    } as const
    const log = memoryLog()
    return new SkewRig(runDir, specs, await createQemuHypervisor({ settings, peer: 'skew', runDir, log, clock }))
  }

  /** Frames that the switch has given up, for whatever reason. */
  get lostFrames(): number {
    const { droppedFull, droppedLate, lost } = this.#switch.stats()
    return droppedFull + droppedLate + lost
  }

  /** Resolves when both banks send and receive. */
  async boot(): Promise<void> {
    this.#define(0)
    await Promise.all(this.vms.map(vm => vm.boot(0, Promise.resolve())))
    for (const number of [1, 2]) {
      await this.#until(`the bank in vm${number}`, async () => {
        const report = await this.report(number)
        const busy = report?.conns === 2 && (report.received.get(3 - number)?.count ?? 0) > 100
        return busy || undefined
      })
    }
  }

  /**
   * In the place of the VMs that ran before. They run on at once while their pages come (`post-copy`, as a peer restores), or
   * both at the same time when all pages are `there`. Resolves when both run: when that was, how far apart they began, and
   * for how long they had run before, at most: a post-copy runs its VM, if only until it is told to stop.
   */
  async resume(
    { epoch, images }: Images,
    pages: 'there' | 'post-copy'
  ): Promise<{ runMs: number; apartMs: number; ranBeforeMs: number }> {
    await this.stopVms()
    this.#ranBeforeMs = 0
    this.#define(epoch)
    this.tap.take()
    const began = await Promise.all(
      this.vms.map(async (vm, i) => {
        const committed = { epoch, generation: this.#generation, previousEpoch: 0, images: {} }
        const image = Promise.resolve(images[i] as ImageManifest)
        const { complete } = await vm.resumeFrom(committed, image, Promise.resolve())
        // But for its first instructions it stands still, as one without a lease does. A VM that is fenced before would not begin.
        if (pages === 'there') vm.fence()
        return { runMs: performance.now(), complete }
      })
    )
    this.#complete = Promise.all(began.map(({ complete }) => complete))
    this.#complete.catch((error: unknown) => this.#ended.push(messageOf(error)))
    if (pages === 'there') {
      await this.#complete
      for (const vm of this.vms) vm.unfence()
      return { runMs: performance.now(), apartMs: 0, ranBeforeMs: this.#ranBeforeMs }
    }
    const [first = 0, last = 0] = began.map(({ runMs }) => runMs).toSorted((x, y) => x - y)
    return { runMs: last, apartMs: last - first, ranBeforeMs: 0 }
  }

  /** Every page has come: the VMs can be cut. */
  async complete(): Promise<void> {
    await this.#complete
  }

  /**
   * VM 1 is cut, VM 2 `skewMs` later; 0: both as soon as both are prepared, as a peer does it. Resolves when both have been
   * cut; `images` when they are durable.
   */
  async cut(skewMs: number): Promise<{ cutMs: readonly [number, number]; images: Promise<Images> }> {
    const { vms, tap } = this
    const epoch = ++this.#lastEpoch
    const prepared = vms.map(() => Promise.withResolvers<void>())
    const cuts = vms.map(() => Promise.withResolvers<void>())
    const turn = async (i: number): Promise<void> => {
      prepared[i]?.resolve()
      await Promise.all(prepared.map(({ promise }) => promise))
      if (i === 0 || skewMs === 0) return
      await cuts[0]?.promise
      await sleep((tap.turnedMs(1) ?? 0) + skewMs - performance.now())
    }
    const manifests = vms.map(async (vm, i) => {
      const { manifest } = await vm.cut(
        epoch,
        { holders: HOLDERS, peers: HOLDERS },
        { copying: () => {}, mayCut: () => turn(i), rests: () => false, hurry: new Promise(() => {}) },
        ({ counts }) => {
          vms[1 - i]?.expect(epoch, vm.spec.id, counts)
          cuts[i]?.resolve()
        }
      )
      return manifest
    })
    const images = Promise.all(manifests).then(each => ({ epoch, images: each }))
    await Promise.race([Promise.all(cuts.map(({ promise }) => promise)), images])
    return { cutMs: [tap.turnedMs(1) ?? Number.NaN, tap.turnedMs(2) ?? Number.NaN], images }
  }

  /** What VM `number` said last since it began to run here. */
  async report(number: number): Promise<BankReport | undefined> {
    return parseConsole(await this.#console(number)).at(-1)
  }

  /** Timeouts that the TCP of each VM has counted since its boot (TcpExtTCPTimeouts), by its own word. */
  async timeouts(): Promise<[number, number]> {
    const id = ++this.#questions
    const ask = async (vm: LocalVm, number: number) => {
      let askedMs = -Infinity
      return await this.#until(`an answer of vm${number}`, async () => {
        // Again, as a guest that is busy loses what its serial port has no room for.
        if (performance.now() - askedMs > ASK_AGAIN_MS) {
          askedMs = performance.now()
          await vm.type(`\ntcp ${id}\n`)
        }
        return tcpCounts(await this.#console(number), id)?.timeouts
      })
    }
    const [one, two] = this.vms as [LocalVm, LocalVm]
    return await Promise.all([ask(one, 1), ask(two, 2)])
  }

  /** What must not have happened by now, in words. */
  async complaints(): Promise<string[]> {
    const reports = await Promise.all([this.report(1), this.report(2)])
    const bad = reports.filter(report => report && report.gaps + report.doubles + report.bad + report.broken > 0)
    return [...this.#ended, ...bad.map(report => `vm${report?.vm} lost, doubled or broke something`)]
  }

  async stopVms(): Promise<void> {
    await Promise.all(this.vms.map(vm => vm.destroy()))
  }

  async close(): Promise<void> {
    await this.stopVms()
    await rm(this.#folder, { recursive: true, force: true })
  }

  /** A new generation of the group, not running yet. */
  #define(epoch: number): void {
    const generation = ++this.#generation
    const owners = Object.fromEntries(this.#specs.map(({ id }) => [id, PEER]))
    const record: GroupRecord = {
      id: GROUP,
      version: generation,
      generation,
      vms: this.#specs,
      owners,
      lastEpoch: epoch,
      open: null,
      committed: null,
      removed: false
    }
    this.#network.setGroup(record)
    const { hypervisor } = this
    const deps: LocalVmDeps = {
      hypervisor: { ...hypervisor, define: options => this.#timed(hypervisor.define(options)) },
      network: this.#network,
      clock,
      wallMs,
      serveBlocks: blockServing(this.#log),
      log: this.#log,
      openWorker: (group, { id, memoryMiB }) =>
        createImageWorker({
          group,
          vm: id,
          memoryMiB,
          accel: hypervisor.accel,
          key: new Uint8Array(32).fill(7),
          shape: SHAPE,
          disks: [],
          cluster: this.#cluster,
          log: this.#log
        }),
      path: (kind, _, vm) => this.#path(kind, vm)
    }
    this.vms = this.#specs.map(spec => {
      return new LocalVm(record, spec, deps, reason => this.#ended.push(`${spec.id} has ended: ${reason}`))
    })
  }

  /** Notes for how long it ran between a restore and the stop that follows at once. */
  #timed(machine: Machine): Machine {
    let runsSinceMs = Number.NaN
    return {
      get pid() {
        return machine.pid
      },
      get tracking() {
        return machine.tracking
      },
      get capture() {
        return machine.capture
      },
      start: () => machine.start(),
      startIncoming: async (path, connectable) => {
        await machine.startIncoming(path, connectable)
        runsSinceMs = performance.now()
      },
      incomingComplete: () => machine.incomingComplete(),
      stop: async () => {
        await machine.stop()
        this.#ranBeforeMs = Math.max(this.#ranBeforeMs, performance.now() - runsSinceMs)
      },
      resume: () => machine.resume(),
      disks: machine.disks,
      prepareCut: () => machine.prepareCut(),
      cut: (path, stopped) => machine.cut(path, stopped),
      type: text => machine.type(text),
      destroy: () => machine.destroy()
    }
  }

  async #until<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
    for (const deadlineMs = performance.now() + LIMIT_MS; ; await sleep(POLL_MS)) {
      const value = await probe()
      if (value !== undefined) return value
      if (this.#ended.length > 0) throw new Error(`waited for ${what}: ${this.#ended.join('; ')}`)
      if (performance.now() > deadlineMs) throw new Error(`waited ${LIMIT_MS} ms for ${what}`)
    }
  }

  /** Empty where it has said nothing yet. */
  async #console(number: number): Promise<string> {
    return await readFile(this.#path('console', `vm${number}`), 'latin1').catch(() => '')
  }

  #path(kind: string, vm: string): string {
    return join(this.#folder, `${this.#generation}.${kind}.${vm}`)
  }
}
