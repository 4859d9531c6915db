/** Groups that rest: what the edge asks of a peer. Part of `PeerView`. */
import { z } from 'zod'
import { check, problemText } from '../../config/words.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'
import { type RestoreWish, restoreSchema } from './epoch-view.ts'

export interface RestView {
  /**
   * Ends the VMs of a group and keeps its last epoch, from which `start` brings them back: one that is taken for it, or (`now`) the
   * one that is committed already. Resolves with the group's record when it rests, at once where it does. GROUP_UNKNOWN,
   * MEMBER_OLDER; REST_ABORTED where that epoch came to nothing: the VMs go on; EPOCH_OPEN as in `takeEpoch`; GROUP_CHANGED;
   * UsageError EPOCH_NONE where nothing is committed that it could rest at now.
   */
  stop(group: string, wish: StopWish): Promise<GroupRecord>
  /**
   * The VMs of a group that rests run again, from its last epoch or one that is kept. Resolves when that is decided, at once where
   * the group does not rest, and where a host died that had a lease of it, when that has run out. As `EpochView.restore`; NO_HOST;
   * REGISTER_LEASED where that takes more than a minute; UsageError GROUP_RUNS where an epoch is named and it does not rest.
   */
  start(group: string, wish: RestoreWish): Promise<GroupRecord>
}

export interface StopWish {
  readonly now: boolean
}

export const stopSchema = z.strictObject({ now: z.boolean().default(false) })
export const startSchema = restoreSchema

/** UsageError API_BAD_REQUEST lists every problem. */
export function parseStopWish(raw: unknown): StopWish {
  const shape = check(stopSchema, raw)
  if (shape.ok) return shape.value
  const lines = shape.problems.map(problem => `  ${problemText(problem)}`)
  throw new UsageError('API_BAD_REQUEST', `what is asked for cannot be:\n${lines.join('\n')}`)
}
