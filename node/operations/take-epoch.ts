/** A snapshot now, because somebody asked for one. */
import { fateOf, type FateFacts } from '../../protocols/epoch/record.ts'
import type { GroupRecord, OpenEpoch } from '../../protocols/group.ts'
import type { EventFeed } from '../edge/events.ts'
import type { EpochResult } from '../edge/view.ts'
import { DiapauseError, hasCode } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** As often others may be first. A guess: an epoch by the group's policy, one that another person asked for. */
const TRIES = 3

export interface TakeEpochDeps {
  readonly events: Pick<EventFeed, 'subscribe'>
  readonly directory: { get(group: string): FateFacts | undefined }
  readonly epochClock: { propose(group: string): Promise<Pick<GroupRecord, 'open'>> }
  readonly clock: Pick<Clock, 'after'>
}

/**
 * Settles with what became of it. Where an epoch is open already it waits until that is decided, its deadline at most, and tries
 * again. GROUP_UNKNOWN; EPOCH_OPEN where others were first TRIES times; EPOCH_FORGOTTEN where this peer was away when it was decided,
 * and so long that nothing tells of it any more.
 */
export async function takeEpoch(deps: TakeEpochDeps, id: string): Promise<EpochResult> {
  const { events, directory, epochClock, clock } = deps
  const outcomes = new Map<unknown, PromiseWithResolvers<EpochResult>>()
  const outcomeOf = (epoch: unknown): PromiseWithResolvers<EpochResult> => {
    const outcome = outcomes.get(epoch) ?? Promise.withResolvers<EpochResult>()
    outcomes.set(epoch, outcome)
    return outcome
  }
  let ours: number | undefined
  // From the start: an epoch may be decided before we learn its number.
  const unsubscribe = events.subscribe(({ kind, group, epoch, reason }) => {
    if (group !== id || (ours !== undefined && epoch !== ours)) return
    const decided = { epoch: Number(epoch) }
    if (kind === 'epoch.committed') outcomeOf(epoch).resolve({ ...decided, outcome: 'committed' })
    if (kind === 'epoch.aborted') outcomeOf(epoch).resolve({ ...decided, outcome: 'aborted', reason: String(reason) })
  })
  /** Undefined: not by its deadline. */
  const endOf = async ({ epoch, deadlineMs }: OpenEpoch): Promise<EpochResult | undefined> => {
    const late = Promise.withResolvers<undefined>()
    const cancel = clock.after(deadlineMs, () => late.resolve(undefined))
    return await Promise.race([outcomeOf(epoch).promise, late.promise]).finally(cancel)
  }
  const resultOf = async (open: OpenEpoch): Promise<EpochResult> => {
    ours = open.epoch
    for (;;) {
      const result = (await endOf(open)) ?? decided(directory.get(id), open.epoch, id)
      if (result !== undefined) return result
    }
  }
  try {
    for (let tries = 1; ; tries++) {
      try {
        const { open } = await epochClock.propose(id)
        return await resultOf(open as OpenEpoch) // it has just opened one
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

/** By the record, where no event has told of it: the end of an epoch that came while this peer was away goes untold. */
function decided(record: FateFacts | undefined, epoch: number, group: string): EpochResult | undefined {
  const fate = record === undefined ? 'unknown' : fateOf(record, epoch)
  if (fate === 'open') return undefined
  if (fate === 'committed') return { epoch, outcome: 'committed' }
  if (fate === 'void') return { epoch, outcome: 'aborted', reason: 'why is not known here: this peer was away' }
  throw new DiapauseError(
    'EPOCH_FORGOTTEN',
    `What became of epoch ${epoch} of group "${group}" is not known here: this peer was away, and the group has gone on since.`
  )
}
