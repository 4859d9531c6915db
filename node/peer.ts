/**
 * The composition root: builds adapters and cores from a config, joins them, starts them in an order in which nothing
 * can act before it may, and stops them in the reverse. Nothing imports this file but `main.ts`.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { pino } from 'pino'
import { runDirOf } from '../config/limits.ts'
import type { Config } from '../config/schema.ts'
import { sharedSettings } from '../config/shared.ts'
import type { PeerId } from '../protocols/core.ts'
import { createFailureDetector } from '../protocols/failure-detector/shell.ts'
import { groupKey } from '../protocols/group.ts'
import { leaseMarginMs } from '../protocols/lease/holder.ts'
import { createLeases } from '../protocols/lease/shell.ts'
import { LeaseVoter } from '../protocols/lease/voter.ts'
import { type ClusterRecord, leavingHosts, memberById, placeable } from '../protocols/membership/record.ts'
import { createRegisters } from '../protocols/register/shell.ts'
import { createControlBus } from '../protocols/service.ts'
import { createTransport } from '../protocols/transport.ts'
import { createDecisionLog } from './agents/decisions.ts'
import { DataKeyRing } from './agents/data-keys.ts'
import { GroupDirectory } from './agents/directory.ts'
import { EpochReaders } from './agents/epoch-readers.ts'
import { Forgetting } from './agents/forgetting.ts'
import type { Report } from './agents/group-agent.ts'
import { Groups } from './agents/groups.ts'
import { Housekeeping } from './agents/housekeeping.ts'
import { membershipEvents } from './agents/membership-events.ts'
import { LostMembers } from './agents/lost-members.ts'
import { gatherFacts, leanReader, neededImages } from './agents/membership-facts.ts'
import { answerJoin } from './agents/membership-joins.ts'
import { MembershipSteps } from './agents/membership-steps.ts'
import { MembershipAgent } from './agents/membership.ts'
import { Placing } from './agents/placing.ts'
import { RestoreLine } from './agents/restore-line.ts'
import { StoragePeers } from './agents/storage-peers.ts'
import { TakeoverAgent } from './agents/takeover.ts'
import { serveApi } from './edge/api.ts'
import { EventFeed } from './edge/events.ts'
import type { RunningPeer } from './edge/view.ts'
import { messageOf, UsageError } from './errors.ts'
import { systemClock, wallMs } from './host/clock.ts'
import { clusterAtStart, readCluster, saveCluster } from './host/cluster-file.ts'
import { openDataDir } from './host/data-dir.ts'
import type { HomeCredentials } from './host/home-credentials.ts'
import { identityFromSeed, identitySeed, loadOrCreateIdentity, signedBy } from './host/identity.ts'
import { createKeyBox } from './host/key-box.ts'
import { goFirst } from './host/priority.ts'
import { readSecret } from './host/secret.ts'
import { Teardown } from './host/teardown.ts'
import { unacknowledged } from './host/unacknowledged.ts'
import { vmMemoryMiB } from './host/vm-memory.ts'
import { programVersion } from './host/version.ts'
import { DrillOperations } from './drill-operations.ts'
import { EpochOperations } from './epoch-operations.ts'
import { GroupImport } from './group-import.ts'
import { HomeOperations } from './home-operations.ts'
import { ImageOperations } from './image-operations.ts'
import { MemberOperations } from './member-operations.ts'
import { openOutlooks } from './outlooks.ts'
import { Operations } from './operations.ts'
import { keepBy } from './planning/retention-policy.ts'
import type { Log } from './ports.ts'
import { RedundancyOperations } from './redundancy-operations.ts'
import { openDecisionStore } from './store/decision-log.ts'
import { openRegisterStore } from './store/register-store.ts'
import { createSwitch } from './switch/switch.ts'
import { openTrace } from './switch/trace.ts'

/** A member that is removed is still told so; then it is cut off. A guess: a message on a busy host. */
const FAREWELL_MS = 250

/** What every part of a peer needs to begin, to tell, and to end. */
interface Run {
  readonly log: Log
  readonly teardown: Teardown
  readonly events: EventFeed
  readonly report: Report
  stop(error?: Error): Promise<void>
  readonly credentials: HomeCredentials | undefined
}

/** What a peer is given beside its config. */
export interface Environment {
  /** For a second home whose config names none. */
  readonly credentials?: HomeCredentials | undefined
}

/** Starts a peer. Rejects with a UsageError for what a person can mend: config, data folder, port, QEMU. */
export async function runPeer(config: Config, { credentials }: Environment = {}): Promise<RunningPeer> {
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
  const events = new EventFeed(wallMs)
  const report: Report = (kind, fields) => {
    events.emit(kind, fields)
    log.info({ kind, ...fields }, kind)
  }
  try {
    const run = { log, teardown, events, report, stop, credentials }
    const home = await openHome(config, run)
    const voice = await openVoice(home, run)
    const body = await openBody(home, voice, run)
    await start(home, voice, body, run)
  } catch (error) {
    await teardown.run(log)
    throw error
  }
  return { stopped: ended.promise, stop: () => stop() }
}

/** Who this peer is and where it lives. Stale copies of its VMs are dead when this resolves. */
async function openHome(config: Config, { log, teardown }: Run) {
  const { dataDir } = config.peer
  const runDir = runDirOf(config.peer)
  const { privateKey, peerId: self } = await loadOrCreateIdentity(dataDir)
  const cluster = await clusterAtStart(config, self)
  const data = await openDataDir({ dataDir, peerId: self, cluster: config.cluster.name })
  teardown.add(() => data.close())
  if (!isDeepStrictEqual(await readCluster(dataDir), cluster)) await saveCluster(dataDir, cluster)
  const { secretFile } = config.cluster
  const secret = secretFile === undefined ? undefined : await readSecret(secretFile)
  if (secret === undefined && cluster.keys === undefined) {
    throw new UsageError('SECRET_MISSING', 'cluster.secretFile is missing, and the cluster has no other data key yet')
  }
  await mkdir(join(runDir, 'console'), { recursive: true, mode: 0o700 })
  // A witness loads nothing of what VMs need: it is to be small.
  const storing = memberById(cluster, self)?.role === 'storage'
  const hosting = storing ? await import('./hosting.ts') : undefined
  await hosting?.clearStale({ self, runDir, dataDir, clock: systemClock, log })
  teardown.add(() => hosting?.removeVmSockets(runDir)) // a VM that was ended while it was being resumed leaves one
  return {
    config,
    log,
    clock: systemClock,
    random: Math.random,
    self,
    privateKey,
    box: createKeyBox(self, identitySeed(privateKey)),
    secret,
    runDir,
    hosting,
    data,
    /** What this peer knew of its cluster when it started; `voice.membership` knows more. */
    cluster
  }
}
type Home = Awaited<ReturnType<typeof openHome>>

/** All that speaks with other peers and decides with them. Nothing is said before `start`. */
async function openVoice(home: Home, { report, teardown, stop }: Run) {
  const { config, log, clock, random, self, cluster, data } = home
  const { dataDir, listen, mdns } = config.peer
  const { name, members } = cluster
  const transport = await createTransport({ ...home, listen, mdns, cluster: name, members })
  const bus = createControlBus(transport, log, name)
  const record = (): ClusterRecord => membership.record()
  const ids = (): PeerId[] => record().members.map(member => member.id)
  const decisions = await createDecisionLog({
    self,
    bus,
    clock,
    wallMs,
    log,
    version: programVersion(),
    store: await openDecisionStore(join(dataDir, 'decisions'), log),
    members: () => record().members,
    voters: () => record().voters.ids
  })
  teardown.add(() => decisions.stop())
  const { note, noteBallot, noteLease } = decisions
  const store = await openRegisterStore(join(dataDir, 'registers'), { made: data.hadRegisters })
  teardown.add(() => store.close())
  if (!data.hadRegisters) await data.noteRegisters()
  const voter = new LeaseVoter(config.lease)
  const onBroken = (error: Error): void => void stop(error)
  const onNewer = (from: PeerId): void => membership.askOf(from)
  const shared = { self, voters: cluster.voters, bus, clock, random, log, onNewer }
  const registerParts = { store, guard: voter, settings: config.register, onBroken, onDecision: noteBallot }
  const registers = createRegisters({ ...shared, ...registerParts })
  const generationOf = (key: string): Promise<number> => registers.generationOf(key)
  const leases = createLeases({ ...shared, settings: config.lease, voter, generationOf, onTrace: noteLease })
  let takingBack: NodeJS.Immediate | undefined
  leases.onLapse(() => {
    // Once for all groups, and after their VMs are paused: the kernel takes milliseconds to list its connections.
    takingBack ??= setImmediate(() => {
      takingBack = undefined
      transport.takeBack(unacknowledged())
    })
  })
  const save = (now: ClusterRecord): Promise<void> => saveCluster(dataDir, now)
  const membership = new MembershipAgent({ ...shared, initial: cluster, transport, registers, save })
  const atFirst = members.map(member => member.id)
  const detector = createFailureDetector({ ...shared, members: atFirst, settings: config.detector, transport, note })
  detector.onChange((peer, liveness, why) => report('liveness', { peer, liveness, why }))
  const dataKeys = new DataKeyRing({ self, membership, box: home.box, secret: home.secret, wallMs })
  const lost = new LostMembers({ detector, clock, ...config.membership })
  teardown.add(() => lost.stop())
  const floor = (): number => record().groupFloor
  const directory = new GroupDirectory({ ...shared, members: ids, floor, transport, registers })
  decisions.follow(directory)
  const storagePeers = new StoragePeers({ ...shared, ...config.peer, transport, members: ids })
  teardown.add(() => storagePeers.stop())
  const placing = new Placing({ self, transport, about: storagePeers.about })
  const known = { lost, dataKeys, directory, membership, ids, floor, storagePeers, placing }
  return { transport, bus, decisions, registers, voter, leases, detector, ...known }
}
type Voice = Awaited<ReturnType<typeof openVoice>>

/** VMs, their network and shards. A witness has the switch only, which nothing is attached to. */
async function openBody(home: Home, voice: Voice, { teardown, report }: Run) {
  const { config, log, clock, self } = home
  const { transport, leases } = voice
  const marginMs = leaseMarginMs(config.lease)
  const mayAct = (group: string, generation: number): boolean =>
    leases.remainingMs(groupKey(group), generation) > marginMs
  const directory = join(config.peer.dataDir, 'frames')
  const { bufferMemoryMiB, bufferDiskMiB } = config.switch
  const room = { directory, memoryBytes: bufferMemoryMiB * 2 ** 20, diskBytes: bufferDiskMiB * 2 ** 20 }
  const { traceFile } = config.switch
  const trace = traceFile === undefined ? undefined : openTrace(traceFile, log)
  teardown.add(() => trace?.close())
  const bridged = home.hosting !== undefined && config.switch.openFlow !== undefined
  const own = createSwitch({ self, transport, clock, log, mayAct, trace, room, bridged })
  const network = (await home.hosting?.openBridge({ ...home, ...voice }, own, teardown)) ?? own
  if (home.hosting !== undefined && config.switch.uplink !== 'none') {
    teardown.add(await home.hosting.openUplink(home, network))
  }
  const parts = await home.hosting?.openHosting({ ...home, ...voice, network, report, teardown })
  teardown.add(() => parts?.store.close())
  return { network, ...parts }
}
type Body = Awaited<ReturnType<typeof openBody>>

async function start(home: Home, voice: Voice, body: Body, run: Run) {
  const { events, report, teardown } = run
  const { config, log, clock, random, self } = home
  const { transport, decisions, registers, leases, detector, directory, membership, dataKeys, ids, floor } = voice
  const { network, store, hosting, repairing, describeManifest } = body
  events.subscribe(event => decisions.noteReport(event.kind, event))
  const shared = { self, directory, detector, clock, log, report, note: decisions.note }
  const storage = (): PeerId[] => placeable(membership.record())
  const leaving = (): PeerId[] => leavingHosts(membership.record())
  const { about } = voice.storagePeers
  const takeover = new TakeoverAgent({ ...shared, hosts: storage, leaving, about, shape: config.shards })
  const nameOf = (peer: PeerId): string => memberById(membership.record(), peer)?.name ?? peer
  const line = new RestoreLine({ ...shared, ...config.restore, bus: voice.bus })
  const where = { members: ids, storage, leaving, nameOf, placing: voice.placing, about, line }
  const keeping = () => keepBy(config.epochs.retention, wallMs())
  const groups = new Groups({ ...shared, ...where, hosting, leases, network, keeping })
  const fetchManifest = hosting && ((hash: string) => hosting.shards.getManifest(hash))
  const stored = { store, floor, describeManifest, fetchManifest }
  const housekeeping = new Housekeeping({ ...shared, ...config.epochs, registers, ...stored })
  const forgetting = new Forgetting({ ...shared, ...config.epochs, membership, registers })
  const { holdersNow } = repairing ?? {}
  const seen = { ...voice, wallMs, readManifest: hosting && leanReader(hosting.readManifest), holdersNow }
  const facts = () => gatherFacts(seen)
  const leaseMs = (): number => voice.voter.longestMs
  const steps = new MembershipSteps({ ...shared, random, membership, dataKeys, registers, facts, leaseMs })
  followMembership(home, voice, takeover, run)

  // Whoever hears of a group may start its VMs at once: what that needs is ready before anything can be heard.
  await registers.start()
  teardown.add(() => registers.stop())
  leases.start()
  teardown.add(() => leases.stop())
  await transport.start()
  teardown.add(() => transport.stop())
  detector.start()
  teardown.add(() => detector.stop())
  membership.start()
  steps.start()
  for (const agent of [takeover, housekeeping, forgetting, directory, membership, steps, line, groups])
    teardown.add(() => agent.stop())
  repairing?.start()
  const host = { vmMemoryMiB: vmMemoryMiB(config.hypervisor) }
  if (store !== undefined) voice.storagePeers.start(async () => (await store.space()).freeBytes, host)
  teardown.add(() => repairing?.stop())
  await serve(home, voice, body, run, { groups, takeover, housekeeping, seen, facts })
  report('peer.started', { id: self, hypervisor: descriptionOf(body) })
  // In the background: without a majority it waits for register timeouts, and the API should answer meanwhile.
  directory.start().catch((error: unknown) => log.error({ error: messageOf(error) }, 'groups could not be read'))
}

/** What is seen of the agents from outside. */
interface Served {
  readonly groups: Groups
  readonly takeover: TakeoverAgent
  readonly housekeeping: Housekeeping
  readonly seen: Parameters<typeof gatherFacts>[0] & Parameters<typeof neededImages>[0]
  readonly facts: () => ReturnType<typeof gatherFacts>
}

const descriptionOf = ({ hypervisor }: Body): string => hypervisor?.description ?? 'none (witness)'

/** What an operator may see and ask, on the API's socket. */
async function serve(home: Home, voice: Voice, body: Body, run: Run, agents: Served) {
  const { events, teardown } = run
  const { config, log, clock, self, runDir } = home
  const { directory, membership } = voice
  const { network, store, hosting, repairing, hypervisor, refusedShards } = body
  const { seen, facts } = agents
  const capture = hypervisor === undefined ? null : { mode: hypervisor.capture, why: hypervisor.captureWhy }
  const newInvite = async () => {
    const seed = randomBytes(32)
    return { id: (await identityFromSeed(seed)).peerId, seed }
  }
  const cluster = new MemberOperations({
    ...seen,
    ...voice,
    code: config.shards,
    facts,
    neededImages: () => neededImages(seen),
    newInvite
  })
  const parts = {
    ...voice,
    ...agents,
    config,
    self,
    version: programVersion(),
    hypervisor: descriptionOf(body),
    capture,
    events,
    clock
  }
  const shown = await openImages(home, voice, body, run)
  const noted = { directory, events, note: voice.decisions.note }
  const epochs = new EpochOperations({ ...noted, policy: config.epochs.retention, readManifest: hosting?.readManifest })
  const redundancy = new RedundancyOperations({ storing: repairing, membership, clock })
  const outlooks = openOutlooks({ ...parts, log, report: run.report })
  teardown.add(() => outlooks.objectives.stop())
  const view = new Operations({
    ...parts,
    cluster,
    ...shown,
    redundancy,
    epochs,
    ...outlooks,
    network,
    store,
    refusedShards
  })
  const api = await serveApi({ view, runDir, log })
  teardown.add(() => api.close())
}

/** Images as files, in the second home, and in drills. */
async function openImages(home: Home, voice: Voice, body: Body, run: Run) {
  const { self, log, clock, config } = home
  const { events, teardown } = run
  const { hosting, imageFiles, openHomes, openDrilling } = body
  const imports = new GroupImport({ ...voice, ...config.epochs, self, clock, log, events })
  const shared = { ...home, ...voice, self, events, log, wallMs, imports, run: randomUUID() }
  const readers = new EpochReaders({ ...shared, kind: 'file' })
  const tools = await openHomes?.({ ...shared, report: run.report, credentials: run.credentials })
  teardown.add(() => tools?.stop())
  const drilling = openDrilling?.({ ...shared, report: run.report })
  teardown.add(() => drilling?.stop())
  return {
    images: new ImageOperations({ ...shared, readers, hosting, files: imageFiles }),
    home: new HomeOperations({ ...shared, tools }),
    drills: new DrillOperations({ ...shared, drills: drilling?.drills, checks: config.drills.checks })
  }
}

/** Who is a member, votes, or is invited: everybody here is told when it changes. */
function followMembership(home: Home, voice: Voice, takeover: TakeoverAgent, { report, stop }: Run): void {
  const { config, clock, log, secret, self } = home
  const { transport, registers, leases, detector, membership, ids } = voice
  const admit = ({ invites }: ClusterRecord): void => transport.setInvited(new Set(invites.map(invite => invite.id)))
  const joins = { membership, secret, settings: sharedSettings(config), log, wallMs, verify: signedBy }
  transport.onJoin((invite, request) => answerJoin(joins, invite, request))
  admit(membership.record())
  membership.onChange((record, before) => {
    admit(record)
    registers.setVoters(record.voters)
    leases.setVoters(record.voters)
    detector.setMembers(ids())
    // Who was removed hears of it before the line is cut.
    const gone = before.members.filter(member => memberById(record, member.id) === undefined)
    transport.setMembers([...record.members, ...gone])
    if (gone.length > 0) clock.after(FAREWELL_MS, () => transport.setMembers(membership.record().members))
    takeover.considerAll()
    for (const { kind, ...fields } of membershipEvents(before, record)) report(kind, fields)
    if (memberById(record, self) === undefined) void stop()
  })
}
