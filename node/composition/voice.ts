/** Joins all that a peer speaks and decides with: transport, registers, leases, membership. */
import { join } from 'node:path'
import type { PeerId } from '../../protocols/core.ts'
import { committedMsOf } from '../../protocols/epoch/history.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import type { ToldChange } from '../../protocols/failure-detector/told.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { createLeases } from '../../protocols/lease/shell.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { createRegisters } from '../../protocols/register/shell.ts'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import { createControlBus } from '../../protocols/service.ts'
import { createTransport } from '../../protocols/transport.ts'
import { createDecisionLog } from '../agents/decisions.ts'
import { DataKeyRing } from '../agents/data-keys.ts'
import { GroupDirectory } from '../agents/directory.ts'
import { createEpochHistory } from '../agents/epoch-history.ts'
import { Keepers } from '../agents/keepers.ts'
import { LostMembers } from '../agents/lost-members.ts'
import { MembershipAgent } from '../agents/membership.ts'
import { Placing } from '../agents/placing.ts'
import { StoragePeers } from '../agents/storage-peers.ts'
import { Metrics } from '../edge/metrics.ts'
import { wallMs } from '../host/clock.ts'
import { saveCluster } from '../host/cluster-file.ts'
import { unacknowledged } from '../host/unacknowledged.ts'
import { programVersion } from '../host/version.ts'
import { openDecisionStore } from '../store/decision-log.ts'
import { openEpochHistoryStore } from '../store/epoch-history.ts'
import { openRegisterStore } from '../store/register-store.ts'
import type { Home } from './home.ts'
import type { Run } from './run.ts'

/** All that speaks with other peers and decides with them. Nothing is said before `start`. */
export async function openVoice(home: Home, run: Run) {
  const { report, teardown, stop } = run
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
  const metrics = openMetrics(self, group => directory.get(group), run)
  const onDecision = (trace: DecisionTrace): void => {
    noteBallot(trace)
    metrics.onDecision(trace)
  }
  const registerParts = { store, guard: voter, settings: config.register, onBroken, onDecision }
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
  const onTold = (change: ToldChange): void => report('liveness', { ...change })
  const detectorParts = { settings: config.detector, transport, note, onTold }
  const detector = createFailureDetector({ ...shared, members: atFirst, ...detectorParts })
  const dataKeys = new DataKeyRing({ self, membership, box: home.box, secret: home.secret, wallMs })
  const lost = new LostMembers({ detector, clock, ...config.membership })
  teardown.add(() => lost.stop())
  const floor = (): number => record().groupFloor
  const directory = new GroupDirectory({ ...shared, members: ids, floor, transport, registers })
  const keepers = new Keepers({ self, directory, detector, membership })
  decisions.follow(directory)
  const historyStore = await openEpochHistoryStore(join(dataDir, 'epochs'), log)
  const history = await createEpochHistory({ directory, clock, wallMs, log, store: historyStore })
  teardown.add(() => history.stop())
  metrics.committedMs = (group, epoch) => committedMsOf(history.of(group), epoch)
  const storagePeers = new StoragePeers({ ...shared, ...config.peer, transport, members: ids })
  teardown.add(() => storagePeers.stop())
  const placing = new Placing({ self, transport, about: storagePeers.about })
  const known = { keepers, history, lost, dataKeys, directory, membership, ids, floor, storagePeers, placing }
  return { metrics, transport, bus, decisions, registers, voter, leases, detector, ...known }
}

/** `recordOf` is asked when something has happened, not before. */
function openMetrics(self: PeerId, recordOf: (group: string) => GroupRecord | undefined, run: Run): Metrics {
  const runsFirst = (group: string): boolean => {
    const record = recordOf(group)
    return record?.owners[record.vms[0]?.id ?? ''] === self
  }
  const metrics = new Metrics(runsFirst)
  metrics.measureProcess()
  run.teardown.add(run.events.subscribe(event => metrics.onEvent(event)))
  return metrics
}

export type Voice = Awaited<ReturnType<typeof openVoice>>
