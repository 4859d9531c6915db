/**
 * Real VMs of one host, cut and restored through real image workers and shards in memory, and their RAM to compare with. They
 * may have disks, which are frozen at cuts as they must, and are no part of these images.
 */
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import type {
  CaptureNow,
  Hypervisor,
  ImageManifest,
  ImageWorker,
  Log,
  Machine,
  NicEnd,
  PageRanges
} from '../../node/ports.ts'
import { disksOf, type VmSpec } from '../../protocols/group.ts'
import { parseConsole } from '../guest/console.ts'
import { frameLog } from '../unit/frame-logs.ts'
import { MemoryCluster } from '../unit/image/support.ts'
import { ramOfImage } from './image-ram.ts'
import { clock, quietLog } from './real-clock.ts'

const MIB = 1_048_576
const PAGE_BYTES = 4096
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const SHAPE = { k: 3, m: 2, symbolBytes: 65_536 }

/** An epoch as it was taken, and RAM while the VM stood still for it. */
export interface Cut {
  readonly image: ImageManifest
  readonly ram: Buffer
  readonly pauseMs: number
  readonly mode: CaptureNow['mode']
}

/** Moments of a cut, at which a test may do something. */
export type Moment = 'before its first round' | 'in its pause, before the last pages' | 'in its pause, after them'

export class OneHost {
  readonly cluster = new MemoryCluster()
  readonly folder: string
  readonly hypervisor: Hypervisor
  readonly #cleanUps: (() => unknown)[] = []

  private constructor(folder: string, hypervisor: Hypervisor) {
    this.folder = folder
    this.hypervisor = hypervisor
  }

  static async open(capture: 'dirty' | 'portable', log: Log = quietLog): Promise<OneHost> {
    const folder = await mkdtemp(join(tmpdir(), 'oh-'))
    const settings = {
      qemu: 'qemu-system-x86_64',
      accel: 'auto',
      capture,
      ramDir: '/dev/shm',
      trialMs: 10_000
    } as const
    const peer = `one-host-${process.pid}`
    return new OneHost(folder, await createQemuHypervisor({ settings, peer, runDir: folder, log, clock }))
  }

  /** A VM that is not started. Each of its NICs is plugged into what `ends` names, or into one that forgets what it gets. */
  async define(name: string, spec: VmSpec, ends?: readonly NicEnd[]): Promise<OneVm> {
    const consolePath = join(this.folder, `${name}.log`)
    await writeFile(consolePath, '')
    const plugged = ends ?? [await this.#plug(join(this.folder, `${name}.nic`))]
    const exit = { reason: '' }
    const onExit = (reason: string) => void (exit.reason = reason)
    const starts = disksOf(spec).map(() => ({ kind: 'new' }) as const)
    const disks = { folder: join(this.folder, `${name}.layers`), starts }
    const machine = this.hypervisor.define({ spec, ends: plugged, consolePath, disks, onExit })
    const worker = await createImageWorker({ ...this.factsOf(spec), cluster: this.cluster, log: quietLog })
    const vm = new OneVm(this, { name, spec, machine, worker, consolePath, exit })
    this.#cleanUps.push(() => vm.end())
    return vm
  }

  /** Two ends of NICs, back to back. */
  async wire(name: string): Promise<readonly [NicEnd, NicEnd]> {
    const paths = [join(this.folder, `${name}.a`), join(this.folder, `${name}.b`)] as const
    const sockets: Socket[] = []
    for (const path of paths) {
      await this.#listen(path, socket => {
        sockets.push(socket)
        if (sockets.length === 2) sockets[0]?.pipe(socket).pipe(sockets[0])
      })
    }
    return [
      { kind: 'stream', path: paths[0] },
      { kind: 'stream', path: paths[1] }
    ]
  }

  async close(): Promise<void> {
    for (const cleanUp of this.#cleanUps.splice(0).reverse()) await cleanUp()
    await rm(this.folder, { recursive: true, force: true })
  }

  factsOf({ id, memoryMiB }: VmSpec) {
    const { accel } = this.hypervisor
    return { group: 'g', vm: id, memoryMiB, accel, key: new Uint8Array(32).fill(9), shape: SHAPE, disks: [] }
  }

  async #plug(path: string): Promise<NicEnd> {
    await this.#listen(path, socket => void socket.resume())
    return { kind: 'stream', path }
  }

  async #listen(path: string, onSocket: (socket: Socket) => void): Promise<void> {
    const server = createServer(socket => onSocket(socket.on('error', () => {})))
    await new Promise<void>(resolve => server.listen(path, resolve))
    this.#cleanUps.push(() => server.close())
  }
}

export class OneVm {
  readonly host: OneHost
  readonly name: string
  readonly spec: VmSpec
  readonly machine: Machine
  readonly worker: ImageWorker
  readonly #consolePath: string
  /** What the image worker hears of the pages that were written; tests may spoil it. */
  heard: (pages: PageRanges) => PageRanges = pages => pages

  /** Why its QEMU has ended by itself; ''. */
  readonly #exit: { readonly reason: string }

  constructor(
    host: OneHost,
    parts: {
      name: string
      spec: VmSpec
      machine: Machine
      worker: ImageWorker
      consolePath: string
      exit: { readonly reason: string }
    }
  ) {
    this.#exit = parts.exit
    this.host = host
    this.name = parts.name
    this.spec = parts.spec
    this.machine = parts.machine
    this.worker = parts.worker
    this.#consolePath = parts.consolePath
  }

  console(): Promise<string> {
    return readFile(this.#consolePath, 'latin1')
  }

  /** Resolves when its console satisfies `seen`. */
  async says(what: string, seen: (console: string) => boolean, limitMs = 90_000): Promise<void> {
    for (const endMs = performance.now() + limitMs; !seen(await this.console()); await sleep(25)) {
      if (performance.now() > endMs) throw new Error(`${this.name} did not say ${what}`)
    }
  }

  /** Boots a bank and resolves when it reports. */
  async boot(): Promise<void> {
    await this.machine.start()
    await this.says('that its bank is open', console => parseConsole(console).length > 0)
  }

  /** The bank runs: it prints one more report than it has. */
  async goesOn(): Promise<void> {
    const before = parseConsole(await this.console()).length
    await this.says('anything more', console => parseConsole(console).length > before)
  }

  /** One epoch as an agent takes it, committed. `at` is awaited at these moments. */
  async cut(epoch: number, at: (moment: Moment) => Promise<void> = async () => {}): Promise<Cut> {
    const { machine, worker } = this
    const { tracking } = machine
    const { mode } = machine.capture
    const socketPath = join(this.host.folder, `${this.name}.cut${epoch}`)
    const ramPath = tracking && { ramPath: tracking.ramPath }
    const request = { generation: 1, epoch, socketPath, holders: HOLDERS, ...ramPath }
    const capture = await worker.capture(request).catch((cause: unknown) => {
      throw new Error(`${this.name} cannot be captured; its QEMU ${this.#exit.reason || 'runs'}`, { cause })
    })
    const written = async () => (tracking ? this.heard(await tracking.changed()) : new Uint32Array(0))
    try {
      await at('before its first round')
      for (let round = 0; tracking && round < 2; round++) await capture.copy(await written())
      let ram: Buffer = Buffer.alloc(0)
      const { streamed, pauseMs, layers } = await machine.cut(socketPath, async () => {
        await at('in its pause, before the last pages')
        if (tracking) await capture.copyLast(await written())
        await at('in its pause, after them')
        ram = tracking ? await readFile(tracking.ramPath) : await ramOfProcess(machine.pid ?? 0, this.spec.memoryMiB)
      })
      const [image] = await Promise.all([capture.finish(frameLog()), streamed])
      worker.commit(epoch)
      machine.disks.release(layers)
      return { image, ram, pauseMs, mode }
    } catch (error) {
      await capture.cancel()
      worker.abort(epoch)
      if (this.#exit.reason === '') throw error
      const last = (await this.console()).slice(-500)
      throw new Error(`the QEMU of ${this.name} ${this.#exit.reason}, and its guest said last: ${last}`, {
        cause: error
      })
    }
  }

  /** Pages of an image that are not as `ram`. */
  async wrongPages({ image, ram }: Pick<Cut, 'image' | 'ram'>): Promise<number[]> {
    return differentPages(await ramOfImage(this.host.factsOf(this.spec), image, this.host.cluster), ram)
  }

  /** Starts it from an image. */
  async resume(image: ImageManifest): Promise<void> {
    const restore = await this.worker.restore(image)
    const socketPath = join(this.host.folder, `${this.name}.in`)
    let serving: Promise<unknown> | undefined
    await this.machine.startIncoming(socketPath, () => {
      serving = restore.serve(socketPath)
    })
    await serving
    await this.machine.incomingComplete()
  }

  async end(): Promise<void> {
    await this.machine.destroy()
    await this.worker.close()
  }
}

/** RAM of a QEMU, whether it is a file or its own: the one mapping of that size. Right where its VM stands still. */
export async function ramOfProcess(pid: number, memoryMiB: number): Promise<Buffer> {
  const bytes = memoryMiB * MIB
  const maps = (await readFile(`/proc/${pid}/maps`, 'latin1')).split('\n')
  const starts = maps.flatMap(line => {
    const [, from = '', to = ''] = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? []
    const start = Number.parseInt(from, 16)
    return Number.parseInt(to, 16) - start === bytes ? [start] : []
  })
  const [start] = starts
  if (start === undefined || starts.length !== 1)
    throw new Error(`QEMU ${pid} has ${starts.length} mappings of ${bytes} B`)
  const ram = Buffer.alloc(bytes)
  const memory = await open(`/proc/${pid}/mem`, 'r')
  try {
    for (let at = 0; at < bytes; )
      at += (await memory.read(ram, at, Math.min(bytes - at, 64 * MIB), start + at)).bytesRead
  } finally {
    await memory.close()
  }
  return ram
}

export function differentPages(one: Buffer, other: Buffer): number[] {
  if (one.length !== other.length) throw new Error(`RAM of ${one.length} and of ${other.length} bytes`)
  const wrong: number[] = []
  if (one.equals(other)) return wrong
  for (let at = 0; at < one.length; at += PAGE_BYTES) {
    if (one.compare(other, at, at + PAGE_BYTES, at, at + PAGE_BYTES) !== 0) wrong.push(at / PAGE_BYTES)
  }
  return wrong
}
