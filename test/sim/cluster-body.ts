/** What of a simulated peer runs VMs: the production switch, and simulated hypervisor, images and shards (`node/composition/hosting.ts`). */
import type { GroupDirectory } from '../../node/agents/directory.ts'
import type { Hosting } from '../../node/agents/group-agent.ts'
import type { ManifestFacts } from '../../node/agents/housekeeping.ts'
import type { MembershipAgent } from '../../node/agents/membership.ts'
import type { Leases, Log, ShardStore, Switch } from '../../node/ports.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import { groupKey } from '../../protocols/group.ts'
import { leaseMarginMs } from '../../protocols/lease/holder.ts'
import { memberById } from '../../protocols/membership/record.ts'
import { boundNic } from './cluster-bugs.ts'
import type { PeerWorld } from './cluster-peer.ts'
import { frameId, framesIn } from './world-bank.ts'
import type { Life } from './world-host.ts'
import { decodeSimManifest, encodeSimManifest, SimWorker } from './world-images.ts'
import { SHAPE, simShards } from './world-shards.ts'
import { type Nic, simHypervisor, type SimMachine } from './world-machine.ts'
import type { SimTransport } from './world-network.ts'
import { SimLink } from './world-nic.ts'
import { OUTSIDE, OutsideLink } from './world-outside.ts'

export interface SimBody {
  readonly network: Switch
  /** Undefined at a witness. */
  readonly hosting: Hosting | undefined
  readonly store: ShardStore | undefined
  readonly machines: ReadonlySet<SimMachine>
  describeManifest(bytes: Uint8Array): ManifestFacts
}

export interface BodyParts {
  readonly life: Life
  readonly world: PeerWorld
  readonly log: Log
  readonly transport: SimTransport
  readonly leases: Leases
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
}

export function openSimBody(parts: BodyParts): SimBody {
  const { life, world, membership } = parts
  const nics = new Map<string, Nic>()
  const machines = new Set<SimMachine>()
  const network = openSwitch(parts, nics)
  const storing = memberById(membership.record(), life.host.name)?.role === 'storage'
  return {
    network,
    hosting: storing ? hostingOf(parts, network, nics, machines) : undefined,
    store: storing ? life.host.disk.shardStore() : undefined,
    machines,
    describeManifest: bytes => {
      const { group, vm, generation, epoch, streams } = world.wiring.manifest(decodeSimManifest(bytes))
      return { about: `${group}/${vm}/${generation}/${epoch}`, streams: streams.map(({ stream }) => ({ stream })) }
    }
  }
}

function openSwitch({ life, world, log, transport, leases, directory }: BodyParts, nics: Map<string, Nic>): Switch {
  const { wiring, settings } = world
  const marginMs = leaseMarginMs(settings.lease)
  const network = createSwitch({
    self: life.host.name,
    transport: wiring.frames(transport, group => directory.get(group)?.generation),
    clock: life.clock,
    log,
    mayAct: (group, generation) => wiring.maySpeak(leases.remainingMs(groupKey(group), generation) - marginMs),
    openLink: async (path, clock, events) =>
      path === OUTSIDE
        ? new OutsideLink(life, events, id => world.onTold(life, id))
        : new SimLink(path, life, clock, events),
    atTurnEnd: run => life.turn(run)
  })
  void network.openUplink(OUTSIDE)
  return {
    setGroup: record => network.setGroup(wiring.record(record)),
    removeGroup: id => network.removeGroup(id),
    attach: async options => {
      const port = wiring.nic(await network.attach(options))
      const nic: Nic = { ...options, injected: new Set() }
      nics.set(options.nicPath, nic)
      return { ...boundNic(port), inject: pieces => port.inject(noted(pieces, nic.injected)) }
    },
    onMarker: handler => network.onMarker(handler),
    stats: () => network.stats()
  }
}

/** The same, and the ids of its frames are noted. */
async function* noted(pieces: AsyncIterable<Uint8Array>, ids: Set<number>): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    for (const frame of framesIn(piece)) ids.add(frameId(frame))
    yield piece
  }
}

function hostingOf(
  parts: BodyParts,
  network: Switch,
  nics: ReadonlyMap<string, Nic>,
  machines: Set<SimMachine>
): Hosting {
  const { life, world, log, directory, membership } = parts
  const { book, settings, wiring, refused } = world
  const peers = () => membership.record().members.flatMap(({ id, role }) => (role === 'storage' ? [id] : []))
  const shards = wiring.shards(simShards({ network: world.network, life, refused, peers }))
  directory.onRecord(({ id, vms, generation, resting }) => {
    for (const vm of vms) shards.observeGeneration(id, vm.id, resting ? generation - 1 : generation)
  })
  const nicOf = (path: string) => {
    const nic = nics.get(path) as Nic
    return { ...nic, vms: directory.get(nic.group)?.vms.map(({ id }) => id) ?? [] }
  }
  const { capture, tickMs } = settings
  const { stays } = wiring
  const hypervisor = simHypervisor({ life, book, capture, tickMs, stays, nicOf, onTake: world.onTake }, machines)
  return {
    shards,
    shape: SHAPE,
    uplink: true,
    started: wiring.started(life.host.disk.startedFile(life)),
    readManifest: async hash => decodeSimManifest(await shards.getManifest(hash)),
    readTalks: async hash => decodeSimManifest(await shards.getManifest(hash)).talks ?? [],
    encodeManifest: encodeSimManifest,
    vm: {
      hypervisor,
      network,
      clock: life.clock,
      wallMs: () => life.host.wallMs(),
      serveBlocks: () => Promise.reject(new TypeError('simulated VMs have no disks')),
      log,
      openWorker: async (group, spec) => {
        await life.wait(1, 'opens a worker')
        return wiring.worker(new SimWorker(group, spec.id, { life, book, shards }))
      },
      path: (kind, group, vm) => `${kind}/${group}/${vm}`
    }
  }
}
