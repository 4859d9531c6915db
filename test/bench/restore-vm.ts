/**
 * The VM of a host of `restore-host.ts`, of any number of lives: booted or resumed as an agent does it, by `LocalVm` with the
 * peer's own hypervisor, switch and image worker. Its guest is `load.c`.
 */
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { configSchema } from '../../config/schema.ts'
import { LocalVm, type LocalVmDeps } from '../../node/agents/local-vm.ts'
import { StandbyCopy, type StandbyParts } from '../../node/agents/standby-copy.ts'
import { wallMs } from '../../node/host/clock.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import type { VmFacts } from '../../node/image/facts.ts'
import { ImageThreads } from '../../node/image/image-threads.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { readManifest } from '../../node/image/manifest.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type {
  Hypervisor,
  ImageManifest,
  ImageWorker,
  Machine,
  ShardCluster,
  Switch,
  Transport
} from '../../node/ports.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import type { CommittedEpoch, GroupRecord, VmSpec } from '../../protocols/group.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { parseSpeed, type SpeedReport } from '../guest/speed.ts'
import { type Delivered, DeliveredRam, type Look } from './restore-delivered.ts'

export interface VmSize {
  readonly memoryMiB: number
  readonly fillMiB: number
}

/** A line of the guest's. */
export interface Answer {
  readonly kind: string
  readonly pages: number
  /** Of `sum`. */
  readonly hash: number
}

export interface CutTaken {
  readonly epoch: number
  readonly pauseMs: number
  /** SHA-256 of all of RAM as it was while the VM stood still. */
  readonly ramHash: string
}

/** plain: as an image that has no working set. standby: on a copy, which `standBy` makes. */
export type Way = 'plain' | 'working set' | 'standby'

export interface ImageName {
  readonly hash: string
  readonly epoch: number
}

export interface ResumeWish extends ImageName {
  /** What the guest is asked as soon as it runs: a command of load.c without its number. */
  readonly question: string
  readonly way: Way
  /** Whether what QEMU is handed is looked at on its way, which costs time. */
  readonly look: Look
}

/** Milliseconds since the decision. */
export interface Resumed {
  readonly runMs: number
  readonly answerMs: number
  readonly answer: Answer
  /** Of images and manifests, that had come when it ran. */
  readonly bytesBefore: number
}

export interface Completed {
  /** Since the decision. */
  readonly completeMs: number
  readonly pagesFaulted: number
  readonly pagesPushed: number
  readonly delivered: Delivered | undefined
}

/** What lets it work with shards that count what is read. */
type CountedShards = ShardCluster & { readonly bytesRead: number }

interface VmParts extends VmSize {
  readonly folder: string
  readonly transport: Transport
  readonly shards: CountedShards
  readonly shape: VmFacts['shape']
}

const GROUP = 'restore'
const BOOT_MS = 300_000
const ANSWER_MS = 120_000
const ASK_AGAIN_MS = 5_000
const LOOK_MS = 1
const PIECE_BYTES = 4 << 20

export class VmOnHost {
  readonly #parts: VmParts
  readonly #spec: VmSpec
  readonly #hypervisor: Hypervisor
  readonly #network: Switch
  /** As in a peer, where one waits for the next restore. */
  readonly #threads = new ImageThreads()
  #vm: LocalVm | undefined
  #machine: Machine | undefined
  #standby: StandbyCopy | undefined
  #standbys = 0
  #ended: string | undefined
  #generation = 0
  #epoch = 0
  /** An image may hold a question, but not its answer: numbers of other hosts' questions are others. */
  #questions = process.pid * 1_000
  #ramHash = ''
  #restoring: { fromMs: number; complete: Promise<{ pagesFaulted: number; pagesPushed: number }> } | undefined
  #delivered: DeliveredRam | undefined
  #look: Look = 'no'

  private constructor(parts: VmParts, spec: VmSpec, hypervisor: Hypervisor) {
    this.#parts = parts
    this.#spec = spec
    this.#hypervisor = hypervisor
    const { transport } = parts
    this.#network = createSwitch({ self: transport.self, transport, clock, log: quietLog, mayAct: () => true })
  }

  static async open(parts: VmParts): Promise<VmOnHost> {
    const { memoryMiB, fillMiB, folder } = parts
    const spec = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB, run: 'load', fillMiB })
    const settings = configSchema.shape.hypervisor.parse({})
    const peer = `bench-${process.pid}`
    return new VmOnHost(
      parts,
      spec,
      await createQemuHypervisor({ settings, peer, runDir: folder, log: quietLog, clock })
    )
  }

  /** Resolves when the guest has filled its memory. */
  async boot(): Promise<{ accel: 'kvm' | 'tcg'; spec: VmSpec }> {
    await this.#define(null).boot(0, Promise.resolve())
    await this.#answer(0, BOOT_MS)
    return { accel: this.#hypervisor.accel, spec: this.#spec }
  }

  /** `write 10 8 100` or the like: a command of load.c without its number, and what the guest answers. */
  async tell(command: string): Promise<Answer> {
    const id = ++this.#questions
    const [verb, ...rest] = command.split(' ')
    const { kind, value } = await this.#answer(id, ANSWER_MS, `\n${[verb, id, ...rest].join(' ')}\n`)
    if (kind === 'error') throw new Error(`the guest cannot: ${command}: error ${value('error')}`)
    return { kind, pages: value('pages'), hash: value('hash') }
  }

  async cut(holders: readonly string[]): Promise<CutTaken & { manifest: ImageManifest }> {
    const epoch = ++this.#epoch
    let pauseMs = Number.NaN
    const hurry = new Promise<void>(() => {})
    const words = { copying: () => {}, mayCut: () => Promise.resolve(), rests: () => false, hurry }
    const placed = { holders, peers: holders }
    const { manifest } = await this.#life.cut(epoch, placed, words, report => (pauseMs = report.pauseMs))
    this.#life.committed(epoch)
    return { epoch, pauseMs, ramHash: this.#ramHash, manifest }
  }

  /** From the decision that it is to run here to its first answer. */
  async resume({ hash, epoch, question, way, look }: ResumeWish): Promise<Resumed> {
    const fromMs = clock.now()
    const { shards } = this.#parts
    const bytesFrom = shards.bytesRead
    this.#epoch = epoch
    this.#look = look
    const committed = this.#committed({ hash, epoch })
    const vm = this.#define(committed)
    const standby = way === 'standby' ? await this.#taken(hash) : undefined
    const manifest = standby ? new Promise<never>(() => {}) : this.#manifest(hash)
    const wanted = way === 'plain' ? manifest.then(withoutWorkingSet) : manifest
    const { complete } = await vm.resumeFrom(committed, wanted, Promise.resolve(), standby)
    const [runMs, bytesBefore] = [clock.now() - fromMs, shards.bytesRead - bytesFrom]
    this.#restoring = { fromMs, complete }
    // Where its pages cannot come any more it never answers.
    const broken = complete.then(() => new Promise<never>(() => {}))
    const answer = await Promise.race([this.tell(question), broken])
    return { runMs, answerMs: clock.now() - fromMs, answer, bytesBefore }
  }

  /** Makes a copy of that image for the next `resume`, and resolves when a machine waits on it; how long that took. */
  async standBy(image: ImageName): Promise<number> {
    const fromMs = clock.now()
    const of = { group: GROUP, spec: this.#spec, committed: this.#committed(image), number: ++this.#standbys }
    const deps = { vm: this.#deps(), readManifest: (hash: string) => this.#manifest(hash) }
    const copy = new StandbyCopy(of, deps, why => (this.#ended = why))
    this.#standby = copy
    for (; copy.status.state !== 'ready'; await sleep(LOOK_MS)) {
      const { state, why } = copy.status
      if (state === 'ended' || state === 'failing') throw new Error(`there is no standby copy: ${why}`)
    }
    return clock.now() - fromMs
  }

  /** Resolves when all of its pages are here. */
  async complete(): Promise<Completed> {
    const { fromMs, complete } = this.#restoring ?? {}
    if (fromMs === undefined || complete === undefined) throw new TypeError('nothing is being restored')
    const counts = await complete
    return { ...counts, completeMs: clock.now() - fromMs, delivered: this.#delivered?.result() }
  }

  async end(): Promise<void> {
    await this.#vm?.destroy()
    this.#vm = undefined
  }

  openWorker(): Promise<ImageWorker> {
    const { shape, shards, memoryMiB } = this.#parts
    const { accel } = this.#hypervisor
    const key = new Uint8Array(32).fill(9)
    const facts = { group: GROUP, vm: this.#spec.id, memoryMiB, accel, key, shape, disks: [] }
    return createImageWorker({ ...facts, cluster: shards, log: quietLog, threads: this.#threads })
  }

  async #taken(hash: string): Promise<StandbyParts> {
    const parts = (await this.#standby?.take(hash, 0)) ?? 'nobody made one'
    if (typeof parts === 'string') throw new Error(`no standby copy can be taken: ${parts}`)
    return parts
  }

  #committed({ hash, epoch }: ImageName): CommittedEpoch {
    return { epoch, generation: this.#generation, previousEpoch: 0, images: { [this.#spec.id]: hash } }
  }

  #manifest(hash: string): Promise<ImageManifest> {
    return readManifest(hash, name => this.#parts.shards.getManifest(name))
  }

  get #life(): LocalVm {
    if (this.#vm === undefined) throw new TypeError('there is no VM here')
    return this.#vm
  }

  #define(committed: CommittedEpoch | null): LocalVm {
    const [generation, self] = [++this.#generation, this.#parts.transport.self]
    const owners = { [this.#spec.id]: self }
    const numbers = { version: generation, generation, lastEpoch: this.#epoch, open: null, removed: false }
    const record: GroupRecord = { id: GROUP, vms: [this.#spec], owners, committed, ...numbers }
    this.#network.setGroup(record)
    this.#ended = undefined
    writeFileSync(this.#consolePath, '')
    const vm = new LocalVm(record, this.#spec, this.#deps(), reason => (this.#ended = reason))
    this.#vm = vm
    return vm
  }

  #deps(): LocalVmDeps {
    const hypervisor = this.#hypervisor
    return {
      hypervisor: { ...hypervisor, define: machine => this.#watched(hypervisor.define(machine)) },
      network: this.#network,
      clock,
      wallMs,
      log: quietLog,
      serveBlocks: blockServing(quietLog),
      openWorker: async () => this.#listening(await this.openWorker()),
      path: (kind, _, vm) => this.#path(kind, vm)
    }
  }

  /** Hashes RAM in the pause of every cut. */
  #watched(machine: Machine): Machine {
    this.#machine = machine
    const cut: Machine['cut'] = (path, stopped) =>
      machine.cut(path, async () => {
        await stopped()
        this.#ramHash = await hashOf(this.#machine?.tracking?.ramPath)
      })
    return new Proxy(machine, {
      get: (target, name) => {
        const value: unknown = name === 'cut' ? cut : Reflect.get(target, name)
        return typeof value === 'function' && name !== 'cut' ? value.bind(target) : value
      }
    })
  }

  /** Stands between the image worker and QEMU where what passes there is to be seen. */
  #listening(worker: ImageWorker): ImageWorker {
    const look = this.#look
    if (look === 'no') return worker
    return {
      ...worker,
      restore: async manifest => {
        const restore = await worker.restore(manifest)
        return {
          ...restore,
          serve: async socketPath => {
            this.#delivered = await DeliveredRam.between(socketPath, this.#parts.memoryMiB, look)
            return await restore.serve(this.#delivered.path)
          }
        }
      }
    }
  }

  /** Asked again where it does not come: a guest that is busy loses what its serial port has no room for. */
  async #answer(id: number, limitMs: number, question?: string): Promise<SpeedReport> {
    const fromMs = clock.now()
    let askedMs = -Infinity
    for (;;) {
      if (question !== undefined && clock.now() - askedMs > ASK_AGAIN_MS) {
        askedMs = clock.now()
        await this.#life.type(question)
      }
      const text = await readFile(this.#consolePath, 'latin1')
      const report = parseSpeed(text).find(each => each.id === id)
      if (report) return report
      if (this.#ended !== undefined) throw new Error(`the VM has ended: ${this.#ended}`)
      if (clock.now() - fromMs > limitMs) throw new Error(`the guest said nothing in ${limitMs} ms: ${text}`)
      await sleep(LOOK_MS)
    }
  }

  get #consolePath(): string {
    return this.#path('console', this.#spec.id)
  }

  #path(kind: string, vm: string): string {
    return join(this.#parts.folder, `${kind}.${vm}`)
  }
}

/** As images of before there were working sets are. */
function withoutWorkingSet(manifest: ImageManifest): ImageManifest {
  const { boot: _, ...rest } = manifest
  return rest
}

/** '' where RAM is no file: then nobody can look. */
async function hashOf(ramPath: string | undefined): Promise<string> {
  if (ramPath === undefined) return ''
  const [hash, piece, file] = [createHash('sha256'), Buffer.alloc(PIECE_BYTES), await open(ramPath)]
  try {
    for (let at = 0; ; ) {
      const { bytesRead } = await file.read(piece, 0, PIECE_BYTES, at)
      if (bytesRead === 0) return hash.digest('hex')
      hash.update(piece.subarray(0, bytesRead))
      at += bytesRead
    }
  } finally {
    await file.close()
  }
}
