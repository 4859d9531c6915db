/**
 * The composition root: builds adapters and cores from a config, joins them, starts them in an order in which nothing
 * can act before it may, and stops them in the reverse. Nothing imports this file but `main.ts`.
 */
import type { Config } from '../config/schema.ts'
import { sharedSettings } from '../config/shared.ts'
import type { PeerId } from '../protocols/core.ts'
import { SPEAKS } from '../protocols/host-facts.ts'
import { type ClusterRecord, leavingHosts, memberById, placeable } from '../protocols/membership/record.ts'
import { EpochClock } from './agents/epoch-clock.ts'
import { Forgetting } from './agents/forgetting.ts'
import type { Report } from './agents/group-agent.ts'
import { Groups } from './agents/groups.ts'
import { Housekeeping } from './agents/housekeeping.ts'
import { membershipEvents } from './agents/membership-events.ts'
import { gatherFacts, leanReader } from './agents/membership-facts.ts'
import { answerJoin } from './agents/membership-joins.ts'
import { MembershipSteps } from './agents/membership-steps.ts'
import { RemovalNews } from './agents/removal-news.ts'
import { RestoreLine } from './agents/restore-line.ts'
import { TakeoverAgent } from './agents/takeover.ts'
import { EventFeed } from './edge/events.ts'
import type { ReadyPeer, RunningPeer } from './edge/view.ts'
import { messageOf } from './errors.ts'
import { wallMs } from './host/clock.ts'
import type { HomeCredentials } from './host/home-credentials.ts'
import { signedBy } from './host/identity.ts'
import { rememberInterfaces } from './host/interfaces.ts'
import { askWhetherRemoved } from './host/join.ts'
import { openLog } from './host/logging.ts'
import { openOwnPolicies } from './host/own-policies.ts'
import { goFirst } from './host/priority.ts'
import { Teardown } from './host/teardown.ts'
import { programVersion } from './host/version.ts'
import { vmMemoryMiB } from './host/vm-memory.ts'
import { olderMembers } from './planning/older-members.ts'
import { keepBy } from './planning/retention-policy.ts'
import { type Body, openBody } from './composition/body.ts'
import { type Home, openHome } from './composition/home.ts'
import { openNotifying } from './composition/notifying.ts'
import { openTracing } from './composition/tracing.ts'
import type { Run } from './composition/run.ts'
import { descriptionOf, serve } from './composition/serving.ts'
import { openVoice, type Voice } from './composition/voice.ts'

/** A member that is removed is still told so; then it is cut off. A guess: a message on a busy host. */
const FAREWELL_MS = 250

/** Whatever this process and its VMs make is for their user alone. */
const OWN = 0o077

/** What a peer is given beside its config. */
export interface Environment {
  /** For a second home whose config names none. */
  readonly credentials?: HomeCredentials | undefined
  /** Gets each line of the log; absent: standard output. */
  readonly writeLog?: ((line: string) => void) | undefined
  /** Why a crash of this process may leave a core dump (`leaveNoCore`); absent: it leaves none. */
  readonly whyCore?: string | undefined
}

/** Starts a peer. Rejects with a UsageError for what a person can mend: config, data folder, port, QEMU. */
export async function runPeer(config: Config, environment: Environment = {}): Promise<RunningPeer> {
  const { credentials, writeLog, whyCore } = environment
  const { log, logging, toggleDebug } = openLog({ level: config.log.level, name: config.peer.name }, writeLog)
  if (!goFirst()) log.info({}, 'not allowed to raise the priority: on a busy host pauses are longer')
  process.umask(OWN) // QEMU's, and those of the database, which take no mode
  const teardown = new Teardown()
  const unknown = 'the network interfaces of this host cannot be read now: those of last time are taken'
  teardown.add(rememberInterfaces(error => log.warn({ err: error }, unknown)))
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
    const run = { log, logging, teardown, events, report, stop, credentials }
    if (whyCore !== undefined) log.warn({ why: whyCore }, 'a crash of this peer may leave its keys in a core dump')
    const home = await openHome(config, run)
    const voice = await openVoice(home, run)
    const body = await openBody(home, voice, run)
    const ready = await start(home, voice, body, run)
    return { ready, stopped: ended.promise, stop: () => stop(), toggleDebug }
  } catch (error) {
    await teardown.run(log)
    throw error
  }
}

async function start(home: Home, voice: Voice, body: Body, run: Run): Promise<ReadyPeer> {
  const { events, report, teardown } = run
  const { config, log, clock, random, self } = home
  const { transport, decisions, registers, leases, detector, directory, membership, dataKeys, ids, floor } = voice
  const { network, store, hosting, repairing, describeManifest } = body
  events.subscribe(event => decisions.noteReport(event.kind, event))
  events.subscribe(event => voice.history.noteReport(event.kind, event))
  const shared = { self, directory, detector, clock, log, report, note: decisions.note }
  const storage = (): PeerId[] => placeable(membership.record())
  const leaving = (): PeerId[] => leavingHosts(membership.record())
  const { about } = voice.storagePeers
  const older = (): string[] => olderMembers(voice)
  const takeover = new TakeoverAgent({ ...shared, hosts: storage, leaving, about, shape: config.shards })
  const nameOf = (peer: PeerId): string => memberById(membership.record(), peer)?.name ?? peer
  const line = new RestoreLine({ ...shared, ...config.restore, bus: voice.bus })
  const where = { members: ids, storage, leaving, nameOf, placing: voice.placing, about, older, line }
  const keeping = () => keepBy(config.epochs.retention, wallMs(), older())
  const groups = new Groups({ ...shared, ...where, hosting, leases, network, keeping })
  const fetchManifest = hosting && ((hash: string) => hosting.shards.getManifest(hash))
  const stored = { store, floor, describeManifest, fetchManifest }
  const housekeeping = new Housekeeping({ ...shared, ...config.epochs, registers, ...stored })
  const modules = await openOwnPolicies(config.policies, log)
  teardown.add(() => modules.close())
  const epochClock = new EpochClock({ ...shared, ...config.epochs, history: voice.history, wallMs, modules })
  const forgetting = new Forgetting({ ...shared, ...config.epochs, membership, registers })
  const { holdersNow } = repairing ?? {}
  const seen = { ...voice, wallMs, readManifest: hosting && leanReader(hosting.readManifest), holdersNow }
  const facts = () => gatherFacts(seen)
  const leaseMs = (): number => voice.voter.longestMs
  const steps = new MembershipSteps({ ...shared, random, membership, dataKeys, registers, facts, leaseMs })
  const removal = followMembership(home, voice, takeover, run)
  const notifying = openNotifying(home, voice, body, run)
  openTracing(home, voice, run)

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
  notifying.start()
  for (const agent of [takeover, epochClock, housekeeping, forgetting, directory, membership, steps, line, groups])
    teardown.add(() => agent.stop())
  repairing?.start()
  const host = { vmMemoryMiB: store === undefined ? 0 : vmMemoryMiB(config.hypervisor), speaks: SPEAKS }
  voice.storagePeers.start(store && (async () => (await store.space()).freeBytes), host)
  teardown.add(() => repairing?.stop())
  const { notifications } = notifying
  const agents = { groups, takeover, epochClock, modules, seen, facts, notifications, removal }
  const api = await serve(home, voice, body, run, agents)
  report('peer.started', { id: self, hypervisor: descriptionOf(body) })
  // In the background: without a majority it waits for register timeouts, and the API should answer meanwhile.
  directory.start().catch((error: unknown) => log.error({ error: messageOf(error) }, 'groups could not be read'))
  return readyPeer(home, voice, api)
}

function readyPeer({ config, self }: Home, { membership }: Voice, api: ReadyPeer['api']): ReadyPeer {
  const { name, listen: listens } = config.peer
  const reached = memberById(membership.record(), self)?.address ?? listens
  return { name, id: self, version: programVersion(), addresses: { listens, reached }, api }
}

/** Who is a member, votes, or is invited: everybody here is told when it changes. */
function followMembership(home: Home, voice: Voice, takeover: TakeoverAgent, run: Run): RemovalNews {
  const { report, stop, teardown } = run
  const { config, clock, log, secret, self } = home
  const { transport, registers, leases, detector, membership, ids } = voice
  // Who was removed may ask, too: it is told so.
  const admit = ({ invites, removed }: ClusterRecord): void =>
    transport.setInvited(new Set([...invites.map(invite => invite.id), ...removed]))
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
  const removal = new RemovalNews({ ...home, ...voice, ask: member => askWhetherRemoved(home.privateKey, member) })
  removal.start()
  teardown.add(() => removal.stop())
  return removal
}
