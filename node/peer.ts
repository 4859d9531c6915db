/**
 * The composition root: builds adapters and cores from a config, joins them, starts them in an order in which nothing
 * can act before it may, and stops them in the reverse. Nothing imports this file but `main.ts`.
 */
import { hkdfSync } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import type { Config } from '../config/schema.ts'
import type { PeerId } from '../protocols/core.ts'
import { createFailureDetector } from '../protocols/failure-detector/shell.ts'
import { createLeases } from '../protocols/lease/shell.ts'
import { LeaseVoter } from '../protocols/lease/voter.ts'
import { createRegisters } from '../protocols/register/shell.ts'
import { createControlBus } from '../protocols/service.ts'
import { createTransport } from '../protocols/transport.ts'
import { GroupDirectory } from './agents/directory.ts'
import type { Hosting, Report } from './agents/group-agent.ts'
import { Groups } from './agents/groups.ts'
import { Housekeeping } from './agents/housekeeping.ts'
import { TakeoverAgent } from './agents/takeover.ts'
import { serveApi } from './edge/api.ts'
import { EventFeed } from './edge/events.ts'
import type { RunningPeer } from './edge/view.ts'
import { messageOf, UsageError } from './errors.ts'
import { systemClock, wallMs } from './host/clock.ts'
import { openDataDir } from './host/data-dir.ts'
import { loadOrCreateIdentity } from './host/identity.ts'
import { programVersion } from './host/version.ts'
import { createCodec } from './erasure/codec.ts'
import { createQemuHypervisor } from './hypervisor/qemu.ts'
import { killStaleMachines } from './hypervisor/stale.ts'
import { createImageWorker } from './image/image-worker.ts'
import { decodeManifest, encodeManifest, manifestHash } from './image/manifest.ts'
import { Operations } from './operations.ts'
import type { Clock, FailureDetector, Hypervisor, Log, ShardStore, Switch, Transport } from './ports.ts'
import { createShardCluster } from './shards/cluster.ts'
import { openRegisterStore } from './store/register-store.ts'
import { openShardStore } from './store/shard-store.ts'
import { createSwitch } from './switch/switch.ts'

/** Undoes what was built so far, the last first; each step is tried, whatever the others did. */
class Teardown {
  readonly #steps: (() => unknown)[] = []

  add(step: () => unknown): void {
    this.#steps.unshift(step)
  }

  async run(log: Log): Promise<void> {
    for (const step of this.#steps.splice(0)) {
      try {
        await step()
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'a part did not stop cleanly')
      }
    }
  }
}

/** Starts a peer. Rejects with a UsageError for what a person can mend: config, data folder, port, QEMU. */
export async function runPeer(config: Config): Promise<RunningPeer> {
  const log: Log = pino({ level: config.log.level, base: { peer: config.peer.name } })
  const teardown = new Teardown()
  const ended = Promise.withResolvers<void>()
  ended.promise.catch(() => {}) // whoever wants to know has `stopped`
  let stopping: Promise<void> | undefined
  const stop = (error?: Error): Promise<void> => {
    stopping ??= teardown.run(log).then(() => (error === undefined ? ended.resolve() : ended.reject(error)))
    return stopping
  }
  try {
    await build(config, log, teardown, stop)
  } catch (error) {
    await teardown.run(log)
    throw error
  }
  return { stopped: ended.promise, stop: () => stop() }
}

async function build(
  config: Config,
  log: Log,
  teardown: Teardown,
  stop: (error?: Error) => Promise<void>
): Promise<void> {
  const { dataDir } = config.peer
  const runDir = config.peer.runDir ?? join(dataDir, 'run')
  const clock = systemClock
  const identity = await loadOrCreateIdentity(dataDir)
  const self = identity.peerId
  const me = config.members.find(member => member.id === self)
  if (me === undefined) {
    throw new UsageError('NOT_A_MEMBER', `members of the config lack this peer: add an entry with id = "${self}"`)
  }
  const data = await openDataDir({ dataDir, peerId: self, cluster: config.cluster.name })
  teardown.add(() => data.close())
  const secret = await readSecret(config.cluster.secretFile)
  await mkdir(join(runDir, 'console'), { recursive: true, mode: 0o700 })

  // Before anything else: copies of our VMs that an earlier run left behind must not run beside their successors.
  const killed = await killStaleMachines(self, { runDir, clock })
  if (killed > 0) log.warn({ killed }, 'killed VMs that an earlier run of this peer had left behind')

  const storing = me.role === 'storage'
  const hypervisor = storing
    ? await createQemuHypervisor({ settings: config.hypervisor, peer: self, runDir, log, clock })
    : undefined

  const events = new EventFeed(wallMs)
  const report: Report = (kind, fields) => {
    events.emit(kind, fields)
    log.info({ kind, ...fields }, kind)
  }
  const members = config.members.map(member => member.id)
  const storage = config.members.filter(member => member.role === 'storage').map(member => member.id)
  const transport = await createTransport({
    privateKey: identity.privateKey,
    listen: config.peer.listen,
    cluster: config.cluster.name,
    members: config.members,
    log,
    clock
  })
  const bus = createControlBus(transport, log, config.cluster.name)
  const random = Math.random

  const registerStore = await openRegisterStore(join(dataDir, 'registers'))
  teardown.add(() => registerStore.close())
  const voter = new LeaseVoter(config.lease)
  const registers = createRegisters({
    self,
    voters: members,
    bus,
    clock,
    random,
    store: registerStore,
    guard: voter,
    settings: config.register,
    log,
    onBroken: error => void stop(error)
  })
  const generationOf = (key: string): Promise<number> => registers.generationOf(key)
  const leases = createLeases({
    self,
    voters: members,
    bus,
    clock,
    random,
    settings: config.lease,
    log,
    voter,
    generationOf
  })
  const detector = createFailureDetector({
    self,
    members,
    bus,
    clock,
    random,
    settings: config.detector,
    log,
    transport
  })
  detector.onChange((peer, liveness, why) => report('liveness', { peer, liveness, why }))

  const network = createSwitch({ self, transport, clock, log })
  const store = storing ? await openShardStore(join(dataDir, 'shards'), { log, clock }) : undefined
  if (store !== undefined) teardown.add(() => store.close())
  const hosting =
    store === undefined || hypervisor === undefined
      ? undefined
      : hostingOf({ config, secret, storage, runDir, transport, store, detector, network, hypervisor, clock, log })

  const directory = new GroupDirectory({ self, members, bus, transport, registers, clock, random, log })
  const takeover = new TakeoverAgent({ self, hosts: storage, directory, detector, clock, log, report })
  const groups = new Groups({
    self,
    members,
    storage,
    hosting,
    directory,
    leases,
    detector,
    network,
    clock,
    log,
    report
  })
  const { intervalMs, deadlineMs } = config.epochs
  const housekeeping = new Housekeeping({ self, directory, store, clock, log, intervalMs, deadlineMs, decodeManifest })

  await transport.start()
  teardown.add(() => transport.stop())
  await registers.start()
  teardown.add(() => registers.stop())
  leases.start()
  teardown.add(() => leases.stop())
  detector.start()
  teardown.add(() => detector.stop())
  teardown.add(() => {
    takeover.stop()
    housekeeping.stop()
    directory.stop()
  })
  teardown.add(() => groups.stop())
  const view = new Operations({
    config,
    self,
    version: programVersion(),
    hypervisor: hypervisor?.description ?? 'none (witness)',
    events,
    clock,
    directory,
    groups,
    housekeeping,
    detector,
    transport,
    leases,
    network,
    store
  })
  const api = await serveApi({ view, runDir, log })
  teardown.add(() => api.close())
  report('peer.started', { id: self, hypervisor: hypervisor?.description })
  // In the background: without a majority it waits for register timeouts, and the API should answer meanwhile.
  directory.start().catch((error: unknown) => log.error({ error: messageOf(error) }, 'groups could not be read'))
}

interface HostingParts {
  readonly config: Config
  readonly storage: readonly PeerId[]
  readonly secret: Uint8Array
  readonly runDir: string
  readonly transport: Transport
  readonly store: ShardStore
  readonly detector: FailureDetector
  readonly network: Switch
  readonly hypervisor: Hypervisor
  readonly clock: Clock
  readonly log: Log
}

function hostingOf(parts: HostingParts): Hosting {
  const { config, storage, secret, runDir, transport, store, detector, network, hypervisor, clock, log } = parts
  const shape = { k: config.shards.k, m: config.shards.m, symbolBytes: config.shards.symbolBytes }
  const codec = createCodec()
  const shards = createShardCluster({
    transport,
    store,
    codec,
    clock,
    settings: config.shards,
    detector,
    log,
    peers: () => storage
  })
  return {
    shards,
    shape,
    readManifest: async hash => decodeManifest(await shards.getManifest(hash)),
    encodeManifest: manifest => {
      const bytes = encodeManifest(manifest)
      return { hash: manifestHash(bytes), bytes }
    },
    vm: {
      hypervisor,
      network,
      clock,
      wallMs,
      log,
      openWorker: (group, spec) =>
        createImageWorker({
          group,
          vm: spec.id,
          memoryMiB: spec.memoryMiB,
          accel: hypervisor.accel,
          key: groupSecret(secret, group),
          shape,
          cluster: shards,
          log
        }),
      path: (kind, group, vm) =>
        kind === 'console' ? join(runDir, 'console', `${group}.${vm}.log`) : join(runDir, `${group}.${vm}.${kind}`)
    }
  }
}

/** Each group's images have a key of their own (RFC 5869). */
function groupSecret(secret: Uint8Array, group: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, '', `diapause group ${group}`, 32))
}

/** 32 bytes in hex, shared by all peers of the cluster. */
async function readSecret(file: string): Promise<Uint8Array> {
  let text: string
  try {
    text = (await readFile(file, 'utf8')).trim()
  } catch (cause) {
    throw new UsageError('SECRET_UNREADABLE', `cannot read cluster.secretFile ${file}: ${messageOf(cause)}`, { cause })
  }
  if (!/^[0-9a-fA-F]{64}$/.test(text)) {
    throw new UsageError(
      'SECRET_INVALID',
      `${file} must hold 32 bytes in hex (64 digits); make one: openssl rand -hex 32`
    )
  }
  return Buffer.from(text, 'hex')
}
