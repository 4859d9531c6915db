import { describe, expect, it } from 'vitest'
import { PageRounds } from '../../node/agents/page-rounds.ts'
import type { Capture, Clock, PageRanges } from '../../node/ports.ts'

/** A VM that writes the next of `writes` pages between two questions, and a capture that copies when it is let. */
class World {
  readonly due: (() => void)[] = []
  readonly copied: number[] = []
  /** Of the capture: what it has kept for the pause, and how far it is. */
  left = 0
  progress = 0
  hurries = 0
  copying: Promise<void> = Promise.resolve()
  readonly rounds: PageRounds
  readonly clock: Clock = {
    now: () => 0,
    after: (_, fn) => {
      this.due.push(fn)
      return () => this.due.splice(this.due.indexOf(fn), 1)
    }
  }

  constructor(writes: readonly number[]) {
    const counts = [...writes]
    const changed = async (): Promise<PageRanges> => Uint32Array.of(0, counts.shift() ?? 0)
    const capture = {
      copy: async (pages: PageRanges) => {
        this.copied.push(pages[1] ?? 0)
        await this.copying
      },
      shipped: async () => {},
      progress: async () => this.progress,
      hurry: async () => {
        this.hurries++
        return this.left
      }
    } as unknown as Capture
    this.rounds = new PageRounds({ ramPath: '', changed }, capture)
  }

  async later(): Promise<void> {
    for (const fn of this.due.splice(0)) fn()
    await turns()
  }
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve()
}
const nothing = (): void => {}

describe('the rounds of a cut', () => {
  it('go on until few pages are left, and leave those for the pause', async () => {
    const { rounds, clock, copied } = new World([100_000, 4_000, 300, 200, 7])
    await rounds.prepare(clock, nothing)
    await rounds.copyWhatIsMuch()
    expect(copied).toEqual([100_000, 4_000, 300])
    expect(await rounds.last()).toEqual(Uint32Array.of(0, 200, 0, 7))
  })

  it('copy what was written while it waited for the others, where that is much', async () => {
    const { rounds, clock, copied } = new World([10, 5_000, 10, 3])
    await rounds.prepare(clock, nothing)
    await rounds.copyWhatIsMuch()
    expect(copied).toEqual([10, 5_000, 10])
    expect(await rounds.last()).toEqual(Uint32Array.of(0, 3))
  })

  it('end at once when frames wait for the VM, and what they had before them is left for the pause', async () => {
    const world = new World([100_000, 900, 40])
    const copying = Promise.withResolvers<void>()
    world.copying = copying.promise
    world.left = 20_000
    const prepared = world.rounds.prepare(world.clock, nothing)
    await turns()
    world.rounds.hurry()
    world.rounds.hurry()
    expect(world.hurries).toBe(1)
    copying.resolve() // as the capture does when it is hurried
    await prepared
    await world.rounds.copyWhatIsMuch()
    expect(world.copied).toEqual([100_000])
    expect(await world.rounds.last()).toEqual(Uint32Array.of(0, 900, 0, 40))
  })

  it('do not begin for a VM that others have been waiting for already', async () => {
    const world = new World([30, 20, 10])
    world.rounds.hurry()
    await world.rounds.prepare(world.clock, nothing)
    await world.rounds.copyWhatIsMuch()
    expect(world.copied).toEqual([])
    expect(await world.rounds.last()).toEqual(Uint32Array.of(0, 30, 0, 20))
  })

  it('do not wake the capture for a VM that has been prepared, as it has nothing left to copy', async () => {
    const world = new World([30, 20_000])
    await world.rounds.prepare(world.clock, nothing)
    world.rounds.hurry()
    await world.rounds.copyWhatIsMuch()
    expect([world.hurries, world.copied]).toEqual([0, [30]])
  })

  it.each([
    ['by the capture', 65_537, 0],
    ['by the machine', 0, 65_537]
  ])('refuse a pause of too many pages, told of %s: the epoch fails and the frames flow', async (_, left, written) => {
    const world = new World([written])
    world.left = left
    world.rounds.hurry()
    await world.rounds.prepare(world.clock, nothing)
    await expect(world.rounds.copyWhatIsMuch()).rejects.toMatchObject({ code: 'CUT_UNPREPARED' })
    await world.rounds.giveUp()
    expect(world.copied.reduce((sum, pages) => sum + pages, 0)).toBe(written) // or nobody would ever copy them
  })

  it('tell that they get on as long as they do', async () => {
    const world = new World([100_000])
    const copying = Promise.withResolvers<void>()
    world.copying = copying.promise
    let told = 0
    const prepared = world.rounds.prepare(world.clock, () => told++)
    const seen: number[] = []
    for (const progress of [10, 25, 25, 26]) {
      world.progress = progress
      await world.later()
      seen.push(told)
    }
    expect(seen).toEqual([1, 2, 2, 3])
    copying.resolve()
    await prepared
    expect(world.due).toEqual([])
  })
})
