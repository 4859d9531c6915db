/**
 * Restores a group from an archived epoch in a network of its own: the peers' own code from shards to running VMs (reader,
 * image worker, post-copy, switch), on one switch in this process that no link leads out of. Then the bank is audited.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { configSchema, type ShardSettings } from '../../config/schema.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { LocalVm, type LocalVmDeps } from '../../node/agents/local-vm.ts'
import { createCodec } from '../../node/erasure/codec.ts'
import { messageOf } from '../../node/errors.ts'
import { wallMs } from '../../node/host/clock.ts'
import { groupSecret } from '../../node/composition/hosting.ts'
import { createQemuHypervisor } from '../../node/hypervisor/qemu.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type { Hypervisor, ImageManifest, ImageWorker, ShardCluster } from '../../node/ports.ts'
import { Fetcher, type ReadRanges } from '../../node/shards/fetcher.ts'
import { Holders } from '../../node/shards/holders.ts'
import { ColumnPlaces } from '../../node/shards/places.ts'
import { Reader } from '../../node/shards/reader.ts'
import { Sources } from '../../node/shards/sources.ts'
import { takeAddresses } from '../../node/switch/addresses.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { MemoryNetwork } from '../contract/switch-support.ts'
import { ConsoleWatcher } from '../demo/consoles.ts'
import { bankTotal } from '../guest/build.ts'
import { type BankReport, conservation } from '../guest/console.ts'
import type { ImageFrame, ImageFrames } from './cut-checker.ts'
import { stationAt } from './cut-checker-log.ts'
import type { Archived } from './epochs-archive.ts'

const SELF = 'isolated'
/** For VMs to run, their pages to come and an audit: ten times what a busy machine took. */
const LIMIT_MS = 60_000
/** Where VMs are asked again for an audit that they have not heard. */
const ASK_EVERY_MS = 1_000
const PREFIX_BYTES = 4
const AUDIT = 1

export interface IsolatedOptions {
  readonly archived: Archived
  readonly group: string
  readonly specs: readonly VmSpec[]
  readonly secret: Uint8Array
  readonly shards: ShardSettings
  /** Of the VMs when they booted. */
  readonly nonces: readonly string[]
}

export interface Restored {
  readonly epoch: number
  /** What is wrong with the bank; empty: every coin is there, every transfer came once, no connection broke. */
  readonly faults: readonly string[]
  /** Of all VMs' images; none where they could not be restored. */
  readonly frames: readonly ImageFrames[]
  /** Until the audit was complete. */
  readonly tookMs: number
}

export class Isolated {
  readonly #options: IsolatedOptions
  readonly #hypervisor: Hypervisor
  readonly #shards: ShardCluster
  readonly #dir: string
  #restores = 0

  private constructor(options: IsolatedOptions, dir: string, hypervisor: Hypervisor) {
    this.#options = options
    this.#dir = dir
    this.#hypervisor = hypervisor
    this.#shards = archivedShards(options.archived, options.shards.forcedTimeoutMs)
  }

  static async open(options: IsolatedOptions): Promise<Isolated> {
    const dir = mkdtempSync(join(tmpdir(), 'diapause-isolated-'))
    const settings = configSchema.shape.hypervisor.parse({})
    const hypervisor = await createQemuHypervisor({ settings, peer: SELF, runDir: dir, log: quietLog, clock })
    return new Isolated(options, dir, hypervisor)
  }

  /** Runs the group from this epoch until its bank was audited. Never rejects: what goes wrong is a fault. */
  async restore(epoch: number): Promise<Restored> {
    const startedMs = clock.now()
    const run = join(this.#dir, `${++this.#restores}`)
    mkdirSync(run)
    const frames = new Map(this.#options.specs.map(({ id }) => [id, [] as ImageFrame[]]))
    let images: ImageFrames[] = []
    const vms: LocalVm[] = []
    let faults: string[]
    try {
      faults = await this.#runAndAudit(epoch, run, vms, frames)
      images = [...frames].map(([vm, list]) => ({ vm, epoch, frames: list }))
    } catch (error) {
      faults = [messageOf(error)]
    }
    await Promise.all(vms.map(vm => vm.destroy()))
    rmSync(run, { recursive: true, force: true })
    return { epoch, faults, frames: images, tookMs: clock.now() - startedMs }
  }

  async close(): Promise<void> {
    for (const store of this.#options.archived.stores.values()) await store.close()
    rmSync(this.#dir, { recursive: true, force: true })
  }

  async #runAndAudit(
    epoch: number,
    run: string,
    vms: LocalVm[],
    frames: ReadonlyMap<string, ImageFrame[]>
  ): Promise<string[]> {
    const { group, specs, nonces } = this.#options
    const manifests = this.#manifestsOf(epoch)
    const committed = { epoch, generation: 1, previousEpoch: 0, images: {} }
    const owners = Object.fromEntries(specs.map(({ id }) => [id, SELF]))
    const numbers = { version: 1, generation: 1, lastEpoch: epoch, open: null, removed: false }
    const record: GroupRecord = { id: group, vms: specs, owners, committed, ...numbers }
    const deps = this.#deps(run, frames)
    deps.network.setGroup(record)
    const ended: string[] = []
    vms.push(...specs.map(spec => new LocalVm(record, spec, deps, reason => ended.push(`${spec.id}: ${reason}`))))
    const started = vms.map(async vm => {
      const manifest = Promise.resolve(manifests.get(vm.spec.id) as ImageManifest)
      const { complete } = await vm.resumeFrom(committed, manifest, Promise.resolve())
      await complete
    })
    await Promise.all(started)
    const audits = await audited(vms, new ConsoleWatcher([run], group, wallMs), ended)
    return faultsOf(audits, specs.length, nonces)
  }

  #manifestsOf(epoch: number): Map<string, ImageManifest> {
    const { archived, specs } = this.#options
    const found = new Map(archived.manifests.filter(each => each.epoch === epoch).map(each => [each.vm, each]))
    const missing = specs.filter(({ id }) => !found.has(id)).map(({ id }) => id)
    if (missing.length > 0) throw new Error(`no peer kept an image of ${missing.join(', ')}`)
    return found
  }

  #deps(run: string, frames: ReadonlyMap<string, ImageFrame[]>): LocalVmDeps {
    const { secret, group, shards } = this.#options
    const { k, m, symbolBytes } = shards
    const hypervisor = this.#hypervisor
    const key = groupSecret(secret, group)
    const transport = new MemoryNetwork().transport(SELF)
    return {
      hypervisor,
      network: createSwitch({ self: SELF, transport, clock, log: quietLog, mayAct: () => true }),
      clock,
      log: quietLog,
      wallMs,
      serveBlocks: blockServing(quietLog),
      openWorker: async (_, { id, memoryMiB }) => {
        const facts = {
          group,
          vm: id,
          memoryMiB,
          accel: hypervisor.accel,
          key,
          shape: { k, m, symbolBytes },
          disks: []
        }
        const worker = await createImageWorker({ ...facts, cluster: this.#shards, log: quietLog })
        return listening(worker, frames.get(id) ?? [])
      },
      path: (kind, of, vm) => join(run, kind === 'console' ? `${of}.${vm}.log` : `${vm}.${kind}`)
    }
  }
}

/** Shards as the archive has them; nothing can be put. */
function archivedShards({ stores }: Archived, forcedTimeoutMs: number): ShardCluster {
  const read: ReadRanges = async (peer, stream, grid, column, ranges) => {
    const store = stores.get(peer)
    if (store === undefined) throw new Error(`no disk of ${peer}`)
    return Buffer.concat(
      await Promise.all(ranges.map(({ offset, length }) => store.readColumn(stream, grid, column, offset, length)))
    )
  }
  const everybody = { self: SELF, connected: () => true }
  const holders = new Holders({ transport: everybody, clock, floorMs: forcedTimeoutMs })
  const places = new ColumnPlaces()
  const nobody = { peers: () => [], askColumns: async () => [] }
  const sources = new Sources({ places, holders, clock, log: quietLog, ...nobody })
  const fetcher = new Fetcher({ read, holders, sources, clock, log: quietLog })
  const reader = new Reader(createCodec(), sources, fetcher, clock)
  const refuse = () => Promise.reject(new TypeError('an archive takes nothing'))
  return {
    readData: (manifest, offset, length, how) => reader.read(manifest, offset, length, how),
    putColumn: refuse,
    putManifest: refuse,
    getManifest: refuse
  }
}

/** Notes the frames of the image that is restored on their way to the switch. */
function listening(worker: ImageWorker, heard: ImageFrame[]): ImageWorker {
  return {
    ...worker,
    restore: async manifest => {
      const restore = await worker.restore(manifest)
      return { ...restore, frames: noted(restore.frames, heard) }
    }
  }
}

async function* noted(pieces: AsyncIterable<Uint8Array>, heard: ImageFrame[]): AsyncGenerator<Uint8Array> {
  const cutter = new PacketCutter()
  for await (const piece of pieces) {
    cutter.push(takeAddresses(piece).rest.slice(), packet => {
      const frame = packet.subarray(PREFIX_BYTES)
      heard.push({ from: stationAt(frame, 6), crc: crc32(frame) })
    })
    yield piece
  }
}

async function audited(vms: readonly LocalVm[], consoles: ConsoleWatcher, ended: readonly string[]) {
  const deadlineMs = clock.now() + LIMIT_MS
  let askMs = 0
  for (;;) {
    consoles.poll()
    const found = consoles.audits(AUDIT)
    if (found.length === vms.length) return found
    if (ended.length > 0) throw new Error(`a VM has ended: ${ended.join('; ')}`)
    if (clock.now() > deadlineMs) throw new Error(`only ${found.length} VMs could be audited`)
    if (clock.now() >= askMs) {
      askMs = clock.now() + ASK_EVERY_MS
      await Promise.all(vms.map(vm => vm.type(`audit ${AUDIT}\n`)))
    }
    await sleep(20)
  }
}

function faultsOf(audits: readonly BankReport[], total: number, nonces: readonly string[]): string[] {
  const { gaps, broken, faults } = conservation(audits, bankTotal({ total }))
  const booted = audits.filter(({ nonce }) => !nonces.includes(nonce)).map(({ vm }) => `vm${vm} has booted again`)
  return [
    ...faults,
    ...(gaps > 0 ? [`${gaps} transfers were lost or came twice`] : []),
    ...(broken > 0 ? [`${broken} connections broke`] : []),
    ...booted
  ]
}
