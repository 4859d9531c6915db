import { randomBytes } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { DiapauseError } from '../../node/errors.ts'
import type { StreamManifest } from '../../node/ports.ts'
import { JumpingClock } from './jumping-clock.ts'
import { RepairWorld, type WorldOptions } from './repair-world.ts'
import { ship } from './shards-network.ts'

let world: RepairWorld | undefined
afterEach(() => world?.stop())

/** `count` peers, of which the first five hold a stream of so many grids. */
async function holding(count: number, { grids = 3, ...more }: WorldOptions & { grids?: number } = {}) {
  const made = new RepairWorld(count, more)
  world = made
  const data = randomBytes(grids * 5 * 3 * 256 - 100)
  const manifest = await ship(made.bodies.slice(0, 5), data)
  await made.commit([manifest])
  return { world: made, data, manifest }
}

/** For waiting on a clock that jumps. */
const EAGERLY = { interval: 1, timeout: 5_000 }

/** Columns that somebody of `among` has whole. */
async function held(made: RepairWorld, among: readonly number[], manifest: StreamManifest): Promise<number[]> {
  const columns = await Promise.all(among.map(i => made.columnsAt(i, manifest)))
  return columns.flat().sort((a, b) => a - b)
}

const startAll = (made: RepairWorld): void => {
  for (const { repair } of made.bodies) repair.start()
}

describe('repair', () => {
  it('brings the columns of peers that are gone for good back at others, one each, and the data bears as many losses again', async () => {
    const { world, manifest, data } = await holding(7)
    for (const i of [1, 3]) world.kill(i)
    world.lost.add('p1').add('p3')
    for (const i of [1, 3]) world.removed.add(`p${i}`)
    startAll(world)
    await vi.waitFor(async () => expect(await held(world, [0, 2, 4, 5, 6], manifest)).toEqual([0, 1, 2, 3, 4]), 5_000)
    for (const i of [5, 6]) expect(await world.columnsAt(i, manifest)).toHaveLength(1)
    await vi.waitFor(() => expect(world.body(5).redundancy.holdersNow(manifest)).not.toContain('p3'))
    for (const i of [0, 2]) world.kill(i)
    const read = await world.body(5).shards.readData(manifest, 0, manifest.dataBytes)
    expect(Buffer.compare(read, data)).toBe(0)
  })

  it('knows of each column of an image who has it: as planned before anybody has looked, as it is afterwards', async () => {
    const { world, manifest } = await holding(6)
    const { redundancy } = world.body(5)
    const placesOf = async () => {
      const images = await redundancy.imagesOf(world.group())
      expect(images).toMatchObject([{ vm: 'v0', streams: [{ k: 3 }] }])
      return images[0]?.streams[0]?.places
    }
    const planned = manifest.holders.map(holder => [holder])
    expect(await placesOf()).toEqual(planned)
    world.kill(2)
    world.lost.add('p2')
    startAll(world)
    await vi.waitFor(async () => expect(await held(world, [5], manifest)).toEqual([2]))
    await vi.waitFor(async () => expect(await placesOf()).toEqual(planned.with(2, ['p5'])))
    expect(await redundancy.imagesOf({ committed: null })).toEqual([])
  })

  it('waits for a peer that is dead for a moment, and does not when somebody asks for it', async () => {
    const { world, manifest } = await holding(6)
    world.kill(2)
    startAll(world)
    const looks = vi.spyOn(world.body(5).redundancy, 'look')
    await vi.waitFor(() => expect(looks.mock.calls.length).toBeGreaterThan(3))
    expect(await held(world, [0, 1, 3, 4, 5], manifest)).toEqual([0, 1, 3, 4])
    for (const { repair } of world.bodies) repair.now()
    await vi.waitFor(async () => expect(await held(world, [5], manifest)).toEqual([2]))
  })

  it('lets a holder that lost its disk rebuild its own column, and manifests, and leaves nobody with two', async () => {
    const { world, manifest } = await holding(6)
    const { memory } = world.body(4)
    memory.held.clear()
    for (const hash of await memory.manifests()) await memory.dropManifest(hash)
    startAll(world)
    await vi.waitFor(async () => expect(await world.columnsAt(4, manifest)).toEqual([4]))
    expect(await memory.manifests()).toHaveLength(2)
    expect(await world.columnsAt(5, manifest)).toEqual([])
  })

  it('rebuilds elsewhere what only a leaving member has', async () => {
    const { world, manifest } = await holding(6)
    world.leaving.add('p0')
    startAll(world)
    await vi.waitFor(async () => expect(await world.columnsAt(5, manifest)).toEqual([0]))
    await vi.waitFor(() => expect(world.body(1).redundancy.holdersNow(manifest)[0]).toBe('p5'))
  })

  it('waits for a column that may still be on its way, and not for one that its own disk has spoiled', async () => {
    const { world, manifest } = await holding(5, { checkEveryMs: 60_000 })
    const { memory, repair, redundancy } = world.body(3)
    memory.held.delete('g/v/1/1 1 3')
    const looks = vi.spyOn(redundancy, 'look')
    repair.damaged('g/v/1/2', 0) // a stream that is kept no more
    await vi.waitFor(() => expect(repair.stats()).toMatchObject({ due: 1, columns: 0 }))
    repair.damaged('g/v/1/1', 3)
    expect(repair.stats().damaged).toBeGreaterThan(0)
    await vi.waitFor(async () => expect(await world.columnsAt(3, manifest)).toEqual([3]))
    expect(looks).toHaveBeenCalledTimes(2)
    await vi.waitFor(() => expect(repair.stats().damaged).toBe(0))
  })

  it('goes on where it was: grids that are there already are not rebuilt again', async () => {
    const { world, manifest } = await holding(5)
    const { memory, repair } = world.body(3)
    const before = new Map(memory.held)
    memory.held.delete('g/v/1/1 1 3')
    const puts = vi.spyOn(memory, 'putColumn')
    repair.now()
    await vi.waitFor(async () => expect(await world.columnsAt(3, manifest)).toEqual([3]))
    expect(puts.mock.calls.map(([, grid, column]) => [grid, column])).toEqual([[1, 3]])
    expect(new Map(memory.held)).toEqual(before)
    expect(repair.stats()).toMatchObject({ columns: 1, failures: 0 })
    expect(world.body(3).reports.map(({ kind }) => kind)).toEqual(['repair.done'])
  })

  it('reads no more a second for it than it may, and waits while VMs are restored', async () => {
    const clock = new JumpingClock()
    const { world, manifest } = await holding(5, { clock, checkEveryMs: 60_000, megabytesPerSecond: 0.01 })
    const { memory, repair } = world.body(3)
    memory.held.clear()
    const puts = vi.spyOn(memory, 'putColumn')
    world.hear(1)
    world.hear(2)
    const start = clock.now()
    repair.now()
    await vi.waitFor(() => expect(repair.stats().due).toBe(1))
    await clock.until(start + 4_999)
    expect(puts).not.toHaveBeenCalled()
    await clock.until(start + 5_001)
    await vi.waitFor(() => expect(puts).toHaveBeenCalledTimes(1))
    // Three symbols of 256 bytes are read for each of the column's five: 3,840 bytes at 10 bytes a millisecond.
    await clock.until(start + 5_001 + 382)
    expect(puts).toHaveBeenCalledTimes(1)
    await clock.until(start + 5_001 + 386)
    await vi.waitFor(() => expect(puts).toHaveBeenCalledTimes(2))
    await clock.until(start + 10_000)
    await vi.waitFor(async () => expect(await world.columnsAt(3, manifest)).toEqual([3]))
  })

  it('does not wait for a new group of the name of one that is no more: nothing is restored', async () => {
    const { world } = await holding(5, { clock: new JumpingClock(), checkEveryMs: 60_000 })
    const { memory, repair } = world.body(3)
    memory.held.clear()
    const puts = vi.spyOn(memory, 'putColumn')
    world.hear(1)
    world.forget()
    world.hear(2)
    repair.now()
    await vi.waitFor(() => expect(puts).toHaveBeenCalled())
  })

  it('tries what cannot be rebuilt again when it is time, though each try finds the damage again, and paces its tries', async () => {
    const clock = new JumpingClock()
    const { world } = await holding(5, { grids: 1, clock, checkEveryMs: 60_000, megabytesPerSecond: 0.0001 })
    const { memory, repair, redundancy, shards } = world.body(3)
    memory.held.clear()
    const reads = vi.spyOn(shards, 'readData').mockImplementation(async () => {
      repair.damaged('g/v/1/1', 3)
      throw new DiapauseError('SHARD_LOST', 'too few symbols')
    })
    const looks = vi.spyOn(redundancy, 'look')
    const start = clock.now()
    repair.damaged('g/v/1/1', 3)
    await vi.waitFor(() => expect(repair.stats().failures).toBe(1))
    await clock.until(start + 38_000) // 3,840 bytes at 0.1 a millisecond
    repair.now()
    await vi.waitFor(() => expect(looks).toHaveBeenCalledTimes(2))
    await clock.until(start + 38_300)
    expect(reads).toHaveBeenCalledTimes(5)
    await clock.until(start + 38_500)
    await vi.waitFor(() => expect(repair.stats().failures).toBe(2))
    expect(looks).toHaveBeenCalledTimes(2)
    expect(reads).toHaveBeenCalledTimes(10)
  })

  it('lets the one who found a column damaged rebuild it, though another should have it now and has not heard of it', async () => {
    const { world, manifest } = await holding(6)
    const { memory, repair } = world.body(0)
    for (const grid of manifest.grids.keys()) {
      const bytes = world.body(3).memory.held.get(`g/v/1/1 ${grid} 3`)
      await memory.putColumn('g/v/1/1', grid, 3, bytes ?? new Uint8Array())
    }
    world.kill(3)
    world.removed.add('p3')
    await world.body(5).redundancy.look()
    memory.held.delete('g/v/1/1 1 3')
    const { plan } = await world.body(0).redundancy.look({ anew: true })
    expect(plan.repairs).toMatchObject([{ column: 3, target: 'p5', why: 'lost' }])
    repair.damaged('g/v/1/1', 3)
    await vi.waitFor(async () => expect(await world.columnsAt(0, manifest)).toEqual([0, 3]))
    expect(repair.stats()).toMatchObject({ columns: 1, failures: 0 })
  })

  it('mends what is damaged in a second copy that nobody needs, and completes none: or it would be found as long as it is kept', async () => {
    const { world, manifest } = await holding(6)
    const { memory, repair } = world.body(0)
    const grids = [...manifest.grids.keys()]
    for (const grid of grids.slice(1)) {
      const bytes = world.body(3).memory.held.get(`g/v/1/1 ${grid} 3`)
      await memory.putColumn('g/v/1/1', grid, 3, bytes ?? new Uint8Array())
    }
    await memory.refuteColumn('g/v/1/1', 1, 3)
    repair.damaged('g/v/1/1', 3)
    await vi.waitFor(() => expect(repair.stats()).toMatchObject({ columns: 1, damaged: 0, due: 0 }))
    const states = await Promise.all(grids.map(grid => memory.verifyColumn('g/v/1/1', grid, 3)))
    expect(states).toEqual(grids.map(grid => (grid === 0 ? 'missing' : 'whole')))
    expect(await held(world, [1, 2, 3, 4, 5], manifest)).toEqual([1, 2, 3, 4])
  })

  it('goes elsewhere when there is no room where a column was found damaged, once all have been asked again', async () => {
    const clock = new JumpingClock()
    const { world, manifest } = await holding(6, { clock, checkEveryMs: 60_000 })
    const [finder, other] = [world.body(2), world.body(5)]
    await other.redundancy.look()
    finder.memory.held.delete('g/v/1/1 1 2')
    finder.memory.beforePut = () => Promise.reject(new DiapauseError('STORE_FULL', 'the disk is full'))
    world.full.add('p2')
    finder.repair.damaged('g/v/1/1', 2)
    await vi.waitFor(async () => {
      await clock.until(clock.now() + 10)
      expect(finder.repair.stats().failures).toBe(1)
    }, EAGERLY)
    other.repair.start()
    await vi.waitFor(async () => {
      await clock.until(clock.now() + 60_000)
      expect(await world.columnsAt(5, manifest)).toEqual([2])
    }, EAGERLY)
    expect(finder.repair.stats().failures).toBe(1)
  })

  it('believes nobody when somebody asks for a repair', async () => {
    const { world, manifest } = await holding(6)
    const { redundancy, repair } = world.body(5)
    await redundancy.look()
    world.body(2).memory.held.delete('g/v/1/1 1 2')
    world.full.add('p2')
    repair.now()
    await vi.waitFor(async () => expect(await world.columnsAt(5, manifest)).toEqual([2]))
  })

  it('rebuilds the other grids of a column of which one cannot be rebuilt, and that one when it can', async () => {
    const { world, manifest } = await holding(5, { checkEveryMs: 60_000 })
    const { memory, repair, shards } = world.body(3)
    memory.held.clear()
    const readData = shards.readData.bind(shards)
    const spoiled = vi.spyOn(shards, 'readData').mockImplementation(async (of, offset, ...more) => {
      if (offset < 5 * 3 * 256) throw new DiapauseError('SHARD_LOST', 'too few symbols')
      return await readData(of, offset, ...more)
    })
    repair.now()
    await vi.waitFor(() => expect(repair.stats().failures).toBe(1))
    expect([...memory.held.keys()]).toEqual(['g/v/1/1 1 3', 'g/v/1/1 2 3'])
    spoiled.mockRestore()
    repair.now()
    await vi.waitFor(async () => expect(await world.columnsAt(3, manifest)).toEqual([3]))
  })

  it('does not let a column that cannot be rebuilt keep back another', async () => {
    const clock = new JumpingClock()
    const made = new RepairWorld(5, { clock, checkEveryMs: 1_000, megabytesPerSecond: 0.001 })
    world = made
    const bytes = (): Buffer => randomBytes(2 * 5 * 3 * 256)
    const first = await ship(made.bodies, bytes())
    const second = await ship(made.bodies, bytes(), { stream: 'g/v/1/2' })
    await made.commit([first, second])
    const { memory, repair, shards } = made.body(3)
    memory.held.clear()
    const readData = shards.readData.bind(shards)
    vi.spyOn(shards, 'readData').mockImplementation(async (of, ...range) => {
      if (of.stream === first.stream) throw new DiapauseError('SHARD_LOST', 'too few symbols')
      return await readData(of, ...range)
    })
    repair.now()
    await vi.waitFor(async () => {
      await clock.until(clock.now() + 5_000)
      expect(await made.columnsAt(3, second)).toEqual([3])
    }, EAGERLY)
  })

  it('reads no faster what it has already', async () => {
    const clock = new JumpingClock()
    const { world } = await holding(5, { clock, checkEveryMs: 60_000, megabytesPerSecond: 0.01 })
    const { memory, repair } = world.body(3)
    memory.held.delete('g/v/1/1 2 3')
    const puts = vi.spyOn(memory, 'putColumn')
    const start = clock.now()
    repair.now()
    await vi.waitFor(() => expect(repair.stats().due).toBe(1))
    await clock.until(start + 250) // two grids of 1,280 bytes at 10 bytes a millisecond
    expect(puts).not.toHaveBeenCalled()
    await clock.until(start + 260)
    await vi.waitFor(() => expect(puts).toHaveBeenCalledTimes(1))
  })

  it('mends what has rotted in more stores than may be lost, in other grids of each, and lets a newcomer be', async () => {
    const { world, manifest, data } = await holding(6)
    for (const [grid, i] of [0, 1, 3].entries()) world.body(i).memory.held.delete(`g/v/1/1 ${grid} ${i}`)
    const { plan } = await world.body(5).redundancy.look()
    expect(plan.impossible).toEqual([])
    expect(plan.repairs.map(({ column, target, spare }) => [column, target, spare])).toEqual([
      [0, 'p0', 0],
      [1, 'p1', 0],
      [3, 'p3', 0]
    ])
    startAll(world)
    for (const i of [0, 1, 3]) world.body(i).repair.damaged('g/v/1/1', i)
    await vi.waitFor(async () => expect(await held(world, [0, 1, 2, 3, 4], manifest)).toEqual([0, 1, 2, 3, 4]), 5_000)
    expect(await world.columnsAt(5, manifest)).toEqual([])
    expect(world.bodies.map(({ repair }) => repair.stats().failures)).toEqual([0, 0, 0, 0, 0, 0])
    for (const i of [2, 4]) world.kill(i)
    const read = await world.body(5).shards.readData(manifest, 0, manifest.dataBytes)
    expect(Buffer.compare(read, data)).toBe(0)
  })

  it('goes to a peer that has room', async () => {
    const { world, manifest } = await holding(7)
    world.full.add('p5')
    world.kill(2)
    for (const { repair } of world.bodies) repair.now()
    await vi.waitFor(async () => expect(await world.columnsAt(6, manifest)).toEqual([2]))
    expect(await world.columnsAt(5, manifest)).toEqual([])
  })

  it('says what it cannot do: too many are gone, and it does no harm', async () => {
    const { world, manifest } = await holding(6)
    for (const i of [0, 1, 2]) world.kill(i)
    const { plan } = await world.body(5).redundancy.look({ urgent: true })
    expect(plan).toMatchObject({ repairs: [], impossible: [{ columns: [0, 1, 2], why: 'unreadable', readable: 2 }] })
    world.body(5).repair.now()
    await vi.waitFor(() => expect(world.body(5).repair.stats()).toMatchObject({ due: 0, columns: 0 }))
    expect(await held(world, [3, 4, 5], manifest)).toEqual([3, 4])
  })

  it('does not take a peer that does not answer for one that has nothing', async () => {
    const { world } = await holding(6)
    world.network.silence('p2')
    const { facts, plan } = await world.body(5).redundancy.look()
    expect(facts.standing.get('p2')).toBe('away')
    expect(plan.repairs).toEqual([])
  })

  it('asks nobody anew who has said that he has what he should', async () => {
    const { world } = await holding(5)
    const { redundancy, transport } = world.body(0)
    await redundancy.look()
    const sent = new Map(transport.sent)
    await redundancy.look()
    expect(transport.sent).toEqual(sent)
    await redundancy.look({ anew: true })
    expect([...transport.sent].map(([peer, count]) => count - (sent.get(peer) ?? 0))).toEqual([1, 1, 1, 1])
  })
})
