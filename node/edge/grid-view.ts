/**
 * The diagonal grid of an epoch: which columns of its images are on which peer, lost, or being repaired; part of `ReadModels`.
 * As `erasure/grid.ts` has it: every column has k rows of data and m of parity, and symbol (column c, row r) is of the diagonal
 * (c - r) mod C.
 */
import type { PeerId } from '../../protocols/core.ts'

export interface GridView {
  /**
   * As this peer sees it, looked at again when that is older than ten seconds or than the epoch. GROUP_UNKNOWN, EPOCH_NOT_KEPT; UsageError NOT_STORAGE (a witness
   * knows no images).
   */
  grid(group: string, epoch: number): Promise<EpochGrid>
}

export interface EpochGrid {
  readonly group: string
  readonly epoch: number
  readonly generation: number
  /** The wall clock when it was looked. */
  readonly lookedMs: number
  /** All members that store: up: it answers. away: it is waited for. leaving: it can be read and goes. gone: what it had is lost. */
  readonly members: readonly {
    readonly id: PeerId
    readonly name: string
    readonly standing: 'up' | 'away' | 'leaving' | 'gone'
  }[]
  /** Of each VM, by name. */
  readonly images: readonly GridImage[]
  /** Images whose manifests nobody within reach has. */
  readonly unreadable: readonly { readonly image: string; readonly why: string }[]
}

export interface GridImage {
  readonly vm: string
  /** Members, whichever, that may vanish without loss; below 0: it cannot be read now. */
  readonly tolerates: number
  /** All that it leans on, its own last. */
  readonly streams: readonly GridStream[]
}

export interface GridStream {
  readonly stream: string
  readonly k: number
  readonly m: number
  /** How many grids it has; all have the same columns. */
  readonly grids: number
  readonly columns: readonly GridColumn[]
}

/**
 * there: somebody within reach has it whole. partly: some of its grids. away: only a member has it that is waited for. repairing:
 * `target` is rebuilding it. lost: nobody has it, and nobody rebuilds it now.
 */
export type ColumnState = 'there' | 'partly' | 'away' | 'repairing' | 'lost'

export interface GridColumn {
  readonly column: number
  readonly state: ColumnState
  /** Who is to have it, by the manifest. */
  readonly planned: PeerId
  /** Who has it whole, as far as is known. */
  readonly places: readonly PeerId[]
  readonly target?: PeerId | undefined
  /** Of `repairing`: grids that `target` is known to have. */
  readonly done?: number | undefined
}
