/** The part of the composition root that joins what drills need; a witness does not load it. */
import { join } from 'node:path'
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { DrillRunDeps } from '../agents/drill-run.ts'
import { ScheduledDrills } from '../agents/drill-schedule.ts'
import { Drills } from '../agents/drills.ts'
import type { Hosting, Report } from '../agents/group-agent.ts'
import type { Keepers } from '../agents/keepers.ts'
import { RestoreLine } from '../agents/restore-line.ts'
import { createDrillHost } from '../host/drill-room.ts'
import { wallMs } from '../host/clock.ts'
import { olderMembers, type VersionFacts } from '../planning/older-members.ts'
import type { Clock, ControlBus, FailureDetector, Log, Switch, Transport } from '../ports.ts'
import { createSwitch } from '../switch/switch.ts'

export interface DrillingDeps {
  readonly config: Config
  readonly self: PeerId
  /** Of this run of the peer. */
  readonly run: string
  readonly runDir: string
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  readonly directory: GroupDirectory
  readonly keepers: Keepers
  readonly membership: { record(): ClusterRecord }
  readonly detector: FailureDetector
  readonly storagePeers: VersionFacts['storagePeers']
  readonly hosting: Hosting
  readonly openAlone: DrillRunDeps['openWorker']
}

export interface Drilling {
  readonly drills: Drills
  stop(): Promise<void>
}

export function openDrilling(deps: DrillingDeps): Drilling {
  const { config, self, runDir, clock, log, directory, membership, hosting, openAlone } = deps
  const { togetherMs } = config.restore
  const drills = new Drills({
    ...deps,
    ...hosting,
    wallMs,
    nameOf: peer => memberById(membership.record(), peer)?.name ?? peer,
    memoryMiB: config.drills.memoryMiB,
    olderMembers: () => olderMembers(deps),
    openLine: () => new RestoreLine({ self, bus: silence(self), clock, directory, togetherMs }),
    openWorker: openAlone,
    openNetwork: () => switchOfItsOwn(deps),
    host: createDrillHost({ runDir, log, program: [process.execPath, join(import.meta.dirname, '../main.ts')] })
  })
  const scheduled = new ScheduledDrills({ ...deps, drills, wallMs, checks: config.drills.checks })
  return {
    drills,
    async stop() {
      await Promise.all([scheduled.stop(), drills.stop()])
    }
  }
}

/** No link leads out of it: not to the live VMs of this host, other groups or peers, nor to the uplink or the bridge. */
export const switchOfItsOwn = ({ self, clock, log }: Pick<DrillingDeps, 'self' | 'clock' | 'log'>): Switch =>
  createSwitch({ self, transport: nobody(self), clock, log, mayAct: () => true })

/** No peer is there, and none ever comes. */
const nobody = (self: PeerId): Transport => ({
  self,
  connected: () => false,
  send: () => false,
  write: () => Promise.reject(new TypeError('a drill has no way to other peers')),
  handle: () => {},
  onConnection: () => {},
  start: async () => {},
  stop: async () => {}
})

/** All VMs of a drill are here. */
const silence = (self: PeerId): ControlBus => ({ self, send: () => false, on: () => {} })
