/** What became of a group's epochs, by what all peers remember; part of `ReadModels`. */
import type { PeerId } from '../../protocols/core.ts'
import { UsageError } from '../errors.ts'

export interface HistoryView {
  /** GROUP_UNKNOWN. */
  history(group: string, wish: HistoryWish): Promise<GroupHistory>
}

export interface HistoryWish {
  /** Only older ones than this. Absent: the newest. */
  readonly before?: EpochName | undefined
  readonly limit: number
}

/** Numbers begin anew in a later generation where a group was removed, forgotten and made again. */
export interface EpochName {
  readonly generation: number
  readonly epoch: number
}

/** More than a person looks through at once, and what 1,000 epochs need in a few requests. A guess. */
export const MAX_HISTORY_EPOCHS = 500

export interface GroupHistory {
  readonly group: string
  readonly by: PeerId
  /** The wall clock of `by`; all times are by it. */
  readonly nowMs: number
  /** By generation and number, the oldest first. */
  readonly epochs: readonly EpochPast[]
  /** There are older ones: ask again with `before` = the first of these. */
  readonly more: boolean
  readonly silent: readonly { readonly peer: PeerId; readonly why: string }[]
}

export interface EpochPast extends EpochName {
  /** unknown: nobody who answers saw how it ended. */
  readonly outcome: 'open' | 'committed' | 'aborted' | 'unknown'
  /** Why it was aborted. */
  readonly why?: string | undefined
  /** By which policy it was opened ('request': a person), and what that said. */
  readonly cause?: { readonly policy: string; readonly why: string } | undefined
  /** When it was opened, and how long it took until it was committed or aborted. Absent: nobody who answers saw it. */
  readonly atMs?: number | undefined
  readonly tookMs?: number | undefined
  /** From the first VM's cut to the last one's. */
  readonly skewMs?: number | undefined
  /** It can be restored now; `committed`: it is the one that a restore takes unless another is named. */
  readonly kept: boolean
  readonly committed: boolean
  readonly holds: readonly string[]
  readonly vms: readonly VmPast[]
}

export interface VmPast {
  readonly vm: string
  /** How long it stood still. */
  readonly pauseMs?: number | undefined
  /** RAM that had changed, and what was stored of it with the redundancy. */
  readonly changedBytes?: number | undefined
  readonly storedBytes?: number | undefined
  /** Frames that were under way between VMs in its cut. */
  readonly inFlight?: number | undefined
}

/** Of `GET /v1/groups/ID/history?before=GENERATION.EPOCH&limit=N`. UsageError API_BAD_REQUEST. */
export function parseHistoryWish(query: URLSearchParams): HistoryWish {
  const limit = Number(query.get('limit') ?? MAX_HISTORY_EPOCHS)
  const name = query.get('before')
  const [, generation, epoch] = /^(\d{1,15})\.(\d{1,15})$/.exec(name ?? '') ?? []
  const before = epoch === undefined ? undefined : { generation: Number(generation), epoch: Number(epoch) }
  const isCount = Number.isSafeInteger(limit) && limit > 0 && limit <= MAX_HISTORY_EPOCHS
  if (isCount && (name === null || before !== undefined)) return { before, limit }
  const what = `?before is a generation and an epoch, such as 2.17; &limit a number from 1 to ${MAX_HISTORY_EPOCHS}`
  throw new UsageError('API_BAD_REQUEST', what)
}
