/** The part of the composition root that knows what would become of VMs if a host died: for who asks, and against their objectives. */
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Report } from '../agents/group-agent.ts'
import { Objectives } from '../agents/objectives.ts'
import { wallMs } from '../host/clock.ts'
import { PlanOperations, type PlanOperationsDeps } from '../operations/plans.ts'
import { partsBySettings } from '../planning/outlook.ts'
import type { Clock, EpochHistory, Log } from '../ports.ts'

export interface OutlooksDeps extends PlanOperationsDeps {
  readonly config: Pick<Config, 'detector' | 'lease' | 'restore'>
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly history: EpochHistory
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
}

/** Objectives are watched from now on. */
export function openOutlooks(deps: OutlooksDeps): { plans: PlanOperations; objectives: Objectives } {
  const { config, self } = deps
  const plans = new PlanOperations(deps)
  const objectives = new Objectives({
    ...deps,
    wallMs,
    measured: group => plans.partsIfLost(group, self),
    imagesOf: async record => (await deps.imagesOf?.(record)) ?? [],
    obstacle: (record, images) => plans.obstacleIfLost(record, self, images),
    bySettings: partsBySettings(config.detector, config.lease)
  })
  objectives.start()
  return { plans, objectives }
}
