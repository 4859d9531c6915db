/**
 * A process that holds what a peer holds for one VM, and nothing else: hypervisor, switch, `LocalVm`, image worker and a
 * sink for its columns. What it takes of memory and processors is what a VM and its captures cost. Argument: JSON in argv[2].
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalVm } from '../../node/agents/local-vm.ts'
import { wallMs } from '../../node/host/clock.ts'
import { goFirst } from '../../node/host/priority.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { blockServing } from '../../node/nbd/server.ts'
import { encodeManifest } from '../../node/image/manifest.ts'
import type { Hypervisor, Machine } from '../../node/ports.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import type { DiskSpec } from '../../protocols/group.ts'
import { clock, memoryLog } from '../contract/real-clock.ts'
import { MemoryNetwork, recordOf } from '../contract/switch-support.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { parseSpeed, type SpeedReport } from '../guest/speed.ts'
import { ProcessCalls } from './capture-calls.ts'
import type { BenchCalls } from './capture-rig.ts'
import { HOLDERS, SHAPE, Sink } from './capture-sink.ts'
import { processorUs } from './processor.ts'

export interface PeerOptions {
  /** Its own. */
  readonly folder: string
  readonly capture: 'dirty' | 'portable'
  readonly memoryMiB: number
  readonly fillMiB: number
  readonly disks?: readonly DiskSpec[]
}

/** What one epoch took. */
export interface EpochCost {
  readonly pauseMs: number
  /** From its begin to the last column; without the time in which RAM was compared. */
  readonly seconds: number
  readonly prepareMs: number
  /** Processor time of the peer with all its threads, and of its helper that tracks written pages. */
  readonly peerCpuS: number
  /** Of QEMU's threads: those that run the guest, and the others. In steps of 10 ms. */
  readonly guestCpuS: number
  readonly qemuCpuS: number
  /** By the peer, from files and pipes (rchar of proc(5)). */
  readonly readBytes: number
  /** Above the peer without a VM. */
  readonly peakBytes: number
  /** As the product counts them. */
  readonly pagesChanged: number
  /** Data, its manifest included, and everything with parity. */
  readonly shippedBytes: number
  readonly storedBytes: number
}

export interface RapidEpoch {
  /** After the first was due. */
  readonly dueMs: number
  readonly committedMs: number
  readonly pauseMs: number
  readonly prepareMs: number
  readonly pagesChanged: number
}

/** A line of the guest's, for the other process. */
export interface Answer {
  readonly kind: string
  readonly pages: number
  readonly us: number
}

const GROUP = 'capture'
const BOOT_MS = 300_000
const ANSWER_MS = 60_000
const ASK_AGAIN_MS = 3_000
/** As the driver gives the threads that run the guest (hypervisor/vcpus.ts). */
const GUEST_NICE = 5

class CapturePeer {
  readonly #options: PeerOptions
  readonly #hypervisor: Hypervisor
  readonly #sink: Sink
  readonly #bench: ProcessCalls<BenchCalls>
  readonly #log = memoryLog()
  readonly #vm: LocalVm
  readonly #idleBytes: number
  #machine: Machine | undefined
  #ended: string | undefined
  #epoch = 0
  #questions = 0
  /** Whether RAM is looked at in the next pause, and how long that took. */
  #looks = false
  #lookedMs = 0

  constructor(
    options: PeerOptions,
    parts: { hypervisor: Hypervisor; guest: { kernel: string; initrd: string }; bench: ProcessCalls<BenchCalls> }
  ) {
    const { memoryMiB, fillMiB, folder, disks } = options
    this.#options = options
    this.#hypervisor = parts.hypervisor
    this.#bench = parts.bench
    this.#sink = new Sink(folder)
    const log = this.#log
    const transport = new MemoryNetwork().transport('p')
    const network = createSwitch({ self: 'p', transport, clock, log, mayAct: () => true })
    const spec = {
      ...bankVm(parts.guest, { index: 1, total: 1, memoryMiB, run: 'load', fillMiB }),
      ...(disks && { disks })
    }
    const record = { ...recordOf({ [spec.id]: 'p' }), id: GROUP, vms: [spec] }
    network.setGroup(record)
    const { hypervisor } = parts
    const facts = { accel: hypervisor.accel, key: new Uint8Array(32).fill(9), shape: SHAPE, cluster: this.#sink, log }
    const define: Hypervisor['define'] = machine => this.#watched(hypervisor.define(machine))
    this.#vm = new LocalVm(
      record,
      spec,
      {
        hypervisor: { ...hypervisor, define },
        network,
        clock,
        wallMs,
        serveBlocks: blockServing(log),
        log,
        openWorker: async (group, { id, disks: ownDisks = [] }) =>
          await createImageWorker({
            group,
            vm: id,
            memoryMiB,
            disks: ownDisks.map(({ sizeMiB }) => ({ blocks: sizeMiB * 256 })),
            ...facts
          }),
        path: (kind, _, vm) => this.#path(kind, vm)
      },
      reason => (this.#ended = reason)
    )
    this.#idleBytes = memoryOf('VmRSS')
  }

  async boot() {
    await this.#vm.boot(0, Promise.resolve())
    await this.#answer(0, BOOT_MS)
    const { accel, description } = this.#hypervisor
    return { accel, description, pid: this.#vm.pid ?? 0, bootBytes: memoryOf('VmRSS') - this.#idleBytes }
  }

  /** `write 10 8 100` or the like: a command of load.c without its number, and what the guest answers. */
  async tell(command: string): Promise<Answer> {
    const id = ++this.#questions
    const [verb, ...rest] = command.split(' ')
    const line = [verb, id, ...rest].join(' ')
    const { kind, value } = await this.#answer(id, ANSWER_MS, `\n${line}\n`)
    if (kind === 'error') throw new Error(`the guest cannot: ${line}: error ${value('error')}`)
    return { kind, pages: value('pages'), us: value('us') }
  }

  /** One epoch, committed. With `look` the other process compares RAM in its pause. */
  async cut(look: boolean): Promise<EpochCost> {
    const epoch = ++this.#epoch
    this.#looks = look
    this.#lookedMs = 0
    writeFileSync('/proc/self/clear_refs', '5') // the peak begins anew: proc(5)
    const [before, storedBefore] = [usage(this.#vm.pid ?? 0), this.#sink.bytesPut]
    const fromMs = performance.now()
    const { manifest, pauseMs, prepareMs } = await this.#take(epoch)
    const seconds = (performance.now() - fromMs - this.#lookedMs) / 1000
    const after = usage(this.#vm.pid ?? 0)
    const peakBytes = memoryOf('VmHWM') - this.#idleBytes
    const manifestBytes = encodeManifest(manifest).objects.reduce((sum, { bytes }) => sum + bytes.length, 0)
    return {
      pauseMs: pauseMs - this.#lookedMs,
      seconds,
      prepareMs,
      peerCpuS: after.peerS - before.peerS,
      guestCpuS: after.guestS - before.guestS,
      qemuCpuS: Math.max(0, after.qemuS - before.qemuS - (after.guestS - before.guestS)),
      readBytes: after.readBytes - before.readBytes,
      peakBytes,
      pagesChanged: manifest.stats.pagesChanged,
      shippedBytes: manifest.stats.bytesData + manifestBytes,
      storedBytes: this.#sink.bytesPut - storedBefore + manifestBytes * HOLDERS.length
    }
  }

  /** `count` epochs, one due every `intervalMs`; one that is late delays the next. */
  async rapid({ count, intervalMs }: { count: number; intervalMs: number }): Promise<RapidEpoch[]> {
    this.#looks = false
    const epochs: RapidEpoch[] = []
    const fromMs = performance.now()
    for (let i = 0; i < count; i++) {
      const dueMs = i * intervalMs
      await sleep(Math.max(0, fromMs + dueMs - performance.now()))
      const { manifest, pauseMs, prepareMs } = await this.#take(++this.#epoch)
      const { pagesChanged } = manifest.stats
      epochs.push({ dueMs, committedMs: performance.now() - fromMs, pauseMs, prepareMs, pagesChanged })
    }
    return epochs
  }

  async close(): Promise<void> {
    await this.#vm.destroy()
  }

  async #take(epoch: number) {
    let times = { pauseMs: Number.NaN, prepareMs: Number.NaN }
    const hurry = new Promise<void>(() => {})
    const words = { copying: () => {}, mayCut: () => Promise.resolve(), rests: () => false, hurry }
    const { manifest } = await this.#vm.cut(
      epoch,
      { holders: HOLDERS, peers: HOLDERS },
      words,
      ({ pauseMs, prepareMs }) => {
        times = { pauseMs, prepareMs }
      }
    )
    this.#vm.committed(epoch)
    return { manifest, ...times }
  }

  /** Lets the other process look at RAM when everything that a pause is for has been done. */
  #watched(machine: Machine): Machine {
    this.#machine = machine
    const cut: Machine['cut'] = (path, stopped) =>
      machine.cut(path, async () => {
        await stopped()
        if (this.#looks) await this.#look()
      })
    return new Proxy(machine, {
      get: (target, name) => {
        const value: unknown = name === 'cut' ? cut : Reflect.get(target, name)
        return typeof value === 'function' && name !== 'cut' ? value.bind(target) : value
      }
    })
  }

  async #look(): Promise<void> {
    const fromMs = performance.now()
    const ramPath = this.#machine?.tracking?.ramPath
    const bytes = this.#options.memoryMiB * 1_048_576
    await this.#bench.call('look', { bytes, pid: this.#vm.pid ?? 0, ...(ramPath !== undefined && { ramPath }) })
    this.#lookedMs += performance.now() - fromMs
  }

  /** Asked again where it does not come: a guest that is busy loses what its serial port has no room for. */
  async #answer(id: number, limitMs: number, question?: string): Promise<SpeedReport> {
    const fromMs = performance.now()
    let askedMs = -Infinity
    for (;;) {
      if (question !== undefined && performance.now() - askedMs > ASK_AGAIN_MS) {
        askedMs = performance.now()
        await this.#vm.type(question)
      }
      const text = await readFile(this.#path('console', this.#vm.spec.id), 'latin1').catch(() => '')
      const report = parseSpeed(text).find(each => each.id === id)
      if (report) return report
      if (this.#ended !== undefined) throw new Error(`the VM has ended: ${this.#ended}`)
      if (performance.now() - fromMs > limitMs) throw new Error(`the guest said nothing in ${limitMs} ms: ${text}`)
      await sleep(10)
    }
  }

  #path(kind: string, vm: string): string {
    return join(this.#options.folder, `${kind}.${vm}`)
  }
}

/** Of this process, its helper and a QEMU, since they began. */
function usage(qemu: number): { peerS: number; guestS: number; qemuS: number; readBytes: number } {
  const { user, system } = process.cpuUsage()
  const guest = readdirSync(`/proc/${qemu}/task`).map(task => guestS(`/proc/${qemu}/task/${task}`))
  const helpers = children().filter(pid => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('tracker\0serve'))
  const helperS = helpers.reduce((sum, pid) => sum + ranS(`/proc/${pid}`), 0)
  return {
    peerS: (user + system) / 1e6 + helperS,
    guestS: guest.reduce((sum, each) => sum + each, 0),
    qemuS: processorUs([qemu]) / 1e6,
    readBytes: Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'latin1'))?.[1])
  }
}

const children = (): number[] =>
  readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number)

/** Of a thread that runs the guest; 0 of another. */
function guestS(task: string): number {
  const stat = readFileSync(`${task}/stat`, 'latin1')
  const nice = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16])
  return nice === GUEST_NICE ? ranS(task) : 0
}

const ranS = (task: string): number => Number(readFileSync(`${task}/schedstat`, 'latin1').split(' ')[0]) / 1e9

const memoryOf = (name: 'VmRSS' | 'VmHWM'): number =>
  Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'latin1'))?.[1]) * 1024

function handlers(peer: () => Promise<CapturePeer>) {
  return {
    boot: async () => (await peer()).boot(),
    tell: async (command: string) => (await peer()).tell(command),
    cut: async (look: boolean) => (await peer()).cut(look),
    rapid: async (request: { count: number; intervalMs: number }) => (await peer()).rapid(request),
    close: async () => (await peer()).close()
  }
}

export type PeerCalls = ReturnType<typeof handlers>

async function open(bench: ProcessCalls<BenchCalls>): Promise<CapturePeer> {
  const options = JSON.parse(process.argv[2] ?? '{}') as PeerOptions
  const { folder, capture } = options
  mkdirSync(folder, { recursive: true })
  const guest = await buildGuest()
  const settings = {
    qemu: 'qemu-system-x86_64',
    accel: 'auto',
    trialMs: 5_000,
    capture,
    ramDir: '/dev/shm'
  } as const
  const log = memoryLog()
  const hypervisor = await createQemuHypervisor({ settings, peer: `bench-${process.pid}`, runDir: folder, log, clock })
  return new CapturePeer(options, { hypervisor, guest, bench })
}

if (process.send) {
  goFirst()
  const calls: ProcessCalls<BenchCalls> = new ProcessCalls(
    process,
    handlers(() => peer)
  )
  const peer = open(calls)
  peer.catch(() => {}) // whoever calls is told
  process.on('disconnect', () => process.exit(0))
}
