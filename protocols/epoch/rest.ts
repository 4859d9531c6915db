/**
 * The way of a group to rest and back, as pure changes of its record as in `record.ts`. A group that rests has no VM that runs, and
 * its committed epoch stays what it starts from; hosts that die meanwhile are nobody's concern.
 *
 *   idle ──open (rest)──▶ open ──commit──▶ resting ──start──▶ idle     each arrow into `resting` and out of it is
 *     │                    └───abort───▶ idle   ▲                      generation + 1
 *     └──────────rest now───────────────────────┘
 *
 * Usually it rests by an epoch (`openEpoch`, `commitEpoch`): its VMs stand still from their cuts on, so nothing that has happened
 * is lost. `restNow` goes without: what has happened since the committed epoch is lost, as in a restore.
 */
import type { PeerId } from '../core.ts'
import type { GroupRecord } from '../group.ts'
import { goBackTo } from './kept.ts'

/**
 * Rests at the committed epoch; an epoch that is open is void. Nothing where it rests already, where nothing is committed (its VMs
 * would boot anew), and where the group is of another generation by now.
 */
export function restNow(generation: number) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed || current.resting || current.committed === null) return undefined
    if (current.generation !== generation) return undefined
    return { ...current, version: current.version + 1, generation: generation + 1, open: null, resting: true }
  }
}

/**
 * A group that rests runs again: every VM goes on at its owner in `owners` from `epoch`, the committed one or one that is kept.
 * Nothing where it does not rest, where the group is of another generation by now, and else as in `goBackTo`.
 */
export function startGroup(generation: number, epoch: number, owners: Readonly<Record<string, PeerId>>) {
  const goBack = goBackTo(generation, epoch)
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.resting === undefined) return undefined
    const { resting: _, ...awake } = current
    const next = goBack(awake)
    return next && { ...next, owners }
  }
}
