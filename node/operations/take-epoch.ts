/** A snapshot now, because somebody asked for one. */
import type { GroupRecord, OpenEpoch } from '../../protocols/group.ts'
import type { EventFeed } from '../edge/events.ts'
import type { EpochResult } from '../edge/view.ts'
import { hasCode } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** As often others may be first. A guess: an epoch by the group's policy, one that another person asked for. */
const TRIES = 3

export interface TakeEpochDeps {
  readonly events: Pick<EventFeed, 'subscribe'>
  readonly directory: { get(group: string): Pick<GroupRecord, 'open'> | undefined }
  readonly epochClock: { propose(group: string): Promise<Pick<GroupRecord, 'open'>> }
  readonly clock: Pick<Clock, 'after'>
}

/**
 * Settles with what became of it. Where an epoch is open already it waits until that is decided, its deadline at most, and tries
 * again. GROUP_UNKNOWN; EPOCH_OPEN where others were first TRIES times.
 */
export async function takeEpoch(deps: TakeEpochDeps, id: string): Promise<EpochResult> {
  const { events, directory, epochClock, clock } = deps
  const outcomes = new Map<unknown, PromiseWithResolvers<EpochResult>>()
  const outcomeOf = (epoch: unknown): PromiseWithResolvers<EpochResult> => {
    const outcome = outcomes.get(epoch) ?? Promise.withResolvers<EpochResult>()
    outcomes.set(epoch, outcome)
    return outcome
  }
  // From the start: an epoch may be decided before we learn its number.
  const unsubscribe = events.subscribe(({ kind, group, epoch, reason }) => {
    if (group !== id) return
    const decided = { epoch: Number(epoch) }
    if (kind === 'epoch.committed') outcomeOf(epoch).resolve({ ...decided, outcome: 'committed' })
    if (kind === 'epoch.aborted') outcomeOf(epoch).resolve({ ...decided, outcome: 'aborted', reason: String(reason) })
  })
  const endOf = async ({ epoch, deadlineMs }: OpenEpoch): Promise<void> => {
    const late = Promise.withResolvers<void>()
    const cancel = clock.after(deadlineMs, () => late.resolve())
    await Promise.race([outcomeOf(epoch).promise, late.promise]).finally(cancel)
  }
  try {
    for (let tries = 1; ; tries++) {
      try {
        const { open } = await epochClock.propose(id)
        return await outcomeOf(open?.epoch).promise
      } catch (error) {
        if (tries === TRIES || !hasCode(error, 'EPOCH_OPEN')) throw error
      }
      const open = directory.get(id)?.open ?? null
      if (open !== null) await endOf(open)
    }
  } finally {
    unsubscribe()
  }
}
