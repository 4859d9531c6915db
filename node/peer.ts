/**
 * The composition root: builds adapters and cores from a config, joins them, starts them in an order in which nothing
 * can act before it may, and stops them in the reverse. Nothing imports this file but `main.ts`.
 */
import { createHash, hkdfSync } from 'node:crypto'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { runDirOf } from '../config/limits.ts'
import type { Config } from '../config/schema.ts'
import { createFailureDetector } from '../protocols/failure-detector/shell.ts'
import { createLeases } from '../protocols/lease/shell.ts'
import { LeaseVoter } from '../protocols/lease/voter.ts'
import { createRegisters } from '../protocols/register/shell.ts'
import { createControlBus } from '../protocols/service.ts'
import { createTransport } from '../protocols/transport.ts'
import { GroupDirectory } from './agents/directory.ts'
import type { Hosting, Report, StartedGenerations } from './agents/group-agent.ts'
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
import { goFirst } from './host/priority.ts'
import { programVersion } from './host/version.ts'
import { createCodec } from './erasure/codec.ts'
import { createQemuHypervisor } from './hypervisor/qemu.ts'
import { killStaleMachines } from './hypervisor/stale.ts'
import { createImageWorker } from './image/image-worker.ts'
import { decodeManifest, encodeManifest, manifestHash } from './image/manifest.ts'
import { Operations } from './operations.ts'
import type { Hypervisor, Log, ShardStore, Switch } from './ports.ts'
import { createShardCluster } from './shards/cluster.ts'
import { openRegisterStore } from './store/register-store.ts'
import { openShardStore } from './store/shard-store.ts'
import { StartedFile } from './store/started.ts'
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
  const log: Log = pino({ level: config.log.level, base: { name: config.peer.name } })
  if (!goFirst()) log.info({}, 'not allowed to raise the priority: on a busy host pauses are longer')
  const teardown = new Teardown()
  const ended = Promise.withResolvers<void>()
  ended.promise.catch(() => {}) // whoever wants to know has `stopped`
  let stopping: Promise<void> | undefined
  const stop = (error?: Error): Promise<void> => {
    stopping ??= teardown.run(log).then(() => (error === undefined ? ended.resolve() : ended.reject(error)))
    return stopping
  }
  try {
    const home = await openHome(config, log, teardown)
    const events = new EventFeed(wallMs)
    const report: Report = (kind, fields) => {
      events.emit(kind, fields)
      log.info({ kind, ...fields }, kind)
    }
    const voice = await openVoice(home, report, teardown, error => void stop(error))
    const body = await openBody(home, voice, teardown)
    await start(home, voice, body, events, report, teardown)
  } catch (error) {
    await teardown.run(log)
    throw error
  }
  return { stopped: ended.promise, stop: () => stop() }
}

/** Who this peer is and where it lives. Stale copies of its VMs are dead when this resolves. */
async function openHome(config: Config, log: Log, teardown: Teardown) {
  const { dataDir } = config.peer
  const runDir = runDirOf(config.peer)
  const { privateKey, peerId: self } = await loadOrCreateIdentity(dataDir)
  const me = config.members.find(member => member.id === self)
  if (me === undefined) {
    throw new UsageError('NOT_A_MEMBER', `members of the config lack this peer: add an entry with id = "${self}"`)
  }
  if (me.name !== config.peer.name) {
    // Two peers that exchanged names, or a copied data folder: this one would vote and own VMs in the other's name.
    throw new UsageError(
      'NOT_THIS_MEMBER',
      `the identity in ${dataDir} (${self}) is member "${me.name}", but peer.name is "${config.peer.name}": set peer.dataDir or peer.name right`
    )
  }
  const data = await openDataDir({ dataDir, peerId: self, cluster: config.cluster.name })
  teardown.add(() => data.close())
  const secret = await readSecret(config.cluster.secretFile)
  await mkdir(join(runDir, 'console'), { recursive: true, mode: 0o700 })
  // Before anything else: copies of our VMs that an earlier run left behind must not run beside their successors.
  const killed = await killStaleMachines(self, { runDir, clock: systemClock })
  if (killed > 0) log.warn({ killed }, 'killed VMs that an earlier run of this peer had left behind')
  await removeVmSockets(runDir) // of a run that was killed
  teardown.add(() => removeVmSockets(runDir)) // a VM that was ended while it was being resumed leaves one
  const members = config.members.map(member => member.id)
  const storage = config.members.filter(member => member.role === 'storage').map(member => member.id)
  const storing = me.role === 'storage'
  return {
    config,
    log,
    clock: systemClock,
    random: Math.random,
    self,
    privateKey,
    secret,
    runDir,
    members,
    storage,
    storing
  }
}
type Home = Awaited<ReturnType<typeof openHome>>

/** All that speaks with other peers and decides with them. Nothing is said before `start`. */
async function openVoice(home: Home, report: Report, teardown: Teardown, broken: (error: Error) => void) {
  const { config, log, clock, random, self, members } = home
  const cluster = config.cluster.name
  const { listen } = config.peer
  const transport = await createTransport({ ...home, listen, cluster, members: config.members })
  const bus = createControlBus(transport, log, cluster)
  const store = await openRegisterStore(join(config.peer.dataDir, 'registers'))
  teardown.add(() => store.close())
  const voter = new LeaseVoter(config.lease)
  const shared = { self, voters: members, bus, clock, random, log }
  const registers = createRegisters({ ...shared, store, guard: voter, settings: config.register, onBroken: broken })
  const generationOf = (key: string): Promise<number> => registers.generationOf(key)
  const leases = createLeases({ ...shared, settings: config.lease, voter, generationOf })
  const detector = createFailureDetector({ ...shared, members, settings: config.detector, transport })
  detector.onChange((peer, liveness, why) => report('liveness', { peer, liveness, why }))
  const directory = new GroupDirectory({ ...shared, members, transport, registers })
  return { transport, bus, registers, leases, detector, directory }
}
type Voice = Awaited<ReturnType<typeof openVoice>>

/** VMs, their network and shards. A witness has the switch only, which nothing is attached to. */
async function openBody(home: Home, voice: Voice, teardown: Teardown) {
  const { config, log, clock, self, runDir, storing } = home
  const { transport } = voice
  const network = createSwitch({ self, transport, clock, log })
  if (!storing) return { network, store: undefined, hosting: undefined, hypervisor: undefined }
  const hypervisor = await createQemuHypervisor({ settings: config.hypervisor, peer: self, runDir, log, clock })
  const store = await openShardStore(join(config.peer.dataDir, 'shards'), { log, clock })
  teardown.add(() => store.close())
  const started = await StartedFile.open(config.peer.dataDir)
  return { network, store, hypervisor, hosting: hostingOf(home, voice, { network, store, hypervisor, started }) }
}
type Body = Awaited<ReturnType<typeof openBody>>

async function start(home: Home, voice: Voice, body: Body, events: EventFeed, report: Report, teardown: Teardown) {
  const { config, log, clock, self, members, storage, runDir } = home
  const { transport, registers, leases, detector, directory } = voice
  const { network, store, hosting, hypervisor } = body
  const shared = { self, directory, detector, clock, log, report }
  const takeover = new TakeoverAgent({ ...shared, hosts: storage })
  const groups = new Groups({ ...shared, members, storage, hosting, leases, network })
  const housekeeping = new Housekeeping({ ...shared, ...config.epochs, store, decodeManifest })

  // Whoever hears of a group may start its VMs at once: what that needs is ready before anything can be heard.
  await registers.start()
  teardown.add(() => registers.stop())
  leases.start()
  teardown.add(() => leases.stop())
  await transport.start()
  teardown.add(() => transport.stop())
  detector.start()
  teardown.add(() => detector.stop())
  for (const agent of [takeover, housekeeping, directory]) teardown.add(() => agent.stop())
  teardown.add(() => groups.stop())
  const version = programVersion()
  const description = hypervisor?.description ?? 'none (witness)'
  const parts = { config, self, version, hypervisor: description, events, clock, directory, groups, housekeeping }
  const view = new Operations({ ...parts, detector, transport, leases, network, store })
  const api = await serveApi({ view, runDir, log })
  teardown.add(() => api.close())
  report('peer.started', { id: self, hypervisor: description })
  // In the background: without a majority it waits for register timeouts, and the API should answer meanwhile.
  directory.start().catch((error: unknown) => log.error({ error: messageOf(error) }, 'groups could not be read'))
}

interface HostingParts {
  readonly network: Switch
  readonly store: ShardStore
  readonly hypervisor: Hypervisor
  readonly started: StartedGenerations
}

function hostingOf(home: Home, voice: Voice, { network, store, hypervisor, started }: HostingParts): Hosting {
  const { config, storage, secret, runDir, clock, log } = home
  const { transport, detector, directory } = voice
  const { k, m, symbolBytes } = config.shards
  const settings = config.shards
  const codec = createCodec()
  const shards = createShardCluster({ transport, store, codec, clock, settings, detector, log, peers: () => storage })
  // Shards of a generation that is over are refused as soon as we know of a newer one.
  directory.onRecord(({ id, vms, generation }) => {
    for (const vm of vms) shards.observeGeneration(id, vm.id, generation)
  })
  return {
    shards,
    shape: { k, m },
    started,
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
          shape: { k, m, symbolBytes },
          cluster: shards,
          log
        }),
      path: (kind, group, vm) =>
        kind === 'console'
          ? join(runDir, 'console', `${group}.${vm}.log`)
          : join(runDir, `${shortName(group, vm)}.${kind}`)
    }
  }
}

/** The sockets of VMs, as `path` in `hostingOf` names them. */
async function removeVmSockets(runDir: string): Promise<void> {
  const stale = (await readdir(runDir)).filter(name => /^[\w-]{12}\.(nic|capture|incoming)$/.test(name))
  await Promise.all(stale.map(name => rm(join(runDir, name), { force: true })))
}

/** Names may have 63 letters each and a socket's whole path 107: 72 bits of a hash tell VMs of one host apart. */
function shortName(group: string, vm: string): string {
  return createHash('sha256').update(`${group}/${vm}`).digest('base64url').slice(0, 12)
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
