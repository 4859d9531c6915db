/** What an operator can ask about drills: the API's `DrillView` over the agents. */
import { scheduleDrills } from '../../protocols/epoch/drills.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Drills } from '../agents/drills.ts'
import type { DrillView, ScheduleWish } from '../edge/drill-view.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import { memberOlder, olderMembers, type VersionFacts } from '../planning/older-members.ts'
import type { DrillReport, DrillWish } from '../ports.ts'

export interface DrillOperationsDeps extends VersionFacts {
  readonly directory: Pick<GroupDirectory, 'change'>
  /** Undefined at a witness. */
  readonly drills: Pick<Drills, 'run'> | undefined
  /** `drills.checks`. */
  readonly checks: Readonly<Record<string, string>>
}

export class DrillOperations implements DrillView {
  readonly #deps: DrillOperationsDeps

  constructor(deps: DrillOperationsDeps) {
    this.#deps = deps
  }

  async run(wish: DrillWish, tell: (text: string) => void, signal: AbortSignal): Promise<DrillReport> {
    const { drills } = this.#deps
    if (drills === undefined) {
      throw new UsageError('NOT_STORAGE', 'this peer is a witness and runs no VMs: ask a storage member')
    }
    return await drills.run(wish, { tell, signal })
  }

  async schedule(group: string, wish: ScheduleWish | undefined): Promise<GroupRecord> {
    const { directory, checks, drills } = this.#deps
    const { check } = wish ?? {}
    if (drills !== undefined && check !== undefined && checks[check] === undefined) {
      const known = Object.keys(checks).join(', ')
      const has = known === '' ? 'it has none' : `it has ${known}`
      throw new UsageError(
        'DRILL_CHECK_UNKNOWN',
        `this peer has no check "${check}" under [drills.checks] of its config (${has}); put it there, at every member that may run VMs of the group`
      )
    }
    const older = wish === undefined ? [] : olderMembers(this.#deps)
    if (older.length > 0) throw memberOlder(older, 'a schedule of drills')
    const record = await directory.change(group, scheduleDrills(wish))
    if (record !== null && !record.removed) return record
    throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
  }
}
