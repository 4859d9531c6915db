/**
 * What a peer that hosts VMs needs beyond a witness: hypervisor, images, shards and their stores, joined. A part of the
 * composition root in a file of its own, because a witness does not load it.
 */
import { createHash, hkdfSync } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { freemem } from 'node:os'
import { join } from 'node:path'
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { disksOf } from '../../protocols/group.ts'
import { BASES } from '../../protocols/base.ts'
import { contentHash, renamed } from '../../protocols/boot-files.ts'
import { leavingHosts, memberById, placeable } from '../../protocols/membership/record.ts'
import type { DataKeyRing } from '../agents/data-keys.ts'
import { SharedBases } from '../agents/bases.ts'
import { BootFileAgent } from '../agents/boot-files.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Hosting, Report, StartedGenerations } from '../agents/group-agent.ts'
import type { Placing } from '../agents/placing.ts'
import { Standbys } from '../agents/standby.ts'
import type { StoragePeers } from '../agents/storage-peers.ts'
import { createCodec } from '../erasure/codec.ts'
import { type DrillingDeps, openDrilling } from './drilling.ts'
import { type HomesDeps, openHomes } from './homes.ts'
import { BaseNames } from '../host/base-names.ts'
import { openBootFiles } from '../host/boot-files.ts'
import { wallMs } from '../host/clock.ts'
import { clearStaleDrill } from '../host/drill-room.ts'
import { createQemuHypervisor, installedQemu, preloaded } from '../hypervisor/qemu.ts'
import { killStaleMachines } from '../hypervisor/stale.ts'
import { diskFile, MACHINE_NAME, RAM_FILE, stockScript } from '../hypervisor/stock-command.ts'
import { UplinkRelay } from '../hypervisor/uplink-relay.ts'
import { exportDisk, saveDisk } from '../image/disk-files.ts'
import { exportRam, importRam } from '../image/export.ts'
import { ImageThreads } from '../image/image-threads.ts'
import { createImageWorker } from '../image/image-worker.ts'
import { SharedContents } from '../image/shared-contents.ts'
import { blockServing } from '../nbd/server.ts'
import { decodeManifest, describeManifest, encodeManifest, readManifest } from '../image/manifest.ts'
import { decodeStreamManifest, encodeStreamManifest } from '../image/stream-manifest.ts'
import type { ImageFiles } from '../operations/group-import.ts'
import type {
  BootFiles,
  Clock,
  FailureDetector,
  Hypervisor,
  Leases,
  Log,
  Membership,
  Registers,
  ShardCluster,
  ShardStore,
  Switch,
  Transport
} from '../ports.ts'
import { openRepairing, type Repairing } from './repairing.ts'
import { createShardCluster, type RepairHooks } from '../shards/cluster.ts'
import { openShardStore } from '../store/shard-store.ts'
import { StartedFile } from '../store/started.ts'
import { joinBridge } from '../switch/openflow/start.ts'
import type { VirtualSwitch } from '../switch/switch.ts'

/** Images know disks as they know RAM: in pages of 4096 bytes. */
const BLOCKS_PER_MIB = 256

export interface HostingDeps {
  readonly config: Config
  readonly self: PeerId
  readonly dataKeys: DataKeyRing
  readonly runDir: string
  readonly clock: Clock
  readonly random: () => number
  readonly log: Log
  readonly registers: Registers
  readonly transport: Transport
  readonly detector: FailureDetector
  readonly directory: GroupDirectory
  readonly membership: Membership
  readonly network: Switch
  readonly report: Report
  readonly placing: Placing
  readonly storagePeers: StoragePeers
  readonly teardown: { add(step: () => unknown): void }
}

interface Parts {
  readonly store: ShardStore
  readonly hypervisor: Hypervisor
  readonly started: StartedGenerations
  readonly baseNames: BaseNames
  readonly bootFiles: BootFiles
}

/** Before anything else: copies of our VMs that an earlier run left behind must not run beside their successors. */
export async function clearStale(options: {
  readonly self: PeerId
  readonly runDir: string
  readonly dataDir: string
  readonly clock: Clock
  readonly log: Log
}): Promise<void> {
  const killed = await killStaleMachines(options.self, options)
  if (killed > 0) options.log.warn({ killed }, 'killed VMs that an earlier run of this peer had left behind')
  await removeVmSockets(options.runDir) // of a run that was killed
  await clearStaleDrill(options.runDir)
  await rm(layersIn(options.dataDir), { recursive: true, force: true })
}

/** What VMs write to their disks while they run here: of no use after that, because a VM goes on from shards. */
const layersIn = (dataDir: string): string => join(dataDir, 'disks')

/** The helpers in C of a peer that may not write where it is installed. Not in runDir: programs of /run are not started on Debian. */
const nativeIn = (dataDir: string): string => join(dataDir, 'native')

/** The way of VMs to the outside (`switch.uplink`). The result ends it. */
export async function openUplink(
  { config, self, runDir, clock, log }: Pick<HostingDeps, 'config' | 'self' | 'runDir' | 'clock' | 'log'>,
  network: VirtualSwitch
): Promise<() => Promise<void>> {
  const socketPath = join(runDir, 'uplink')
  await network.openUplink(socketPath)
  const installed = (await installedQemu(config.hypervisor)).program
  const program = { ...installed, preload: await preloaded(installed.path, nativeIn(config.peer.dataDir)) }
  const relay = new UplinkRelay({ program, peer: self, kind: config.switch.uplink, socketPath, clock, log })
  relay.start()
  return async () => {
    relay.stop()
    await network.closeUplink()
  }
}

/** The switch with the bridge of `switch.openFlow`; undefined: there is none. UsageErrors as `joinBridge`. */
export async function openBridge(
  {
    config,
    self,
    clock,
    log,
    membership,
    leases
  }: Pick<HostingDeps, 'config' | 'self' | 'clock' | 'log' | 'membership'> & { readonly leases: Leases },
  own: VirtualSwitch,
  teardown: { add(step: () => unknown): void }
): Promise<VirtualSwitch | undefined> {
  const { openFlow: settings } = config.switch
  if (settings === undefined) return undefined
  const nameOf = (peer: PeerId): string | undefined => memberById(membership.record(), peer)?.name
  const joined = await joinBridge({ settings, self, own, nameOf, clock, log })
  teardown.add(() => joined.close())
  joined.follow(leases)
  membership.onChange(() => joined.refresh())
  return joined
}

/** UsageErrors where QEMU or the stores cannot be used. The store is the caller's to close. */
export async function openHosting(deps: HostingDeps) {
  const { config, self, runDir, log, clock } = deps
  const bootFiles = await openBootFiles(join(config.peer.dataDir, 'files'), wallMs)
  const bootPath = (name: string): string => {
    const hash = contentHash(name)
    return hash === undefined ? name : bootFiles.pathOf(hash)
  }
  const settings = config.hypervisor
  const hypervisor = await createQemuHypervisor({
    settings,
    peer: self,
    runDir,
    nativeDir: nativeIn(config.peer.dataDir),
    log,
    clock,
    bootPath
  })
  const store = await openShardStore(join(config.peer.dataDir, 'shards'), { log, clock })
  const started = await StartedFile.open(config.peer.dataDir)
  const baseNames = await BaseNames.open(config.peer.dataDir)
  const { hosting, openAlone, repairing, booting, refusedShards } = hostingOf(deps, {
    store,
    hypervisor,
    started,
    baseNames,
    bootFiles
  })
  const imported = join(config.peer.dataDir, 'imports')
  await rm(imported, { recursive: true, force: true }) // of a peer that was killed
  const imageFiles: ImageFiles = {
    machine: MACHINE_NAME,
    ramFile: RAM_FILE,
    diskFile,
    booting,
    script: ({ spec, ...options }) => stockScript({ ...options, spec: renamed(spec, bootPath) }),
    exportRam,
    exportDisk,
    importRam,
    saveDisk: (parts, diskBytes) => saveDisk(imported, parts, diskBytes)
  }
  const keysOf = (group: string) => groupKeys(deps.dataKeys, group).dataKeys()
  const openHomesWith = (more: Omit<HomesDeps, 'hosting' | 'files' | 'keysOf'>) =>
    openHomes({ ...more, hosting, files: imageFiles, keysOf })
  return {
    store,
    hypervisor,
    describeManifest,
    hosting,
    repairing,
    imageFiles,
    refusedShards,
    openHomes: openHomesWith,
    openDrilling: (more: Omit<DrillingDeps, 'hosting' | 'openAlone'>) => openDrilling({ ...more, hosting, openAlone })
  }
}

function hostingOf(
  deps: HostingDeps,
  { store, hypervisor, started, baseNames, bootFiles }: Parts
): {
  readonly hosting: Hosting
  readonly openAlone: OpenWorker
  readonly repairing: Repairing
  readonly booting: BootFileAgent
  refusedShards(): number
} {
  const { config, runDir, clock, log, transport, detector, directory, membership, network } = deps
  const { k, m } = config.shards
  const settings = config.shards
  const codec = createCodec()
  // Members that leave still have what they stored.
  const peers = (): PeerId[] => membership.record().members.flatMap(({ id, role }) => (role === 'storage' ? [id] : []))
  // What other peers tell about this one's columns comes when both are there.
  const repair: RepairHooks = {
    damaged: (...place) => repairing.damaged(...place),
    verify: (...place) => repairing.verify(...place),
    asked: () => repairing.asked()
  }
  const parts = { transport, store, codec, clock, settings, detector, log, peers, repair, files: bootFiles }
  const shards = createShardCluster(parts)
  const repairing = openRepairing({ ...deps, store, shards, codec, hostFacts: deps.storagePeers.about })
  const booting = new BootFileAgent({
    files: bootFiles,
    directory,
    others: () => peers().filter(peer => peer !== deps.self),
    askPiece: (...which) => shards.file(...which),
    askPaths: (...which) => shards.paths(...which),
    clock,
    log
  })
  deps.teardown.add(() => booting.stop())
  // Shards of a generation that is over are refused as soon as we know of a newer one.
  // A group that rests has just begun one, and columns of its last epoch may still be on their way.
  directory.onRecord(({ id, vms, generation, resting }) => {
    for (const vm of vms) shards.observeGeneration(id, vm.id, resting ? generation - 1 : generation)
  })
  const openWith = workersOf(deps, hypervisor, shards)
  const parted: Hosting = {
    shards,
    shape: { k, m },
    uplink: config.switch.uplink !== 'none',
    storedAt: stream => repairing.redundancy.storedAt(stream),
    started,
    readManifest: hash => readManifest(hash, name => shards.getManifest(name)),
    readTalks: async hash => decodeManifest(await shards.getManifest(hash)).talks ?? [],
    encodeManifest,
    vm: {
      hypervisor,
      network,
      clock,
      wallMs,
      log,
      serveBlocks: blockServing(log),
      shareBases: sharedBases(deps, shards, baseNames).share,
      bootable: spec => booting.bootable(spec),
      openWorker: openWith({ contentsMiB: config.images.memoryMiB, neighbours: new SharedContents() }),
      path: (kind, group, vm) => {
        if (kind === 'console') return join(runDir, 'console', `${group}.${vm}.log`)
        if (kind === 'layers') return join(layersIn(config.peer.dataDir), shortName(group, vm))
        return join(runDir, `${shortName(group, vm)}.${kind}`)
      }
    }
  }
  const openAlone = openWith({ contentsMiB: 0 })
  const hosting: Hosting = { ...parted, standbys: openStandbys(deps, parted) }
  return { hosting, openAlone, repairing, booting, refusedShards: () => shards.stats().refusedStale }
}

/** Ended with the peer. */
function openStandbys({ teardown, ...deps }: HostingDeps, hosting: Hosting): Standbys {
  const { config, membership, storagePeers } = deps
  const standbys = new Standbys({
    ...deps,
    hosts: () => placeable(membership.record()),
    leaving: () => leavingHosts(membership.record()),
    about: storagePeers.about,
    copy: hosting,
    settings: config.standby,
    availableMiB: () => Math.floor(freemem() / 2 ** 20)
  })
  hosting.vm.hypervisor.onFull?.(bytes => standbys.makeRoom(bytes))
  teardown.add(() => standbys.stop())
  return standbys
}

type OpenWorker = Hosting['vm']['openWorker']

function workersOf({ config, dataKeys, log, teardown }: HostingDeps, { accel }: Hypervisor, cluster: ShardCluster) {
  const { k, m, symbolBytes, durability } = config.shards
  const threads = new ImageThreads()
  teardown.add(() => threads.close())
  return (more: { readonly contentsMiB: number; readonly neighbours?: SharedContents }): OpenWorker =>
    (group, spec) =>
      createImageWorker({
        group,
        vm: spec.id,
        memoryMiB: spec.memoryMiB,
        accel,
        ...groupKeys(dataKeys, group),
        shape: { k, m, symbolBytes, durability },
        disks: disksOf(spec).map(({ sizeMiB }) => ({ blocks: sizeMiB * BLOCKS_PER_MIB })),
        cluster,
        log,
        threads,
        ...more
      })
}

function sharedBases(deps: HostingDeps, shards: ShardCluster, names: BaseNames): SharedBases {
  const { config, membership, detector, placing } = deps
  const { k, m } = config.shards
  return new SharedBases({
    ...deps,
    shards,
    nameOf: file => names.of(file),
    holders: () => {
      const alive = new Set(detector.alive())
      const living = placeable(membership.record()).filter(peer => alive.has(peer))
      return { ...placing.place(living, { k, m }, 'bases'), m }
    },
    encodeStream: encodeStreamManifest,
    decodeStream: decodeStreamManifest
  })
}

/** The sockets of VMs, as `path` in `hostingOf` names them. */
export async function removeVmSockets(runDir: string): Promise<void> {
  const stale = (await readdir(runDir)).filter(name => /^[\w-]{12}\.(nic\d?|capture|incoming|blocks)$/.test(name))
  await Promise.all(stale.map(name => rm(join(runDir, name), { force: true })))
}

/** Names may have 63 letters each and a socket's whole path 107: 72 bits of a hash tell VMs of one host apart. */
function shortName(group: string, vm: string): string {
  return createHash('sha256').update(`${group}/${vm}`).digest('base64url').slice(0, 12)
}

/** What a group's images are sealed under and its content ids are made with. IMAGE_KEY. */
function groupKeys(dataKeys: DataKeyRing, group: string) {
  const newest = dataKeys.all().at(-1)?.key ?? new Uint8Array()
  return {
    key: groupSecret(newest, `${group} content ids`), // no group has such a name
    dataKeys: () =>
      dataKeys.all().map(({ id, key }) => ({ id, key: groupSecret(key, group), baseKey: groupSecret(key, BASES) }))
  }
}

/** Each group's images have a key of their own (RFC 5869). */
export function groupSecret(secret: Uint8Array, group: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, '', `diapause group ${group}`, 32))
}
