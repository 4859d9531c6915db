/** Groups that rest: the API's `RestView` over the agents. */
import { restNow } from '../../protocols/epoch/rest.ts'
import { cameTooLate } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { EpochClock } from '../agents/epoch-clock.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { EpochView, RestoreWish } from '../edge/epoch-view.ts'
import type { EventFeed } from '../edge/events.ts'
import type { RestView, StopWish } from '../edge/rest-view.ts'
import { DiapauseError, hasCode, UsageError } from '../errors.ts'
import { memberOlder, olderMembers, type VersionFacts } from '../planning/older-members.ts'
import type { Clock } from '../ports.ts'
import { takeEpoch } from './take-epoch.ts'

export interface RestOperationsDeps extends VersionFacts {
  readonly directory: Pick<GroupDirectory, 'get' | 'refresh' | 'change'>
  readonly events: Pick<EventFeed, 'emit' | 'subscribe'>
  readonly epochClock: Pick<EpochClock, 'propose'>
  readonly epochs: Pick<EpochView, 'restore'>
  readonly clock: Pick<Clock, 'after'>
}

/**
 * How long a group that is started waits for leases of before: a host that died as the group was stopped has not given its up. A guess:
 * far more than a lease of the default, 1 s, and as long as somebody likes to look on.
 */
const LEASES_END_MS = 60_000
/** A change that is refused again at once is not tried more often. A guess. */
const LEAST_WAIT_MS = 100

export class RestOperations implements RestView {
  readonly #deps: RestOperationsDeps

  constructor(deps: RestOperationsDeps) {
    this.#deps = deps
  }

  async stop(group: string, { now }: StopWish): Promise<GroupRecord> {
    const record = await this.#record(group)
    if (record.resting) return record
    const older = olderMembers(this.#deps)
    if (older.length > 0) throw memberOlder(older, 'a group that rests')
    const rests = now ? await this.#stopNow(record) : await this.#stopByEpoch(record)
    const { committed, generation } = rests
    this.#deps.events.emit('group.rests', {
      group,
      epoch: committed?.epoch ?? 0,
      generation,
      by: now ? 'now' : 'epoch'
    })
    return rests
  }

  async start(group: string, wish: RestoreWish): Promise<GroupRecord> {
    const record = await this.#record(group)
    if (record.resting) return await this.#startRested(group, wish)
    if (wish.epoch === undefined) return record
    const restore = `diapause restore ${group} --epoch ${wish.epoch}`
    throw new UsageError('GROUP_RUNS', `Group "${group}" does not rest; to take it back to an epoch: ${restore}`)
  }

  async #startRested(group: string, wish: RestoreWish): Promise<GroupRecord> {
    const { epochs, clock } = this.#deps
    for (let leftMs = LEASES_END_MS; ; ) {
      try {
        return await epochs.restore(group, wish)
      } catch (error) {
        const leaseMs = leaseLeftMs(error)
        if (leaseMs === undefined || leaseMs > leftMs) throw error
        const waitMs = Math.max(leaseMs, LEAST_WAIT_MS)
        leftMs -= waitMs
        await new Promise<void>(resolve => void clock.after(waitMs, resolve))
      }
      // What was refused may have been decided all the same, and others may have been at it.
      const now = await this.#record(group)
      if (!now.resting) return now
    }
  }

  async #stopByEpoch({ id: group, generation }: GroupRecord): Promise<GroupRecord> {
    const { epochClock } = this.#deps
    const propose = (id: string) => epochClock.propose(id, 'request', 'the group is to rest', true)
    const taken = takeEpoch({ ...this.#deps, epochClock: { propose } }, group)
    const { epoch, outcome, reason } = await taken.catch((error: unknown) => {
      if (hasCode(error, 'GROUP_RESTS')) return NONE // somebody else has asked for it at the same time
      if (hasCode(error, 'EPOCH_FORGOTTEN')) return NONE // the record tells whether it rests
      throw error
    })
    const now = await this.#record(group)
    if (now.resting) return now
    if (outcome !== 'aborted' || now.generation !== generation) throw changed(group)
    throw new DiapauseError(
      'REST_ABORTED',
      `Group "${group}" goes on: epoch ${epoch}, at which it would have rested, was aborted (${reason}).`,
      { details: { epoch } }
    )
  }

  async #stopNow({ id: group, generation, committed }: GroupRecord): Promise<GroupRecord> {
    if (committed === null) {
      const how = 'stop it without --now, which takes one, or remove it'
      throw new UsageError('EPOCH_NONE', `Group "${group}" has no epoch yet at which it could rest: ${how}.`)
    }
    const { directory } = this.#deps
    const late = (is: GroupRecord): boolean => cameTooLate(is, generation, is.resting && is.owners)
    const now = await directory.change(group, restNow(generation), late)
    if (now?.resting) return now
    throw changed(group)
  }

  async #record(group: string): Promise<GroupRecord> {
    const record = await this.#deps.directory.refresh(group)
    if (record !== null && !record.removed) return record
    throw new DiapauseError('GROUP_UNKNOWN', `There is no group "${group}" in this cluster.`)
  }
}

/** No epoch was taken. */
const NONE = { epoch: 0, outcome: 'none', reason: '' } as const

/** Undefined: something else is in the way. */
function leaseLeftMs(error: unknown): number | undefined {
  if (!(error instanceof DiapauseError) || !hasCode(error, 'REGISTER_LEASED')) return undefined
  const { retryMs } = error.details
  return typeof retryMs === 'number' && Number.isFinite(retryMs) ? retryMs : LEAST_WAIT_MS
}

const changed = (group: string) =>
  new DiapauseError('GROUP_CHANGED', `Group "${group}" changed at this moment; look at it and try again.`)
