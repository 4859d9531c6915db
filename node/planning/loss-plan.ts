/** What would become of a group if a host died now: who restores what, in which order, and how long that takes. Pure. */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import type { Obstacle } from '../../protocols/overview/outlook.ts'
import type { TalksOf } from './communication.ts'
import type { MeasuredParts } from './measured-parts.ts'
import { type ObstacleFacts, obstacleTo } from './obstacles.ts'
import { type Move, type PlacementFacts, placeRestore, without } from './placement.ts'
import { planRestoreLine, type RestoreLine } from './restore-line.ts'

export interface LossFacts extends Omit<ObstacleFacts, 'hasHomeless'> {
  readonly record: GroupRecord
  /** Of all that live now. */
  readonly placement: PlacementFacts
  readonly talks: TalksOf
  readonly togetherMs: number
  /** By VM, from earlier failovers. */
  readonly measured: Readonly<Record<string, MeasuredParts>>
}

export interface LossPlan {
  readonly lost: PeerId
  /** VMs that would have to find a host. All others of the group go back where they are. */
  readonly vms: readonly string[]
  /** In the order in which they find one. */
  readonly moves: readonly Move[]
  /** VMs for which nobody has room: while there are any, the group stays down. */
  readonly homeless: readonly VmSpec[]
  /** Absent: it would come back. */
  readonly obstacle?: Obstacle | undefined
  /** Times after the decision. */
  readonly line: RestoreLine
  /** Of the last failover that any VM of the group tells of; absent: there was none. */
  readonly detectMs?: number
  readonly decideMs?: number
  /** VMs of which no restore was measured: they count as the others' median, and all as 0 where nothing is known. */
  readonly unmeasured: readonly string[]
}

export function planLoss(lost: PeerId, facts: LossFacts): LossPlan {
  const { record, placement, talks, togetherMs, measured } = facts
  const ids = record.vms.map(({ id }) => id)
  const { moves, homeless } = placeRestore(record, without(placement, lost))
  const resumed = ids.flatMap(id => {
    const resumeMs = measured[id]?.resumeMs
    return resumeMs === undefined ? [] : [[id, resumeMs] as const]
  })
  const readyMs = Object.fromEntries(resumed)
  const last = (part: 'detectMs' | 'decideMs') => {
    const known = ids.flatMap(id => measured[id]?.[part] ?? [])
    return known.length === 0 ? {} : { [part]: Math.max(...known) }
  }
  return {
    lost,
    vms: ids.filter(id => record.owners[id] === lost),
    moves,
    homeless,
    obstacle: obstacleTo(lost, { ...facts, hasHomeless: homeless.length > 0 }),
    line: planRestoreLine({ vms: ids, talks, readyMs, togetherMs }),
    ...last('detectMs'),
    ...last('decideMs'),
    unmeasured: ids.filter(id => readyMs[id] === undefined)
  }
}

/** Each host that runs VMs of the group, if it is there to be lost. */
export const hostsToLose = ({ owners }: GroupRecord, { hosts, leaving = [] }: PlacementFacts): PeerId[] =>
  [...hosts, ...leaving].filter(host => Object.values(owners).includes(host)).sort()
