/**
 * What becomes of a column that was read and is not what was put: its holder checks it, finds the damage itself and repairs
 * it (`node/agents/repair.ts`). Nothing is deleted on a reader's word.
 */
import type { PeerId } from '../../protocols/core.ts'
import { messageOf } from '../errors.ts'
import type { Log, StreamId } from '../ports.ts'

export interface DamageOptions {
  readonly log: Log
  /** Lets a holder, which may be this peer, check one grid of its column. */
  check(peer: PeerId, stream: StreamId, column: number, grid: number): Promise<unknown>
}

export class DamageReports {
  readonly #options: DamageOptions
  /** Checks that were asked for and not answered. */
  readonly #open = new Set<string>()
  /** Columns of a grid that came wrong. */
  count = 0

  constructor(options: DamageOptions) {
    this.#options = options
  }

  report(stream: StreamId, grid: number, column: number, peer: PeerId): void {
    const { check, log } = this.#options
    const key = `${peer} ${stream} ${grid} ${column}`
    if (this.#open.has(key)) return
    this.#open.add(key)
    this.count++
    log.warn({ holder: peer, stream, grid, column }, 'a column came damaged; its holder is to check and repair it')
    check(peer, stream, column, grid)
      .catch(error => log.debug({ holder: peer, stream, error: messageOf(error) }, 'a holder does not check a column'))
      .finally(() => this.#open.delete(key))
  }
}
