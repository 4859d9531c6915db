/**
 * The VM of `agree`, of any number of lives: started from its base or from an image, cut as an agent cuts it, with the
 * peer's own hypervisor, image worker and disks over NBD. Shards are in memory.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalDisks } from '../../node/agents/local-disks.ts'
import { DiskLayers } from '../../node/hypervisor/disk-layers.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type {
  DiskFile,
  Hypervisor,
  ImageManifest,
  ImageWorker,
  Machine,
  MachineDisks,
  Restore
} from '../../node/ports.ts'
import { disksOf, type VmSpec } from '../../protocols/group.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { buildGuest } from '../guest/build.ts'
import { type CounterReport, counterVm, makeCounterDisk, parseCounter } from '../guest/counter.ts'
import { frameLog } from '../unit/frame-logs.ts'
import { MemoryCluster } from '../unit/image/support.ts'

const GROUP = 'agree'
const MEMORY_MIB = 96
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
/** The first has ext4 on it, the second is written without a file system. */
const SIZES_MIB = [64, 8] as const
/** Random bytes that lie on the first from the start: a base that is not all zeros. */
const BASE_MIB = 6
/**
 * As long as a restored VM needs to be asked what it sees, its steps may not reach around its rings: 1,024 are 4 s at 250
 * a second, which is as fast as it counts under TCG.
 */
export const RING_SLOTS = 1_024
/** Between two steps: it counts as fast as its disks let it. */
const INTERVAL_US = 1
const LIMIT_MS = 60_000
/** Rounds of copying before a dirty cut, as an agent makes. */
const ROUNDS = 2
/** A disk that is frozen so much later than RAM, with `--sabotage late-layer`: a few steps of the counter. */
const LATE_MS = 20

export type Mode = 'dirty' | 'portable'

export interface Taken {
  readonly image: ImageManifest
  readonly mode: Mode
  readonly pauseMs: number
}

export class AgreeRig {
  readonly cluster = new MemoryCluster()
  readonly folder: string
  readonly spec: VmSpec
  readonly hypervisor: Hypervisor
  #lives = 0
  #epoch = 0

  private constructor(folder: string, spec: VmSpec, hypervisor: Hypervisor) {
    this.folder = folder
    this.spec = spec
    this.hypervisor = hypervisor
  }

  static async open(): Promise<AgreeRig> {
    const folder = await mkdtemp(join(tmpdir(), 'ag-'))
    const files = join(folder, 'files')
    await mkdir(files)
    await writeFile(join(files, 'big'), randomBytes(BASE_MIB << 20))
    const path = join(folder, 'base.raw')
    await makeCounterDisk(path, SIZES_MIB[0], files)
    const disks = [{ sizeMiB: SIZES_MIB[0], base: { path, format: 'raw' as const } }, { sizeMiB: SIZES_MIB[1] }]
    const sizes = { memoryMiB: MEMORY_MIB, slots: RING_SLOTS, intervalUs: INTERVAL_US }
    const spec = counterVm(await buildGuest(), { ...sizes, disks })
    const settings = {
      qemu: 'qemu-system-x86_64',
      accel: 'auto',
      capture: 'dirty',
      ramDir: '/dev/shm',
      trialMs: 10_000
    } as const
    const peer = `agree-${process.pid}`
    return new AgreeRig(
      folder,
      spec,
      await createQemuHypervisor({ settings, peer, runDir: folder, log: quietLog, clock })
    )
  }

  get facts() {
    return {
      group: GROUP,
      vm: this.spec.id,
      memoryMiB: MEMORY_MIB,
      accel: this.hypervisor.accel,
      key: new Uint8Array(32).fill(9),
      shape: { k: 3, m: 2, symbolBytes: 65_536 },
      disks: disksOf(this.spec).map(({ sizeMiB }) => ({ blocks: sizeMiB * 256 }))
    }
  }

  openWorker(): Promise<ImageWorker> {
    return createImageWorker({ ...this.facts, cluster: this.cluster, log: quietLog })
  }

  nextEpoch(): number {
    return ++this.#epoch
  }

  /** From its base. */
  async boot(mode: Mode): Promise<Life> {
    const life = await this.#define(mode, async disks => disks.fresh())
    try {
      await life.machine.start()
      await life.says('that it counts', reports => reports[0])
      return life
    } catch (error) {
      await life.end()
      throw error
    }
  }

  /** From an image; its disks come while it runs. Resolves when all of its RAM is there. */
  async restore(image: ImageManifest, mode: Mode): Promise<Life> {
    let restoring: Promise<Restore> | undefined
    const life = await this.#define(mode, (disks, worker) => {
      restoring = worker.restore(image)
      return disks.restored(restoring)
    })
    try {
      const restore = await restoring
      const socketPath = `${life.path}.in`
      let serving: Promise<unknown> | undefined
      await life.machine.startIncoming(socketPath, () => {
        serving = restore?.serve(socketPath)
      })
      life.disks.begun(life.machine)
      await serving
      await life.machine.incomingComplete()
      return life
    } catch (error) {
      await life.end()
      throw error
    }
  }

  async close(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }

  async #define(
    mode: Mode,
    begin: (disks: LocalDisks, worker: ImageWorker) => Promise<MachineDisks | undefined>
  ): Promise<Life> {
    const generation = ++this.#lives
    const path = join(this.folder, `${generation}`)
    const consolePath = `${path}.log`
    await writeFile(consolePath, '')
    const worker = await this.openWorker()
    const spec = { ...this.spec, capture: mode }
    const deps = {
      clock,
      log: quietLog,
      serveBlocks: blockServing(quietLog),
      path: (kind: string) => `${path}.${kind}`
    }
    const disks = new LocalDisks(spec, { group: GROUP, generation }, deps)
    const exit = { reason: '' }
    const machine = this.hypervisor.define({
      spec,
      ends: [],
      consolePath,
      disks: await begin(disks, worker),
      onExit: reason => void (exit.reason = reason)
    })
    return new Life(this, { path, generation, mode, machine, worker, disks, exit })
  }
}

interface Parts {
  /** What the names of its files begin with. */
  readonly path: string
  readonly generation: number
  readonly mode: Mode
  readonly machine: Machine
  readonly worker: ImageWorker
  readonly disks: LocalDisks
  /** Why its QEMU has ended by itself; ''. */
  readonly exit: { readonly reason: string }
}

/** The VM from a start to its end. */
export class Life {
  readonly machine: Machine
  readonly disks: LocalDisks
  readonly path: string
  readonly #rig: AgreeRig
  readonly #parts: Parts
  #commands = 0

  constructor(rig: AgreeRig, parts: Parts) {
    this.#rig = rig
    this.#parts = parts
    this.machine = parts.machine
    this.disks = parts.disks
    this.path = parts.path
  }

  /** Types a command and gives its answer. Ids are of this life: an image may hold a command, but not its answer. */
  async told(command: string, rest = ''): Promise<CounterReport> {
    const id = this.#parts.generation * 1_000 + ++this.#commands
    await this.machine.type(`${command} ${id} ${rest}\n`)
    return await this.says(`what it was asked: ${command}`, reports => reports.find(report => report.id === id))
  }

  async says<T>(what: string, found: (reports: readonly CounterReport[]) => T | undefined): Promise<T> {
    for (const endMs = clock.now() + LIMIT_MS; ; await sleep(10)) {
      const answer = found(parseCounter(await readFile(`${this.path}.log`, 'latin1')))
      if (answer !== undefined) return answer
      const { reason } = this.#parts.exit
      if (reason !== '') throw new Error(`its QEMU ${reason}`)
      if (clock.now() > endMs) throw new Error(`it did not say ${what}`)
    }
  }

  /** One epoch as an agent takes it. `late`: its disks are frozen when it runs again, which is wrong. */
  async cut({ aborted, late }: { readonly aborted: boolean; readonly late: boolean }): Promise<Taken> {
    const { machine, worker, disks, generation, mode } = this.#parts
    const epoch = this.#rig.nextEpoch()
    const { tracking } = machine
    if (machine.capture.mode !== mode) throw new Error(`it is not captured ${mode}: ${machine.capture.why}`)
    const socketPath = `${this.path}.${epoch}`
    const ramPath = tracking && { ramPath: tracking.ramPath }
    const capture = await worker.capture({ generation, epoch, socketPath, holders: HOLDERS, ...ramPath })
    try {
      for (let round = 0; tracking && round < ROUNDS; round++) await capture.copy(await tracking.changed())
      await machine.prepareCut()
      const stopped = async () => {
        if (tracking) await capture.copyLast(await tracking.changed())
      }
      const cut = late ? await lateCut(machine, socketPath, stopped) : await machine.cut(socketPath, stopped)
      const { streamed, pauseMs, layers } = cut
      const [image] = await Promise.all([capture.finish(frameLog(), disks.cutTo(epoch, layers)), streamed])
      if (aborted) worker.abort(epoch)
      else {
        worker.commit(epoch)
        disks.committed(epoch, machine)
      }
      return { image, mode, pauseMs }
    } catch (error) {
      await capture.cancel()
      throw error
    }
  }

  async end(): Promise<void> {
    const { machine, worker, disks } = this.#parts
    await machine.destroy()
    await worker.close()
    await disks.end()
  }
}

async function lateCut(machine: Machine, socketPath: string, stopped: () => Promise<void>) {
  const { disks } = machine
  if (!(disks instanceof DiskLayers)) throw new TypeError('this sabotage knows the disks of QEMU only')
  const freeze = disks.freeze.bind(disks)
  disks.freeze = async () => {}
  const cut = await machine.cut(socketPath, stopped)
  await sleep(LATE_MS)
  await freeze()
  disks.freeze = freeze
  const layers: readonly DiskFile[] = disks.frozen
  return { ...cut, layers }
}
