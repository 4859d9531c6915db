/** What somebody outside of a simulated cluster has heard from groups with output commit, and whether they may ever take it back. */
import { groupKey } from '../../protocols/group.ts'
import type { JudgedWorld } from './cluster-invariants.ts'
import type { CutFact, Run } from './world-book.ts'
import type { Life } from './world-host.ts'

export class Outside {
  readonly #world: JudgedWorld
  /** How many of the frames that it sent are part of a committed epoch. */
  readonly #kept = new Map<Run, number>()
  /** Group and VM → when it was last heard of. */
  readonly #lastMs = new Map<string, number>()
  heard = 0

  constructor(world: JudgedWorld) {
    this.#world = world
  }

  /** The VM of `run` is part of a committed epoch as it was then. */
  committed({ run, sent }: CutFact): void {
    this.#kept.set(run, Math.max(sent, this.#kept.get(run) ?? 0))
  }

  /** A frame comes out of the peer of `life` now: what is wrong with that, where something is. */
  hear(life: Life, id: number): string | undefined {
    const { book, kernel } = this.#world
    const { from, index } = book.frames[id] as (typeof book.frames)[number]
    const { group, generation, vm } = from
    const said = `${life.host.name} lets out frame ${id} of ${group}/${vm} of generation ${generation}`
    this.heard += 1
    this.#lastMs.set(`${group}/${vm}`, kernel.nowMs)
    if (index >= (this.#kept.get(from) ?? 0)) return `${said}, which no committed epoch contains`
    const leftMs = this.#world.peerOf(life)?.leases.remainingMs(groupKey(group), generation) ?? 0
    if (leftMs <= 0) return `${said} without a lease`
    return book.spoken(life.host.name, group, generation, vm)
  }

  hasHeardOf(group: string, vm: string, sinceMs: number): boolean {
    return (this.#lastMs.get(`${group}/${vm}`) ?? 0) > sinceMs
  }
}
