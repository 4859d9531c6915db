/** Joins what an operator sees and asks (`operations/`) with the API that shows it (`edge/`). */
import { randomBytes, randomUUID } from 'node:crypto'
import type { GroupRecord } from '../../protocols/group.ts'
import { memberById } from '../../protocols/membership/record.ts'
import type { EpochClock } from '../agents/epoch-clock.ts'
import { EpochReaders } from '../agents/epoch-readers.ts'
import type { Groups } from '../agents/groups.ts'
import { gatherFacts, neededImages } from '../agents/membership-facts.ts'
import type { Notifications } from '../agents/notifications.ts'
import type { RemovalNews } from '../agents/removal-news.ts'
import type { TakeoverAgent } from '../agents/takeover.ts'
import { serveApi } from '../edge/api.ts'
import type { PeerParts, ReadyPeer } from '../edge/view.ts'
import { wallMs } from '../host/clock.ts'
import { identityFromSeed } from '../host/identity.ts'
import { programVersion } from '../host/version.ts'
import { DrillOperations } from '../operations/drills.ts'
import { EpochOperations } from '../operations/epochs.ts'
import { GroupImport } from '../operations/group-import.ts'
import { HomeOperations } from '../operations/home.ts'
import { ImageOperations } from '../operations/images.ts'
import { MemberOperations } from '../operations/members.ts'
import { openConsoles } from './consoles.ts'
import { openOutlooks } from './outlooks.ts'
import { openTcpApi } from './tcp-api.ts'
import { openReading } from './reading.ts'
import { NotificationOperations } from '../operations/notifications.ts'
import { peerView } from '../operations/operations.ts'
import { PolicyOperations } from '../operations/policies.ts'
import { RedundancyOperations } from '../operations/redundancy.ts'
import { RestOperations } from '../operations/rest.ts'
import { TokenOperations } from '../operations/tokens.ts'
import type { PolicyModules } from '../ports.ts'
import type { Body } from './body.ts'
import type { Home } from './home.ts'
import type { Voice } from './voice.ts'
import type { Run } from './run.ts'

/** What is seen of the agents from outside. */
export interface Served {
  readonly groups: Groups
  readonly takeover: TakeoverAgent
  readonly epochClock: EpochClock
  readonly modules: PolicyModules
  readonly seen: Parameters<typeof gatherFacts>[0] & Parameters<typeof neededImages>[0]
  readonly facts: () => ReturnType<typeof gatherFacts>
  readonly notifications: Notifications
  readonly removal: RemovalNews
}

export const descriptionOf = ({ hypervisor }: Body): string => hypervisor?.description ?? 'none (witness)'

/** What an operator may see and ask, on the API's socket and over TCP: where. */
export async function serve(home: Home, voice: Voice, body: Body, run: Run, agents: Served): Promise<ReadyPeer['api']> {
  const { events, teardown } = run
  const { config, log, clock, self, runDir } = home
  const { directory, membership } = voice
  const { network, store, hosting, repairing, hypervisor, refusedShards, imageFiles } = body
  const booting = imageFiles?.booting
  const lacking = booting && ((...asked: Parameters<typeof booting.lacking>) => booting.lacking(...asked))
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
  const placed = { facts: (record: GroupRecord) => agents.takeover.facts(record) }
  const reading = { policy: config.epochs.retention, readManifest: hosting?.readManifest }
  const epochs = new EpochOperations({ ...noted, ...placed, ...reading })
  const redundancy = new RedundancyOperations({ storing: repairing, membership, clock })
  const imagesOf = repairing && ((record: GroupRecord) => repairing.redundancy.imagesOf(record))
  const outlooks = openOutlooks({ ...parts, imagesOf, log, report: run.report })
  teardown.add(() => outlooks.objectives.stop())
  const status = () => view.status()
  const reads = openReading({ ...parts, redundancy: repairing?.redundancy, wallMs, status, teardown })
  const nameOf = (peer: string): string => memberById(membership.record(), peer)?.name ?? peer
  const all: PeerParts = {
    events,
    metrics: voice.metrics,
    cluster,
    ...shown,
    redundancy,
    epochs,
    rest: new RestOperations({ ...parts, epochs }),
    consoles: openConsoles(home, voice, agents.groups),
    notifications: new NotificationOperations({ ...parts, nameOf, targets: config.notifications }),
    tokens: new TokenOperations({ ...voice, events, clock, wallMs, randomBytes }),
    logging: run.logging,
    reads,
    policies: new PolicyOperations({ ...parts, nameOf, partsIfLost: (...of) => outlooks.plans.partsIfLost(...of) }),
    plans: outlooks.plans
  }
  const { objectives } = outlooks
  const view = peerView(all, { ...parts, redundancy, objectives, network, store, refusedShards, lacking })
  const api = await serveApi({ view, runDir, log })
  teardown.add(() => api.close())
  return { socket: api.socketPath, url: (await openTcpApi(home, voice, view, run)) ?? null }
}

/** Images as files, in the second home, and in drills. */
export async function openImages(home: Home, voice: Voice, body: Body, run: Run) {
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
