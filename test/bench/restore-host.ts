/**
 * A process that holds what a host holds for images: transport, a store on disk and the shards of all; and for one VM, where
 * it is told to. Killed with -9 it takes its VM with it, as a host does. Argument: `HostOptions` as JSON in argv[2].
 */
import { rm } from 'node:fs/promises'
import { createWriteStream, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { configSchema } from '../../config/schema.ts'
import { createCodec } from '../../node/erasure/codec.ts'
import { goFirst } from '../../node/host/priority.ts'
import { exportRam } from '../../node/image/export.ts'
import { encodeManifest, readManifest } from '../../node/image/manifest.ts'
import type { ShardCluster } from '../../node/ports.ts'
import { type ClusterShards, createShardCluster } from '../../node/shards/cluster.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import type { Libp2pTransport } from '../../protocols/transport.ts'
import { type ChildOptions, childTransport } from '../contract/loopback.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { ProcessCalls } from './capture-calls.ts'
import { type Answer, type CutTaken, type ImageName, type ResumeWish, type VmSize, VmOnHost } from './restore-vm.ts'

export interface HostOptions extends ChildOptions {
  /** Its own; kept when it is killed. */
  readonly folder: string
}

/** What five peers have by default. */
const SETTINGS = configSchema.shape.shards.parse({})

/** Counts what is read through it. */
class Counted implements ShardCluster {
  readonly #shards: ClusterShards
  bytesRead = 0

  constructor(shards: ClusterShards) {
    this.#shards = shards
  }

  putColumn: ShardCluster['putColumn'] = (...column) => this.#shards.putColumn(...column)
  putManifest: ShardCluster['putManifest'] = (...manifest) => this.#shards.putManifest(...manifest)

  async readData(...range: Parameters<ShardCluster['readData']>): Promise<Uint8Array> {
    return this.#counted(await this.#shards.readData(...range))
  }

  async getManifest(hash: string): Promise<Uint8Array> {
    return this.#counted(await this.#shards.getManifest(hash))
  }

  #counted(bytes: Uint8Array): Uint8Array {
    this.bytesRead += bytes.length
    return bytes
  }
}

class RestoreHost {
  readonly #options: HostOptions
  readonly #transport: Libp2pTransport
  readonly #shards: Counted
  #vm: VmOnHost | undefined

  private constructor(options: HostOptions, transport: Libp2pTransport, shards: ClusterShards) {
    this.#options = options
    this.#transport = transport
    this.#shards = new Counted(shards)
  }

  static async open(options: HostOptions): Promise<RestoreHost> {
    mkdirSync(options.folder, { recursive: true })
    const transport = await childTransport(options)
    const store = await openShardStore(join(options.folder, 'store'), { log: quietLog, clock })
    const peers = () => options.members.map(({ id }) => id)
    const [codec, settings] = [createCodec(), { ...SETTINGS, durability: 'all' as const }] // the next host dies at once
    const shards = createShardCluster({ transport, store, codec, clock, log: quietLog, settings, peers })
    return new RestoreHost(options, transport, shards)
  }

  /** It can host a VM from then on; before `link`, as the switch takes part in the transport. */
  async hostVm(size: VmSize): Promise<void> {
    const { k, m, symbolBytes } = SETTINGS
    this.#vm = await VmOnHost.open({
      ...size,
      folder: this.#options.folder,
      transport: this.#transport,
      shards: this.#shards,
      shape: { k, m, symbolBytes, durability: 'all' }
    })
  }

  async link(): Promise<void> {
    await this.#transport.start()
  }

  /** Resolves when it is connected to these. */
  async linked(others: readonly string[]): Promise<void> {
    while (!others.every(id => id === this.#transport.self || this.#transport.connected(id))) await sleep(5)
  }

  get vm(): VmOnHost {
    if (this.#vm === undefined) throw new TypeError('this host was not told that it has a VM')
    return this.#vm
  }

  /** One epoch, committed; its image's name. */
  async cut(): Promise<CutTaken & { readonly hash: string }> {
    const holders = this.#options.members.map(({ id }) => id)
    const { manifest, ...taken } = await this.vm.cut(holders)
    const { hash, objects } = encodeManifest(manifest)
    await Promise.all(objects.map(each => this.#shards.putManifest(each.hash, each.bytes, holders)))
    return { ...taken, hash }
  }

  /** Writes an image as the migration stream that QEMU would write to a file. */
  async exportTo({ hash, path }: { hash: string; path: string }): Promise<void> {
    const worker = await this.vm.openWorker()
    const socketPath = join(this.#options.folder, 'export')
    try {
      const restore = await worker.restore(await readManifest(hash, name => this.#shards.getManifest(name)))
      await pipeline(Readable.from(exportRam(restore, socketPath)), createWriteStream(path))
    } finally {
      await worker.close()
      await rm(socketPath, { force: true })
    }
  }
}

function handlers(host: () => Promise<RestoreHost>) {
  return {
    hostVm: async (size: VmSize) => (await host()).hostVm(size),
    link: async () => (await host()).link(),
    linked: async (others: readonly string[]) => (await host()).linked(others),
    boot: async () => (await host()).vm.boot(),
    tell: async (command: string): Promise<Answer> => (await host()).vm.tell(command),
    cut: async () => (await host()).cut(),
    standBy: async (image: ImageName) => (await host()).vm.standBy(image),
    resume: async (wish: ResumeWish) => (await host()).vm.resume(wish),
    complete: async () => (await host()).vm.complete(),
    end: async () => (await host()).vm.end(),
    exportTo: async (request: { hash: string; path: string }) => (await host()).exportTo(request)
  }
}

export type HostCalls = ReturnType<typeof handlers>

if (process.send) {
  goFirst()
  const host = RestoreHost.open(JSON.parse(process.argv[2] ?? '{}') as HostOptions)
  host.catch(() => {}) // told by every call
  new ProcessCalls<Record<string, never>>(
    process,
    handlers(() => host)
  )
  process.on('disconnect', () => process.exit())
}
