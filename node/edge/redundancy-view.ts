/** How safe what is stored is, and making it so again: what the edge shows and asks; part of `PeerView`. */
import { UsageError } from '../errors.ts'
import type { ErrorOfApi } from './api-error.ts'

export interface RedundancyView {
  /**
   * Looks for every column of what kept images lean on at all members within reach. UsageErrors NOT_STORAGE (a witness knows no
   * images), NAME_UNKNOWN.
   */
  verify(wish: VerifyWish, signal: AbortSignal): AsyncGenerator<WorkProgress, VerifyReport>
  /** Lets all members rebuild now what is missing, also that of members which are only dead; ends when nothing more can be done. NOT_STORAGE. */
  repair(signal: AbortSignal): AsyncGenerator<WorkProgress, RepairReport>
}

export interface VerifyWish {
  /** Only images of this group, or of VMs of this name. */
  readonly name?: string | undefined
  /** Every column is read from disk and checked where it lies, and every stream is read as a restore reads it. */
  readonly deep: boolean
}

export interface WorkProgress {
  /** What is being done. */
  readonly text: string
  readonly done: number
  readonly total: number
}

export interface ImageRedundancy {
  readonly group: string
  readonly vm: string
  readonly epoch: number
  readonly streams: number
  readonly columns: number
  /** Columns that nobody within reach has. */
  readonly missing: number
  /** Members, whichever, that may vanish without loss; below 0: it cannot be read now. */
  readonly tolerates: number
}

export interface VerifyReport {
  readonly images: readonly ImageRedundancy[]
  /** That these images lean on, each once. */
  readonly streams: number
  /** `holder`: the name of the member that should have it. */
  readonly missing: readonly { readonly stream: string; readonly column: number; readonly holder: string }[]
  /** Found by reading; each is being repaired where it lies. */
  readonly damaged: readonly {
    readonly stream: string
    readonly grid: number
    readonly column: number
    readonly member: string
  }[]
  /** Streams that could not be read to the end, columns that their holder did not check, and images whose manifests nobody has. */
  readonly unreadable: readonly { readonly what: string; readonly why: string }[]
  /** Storage members that did not answer, by name. */
  readonly silent: readonly string[]
  /**
   * Each member has read what it has, data and parity, and compared it with the manifests, and the data of every stream was
   * read from here, as a restore does: parity only where data was missing.
   */
  readonly deep: boolean
}

export interface RepairReport {
  /** Columns that were rebuilt while this was waited for. */
  readonly rebuilt: number
  /** What cannot be repaired now, and why. */
  readonly impossible: readonly { readonly what: string; readonly why: string }[]
}

/** As it was when the peer last looked (`repair.checkEveryMs`), and what it has done since it started. */
export interface RedundancyStatus {
  /** Images of which columns are missing, or that could bear more losses than they do. */
  readonly exposed: readonly ImageRedundancy[]
  readonly repaired: {
    readonly columns: number
    readonly bytes: number
    /** Tries that came to nothing. */
    readonly failures: number
    /** Columns that this peer is to rebuild and has not yet. */
    readonly due: number
    /** Columns found damaged here that are neither whole again nor needed no more. Absent: a peer of before it was told. */
    readonly damaged?: number | undefined
  }
  /** The check of all that is stored here: the pass under way, and the last whole one. Null: it is turned off. */
  readonly scrubbed: {
    readonly columns: number
    /** Columns and manifests. */
    readonly damaged: number
    /** Wall clock. */
    readonly startedMs: number
    readonly last: { readonly endedMs: number; readonly columns: number; readonly damaged: number } | null
  } | null
}

/** Nothing is missing, damaged or out of reach. */
export const isWhole = ({ missing, damaged, unreadable }: VerifyReport): boolean =>
  missing.length === 0 && damaged.length === 0 && unreadable.length === 0

/** A line of the answer to such a request: progress again and again, then the report or an error. */
export type WorkLine<T> = { readonly progress: WorkProgress } | { readonly report: T } | { readonly error: ErrorOfApi }

export function parseVerifyWish(query: URLSearchParams): VerifyWish {
  const name = query.get('name') ?? undefined
  if (name !== undefined && !/^[A-Za-z0-9._-]{1,80}$/.test(name)) {
    throw new UsageError('API_BAD_REQUEST', `${JSON.stringify(name.slice(0, 100))} is not the name of a group or a VM`)
  }
  return { name, deep: query.get('deep') === '1' }
}
