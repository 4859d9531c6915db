/** What is really stored of the streams that an image leans on, from the looks of a peer to what the next epoch writes. */
import { connect } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { lossesBorne } from '../../node/agents/leaning.ts'
import { createImageWorker } from '../../node/image/image-worker.ts'
import { StoredColumns } from '../../node/planning/stored-columns.ts'
import type { PeerStanding, StreamFacts } from '../../node/planning/repair.ts'
import type { ImageManifest, ImageWorker } from '../../node/ports.ts'
import { frameLog } from './frame-logs.ts'
import { fakeMachine, pageOf, quietLog, snapshotStream } from './image/support.ts'
import { JumpingClock } from './jumping-clock.ts'
import { RepairWorld } from './repair-world.ts'

describe('an epoch', () => {
  const MEMORY_MIB = 2
  const peers = ['p0', 'p1', 'p2', 'p3', 'p4']
  let world: RepairWorld
  let clock: JumpingClock
  let worker: ImageWorker
  let dir: string

  beforeEach(async () => {
    clock = new JumpingClock()
    world = new RepairWorld(6, { clock })
    dir = mkdtempSync(join(tmpdir(), 'stored-'))
    worker = await createImageWorker({
      group: 'g',
      vm: 'v',
      memoryMiB: MEMORY_MIB,
      accel: 'tcg',
      key: new Uint8Array(32).fill(7),
      shape: { k: 3, m: 2, symbolBytes: 16_384, durability: 'most' },
      disks: [],
      cluster: world.body(0).shards,
      log: quietLog
    })
  })

  afterEach(async () => {
    await worker.close()
    world.stop()
    rmSync(dir, { recursive: true })
  })

  const placed = () => ({
    holders: peers,
    peers,
    storedAt: world.body(0).redundancy.storedAt.bind(world.body(0).redundancy)
  })

  /** Pages 0 to 199, of which the first is another one in each epoch. */
  async function take(epoch: number): Promise<ImageManifest> {
    const socketPath = join(dir, `${epoch}`)
    const capture = await worker.capture({ generation: 1, epoch, socketPath, ...placed() })
    const ram = new Map(Array.from({ length: 200 }, (_, page) => [page, pageOf(page === 0 ? 1_000 + epoch : page + 1)]))
    connect(socketPath).end(snapshotStream(fakeMachine(ram, MEMORY_MIB)))
    const image = await capture.finish(frameLog([]))
    worker.commit(epoch)
    await world.commit(image.streams)
    return image
  }

  async function lookTwice(): Promise<void> {
    await world.body(0).redundancy.look({ anew: true })
    await clock.until(clock.nowMs + 2_000)
    await world.body(0).redundancy.look()
  }

  function forget(i: number, stream: string): void {
    const { held } = world.body(i).memory
    for (const name of held.keys()) if (name.startsWith(`${stream} `)) held.delete(name)
  }

  const namesOf = ({ streams }: ImageManifest): string[] => streams.map(({ stream }) => stream)

  it('writes again what is stored less than is promised, and bears what it says', async () => {
    await take(1)
    await lookTwice()
    const second = await take(2)
    expect(namesOf(second)).toEqual(['g/v/1/1', 'g/v/1/2'])
    expect(lossesBorne(second, placed())).toBe(2)
    for (const i of [3, 4]) forget(i, 'g/v/1/1')
    await world.body(0).redundancy.look({ anew: true })
    expect(namesOf(await take(3)), 'it may only be late').toContain('g/v/1/1')
    await lookTwice()
    expect(world.body(0).redundancy.storedAt('g/v/1/1')).toEqual(['p0', 'p1', 'p2', '', ''])
    const fourth = await take(4)
    expect(namesOf(fourth)).not.toContain('g/v/1/1')
    expect(fourth.stats.pagesChanged).toBe(1)
    expect(lossesBorne(fourth, placed())).toBe(2)
  })

  it('waits for repair of what is within the durability, and says that it bears less until then', async () => {
    await take(1)
    forget(4, 'g/v/1/1')
    await lookTwice()
    const second = await take(2)
    expect(namesOf(second)).toContain('g/v/1/1')
    expect(lossesBorne(second, placed())).toBe(1)
    world.body(4).repair.now()
    const repaired = async (): Promise<number> => {
      await clock.until(clock.nowMs + 100)
      return world.body(4).repair.stats().columns
    }
    await expect.poll(repaired).toBeGreaterThan(0)
    await lookTwice()
    expect(lossesBorne(await take(3), placed())).toBe(2)
  })
})

describe('the losses that an image bears', () => {
  const five = ['a', 'b', 'c', 'd', 'e']
  const streamOf = (stream: string) => ({ stream, k: 3, m: 2, holders: five, dataBytes: 1, grids: [] })
  const image = { streams: [streamOf('s'), streamOf('t')], stats: {} } as unknown as ImageManifest
  const borne = (s: readonly string[] | undefined, living = five) =>
    lossesBorne(image, { peers: living, storedAt: stream => (stream === 's' ? s : undefined) })

  it('are those of its weakest stream, of those who live, and of what its own lacks yet', () => {
    expect(borne(undefined)).toBe(2)
    expect(borne(undefined, ['a', 'b', 'c', 'd'])).toBe(1)
    expect(borne(['a', 'b', 'c', 'd', ''])).toBe(1)
    expect(borne(['a', 'b', 'c', 'd', 'f'])).toBe(1)
    expect(borne(['a', 'b', 'c', 'd', 'f'], [...five, 'f'])).toBe(2)
    const late = { ...image, stats: { ...image.stats, columnsMissing: 1 } }
    expect(lossesBorne(late, { peers: five })).toBe(1)
  })

  it('are none to speak of where too little is left of a stream: such an epoch is not durable', () => {
    expect(() => borne(['a', 'b', '', '', ''])).toThrow(expect.objectContaining({ code: 'EPOCH_LEANS_ON_LOST' }))
  })
})

describe('who has the columns of a stream', () => {
  const five = ['a', 'b', 'c', 'd', 'e']
  const up = new Map<string, PeerStanding>(five.map(peer => [peer, 'up']))
  const whole: StreamFacts = { stream: 's', k: 3, m: 2, holders: five, places: five.map(peer => [peer]), partly: [] }
  const withPlaces = (places: readonly (readonly string[])[]): StreamFacts[] => [{ ...whole, places }]
  const lacking = withPlaces([['a'], ['b'], ['c'], ['d'], []])

  it('is as planned where all have theirs, or nobody has looked', () => {
    const stored = new StoredColumns()
    expect(stored.of('s')).toBeUndefined()
    stored.note({ streams: [whole], standing: up, staying: five, members: five }, 0)
    expect(stored.of('s')).toBeUndefined()
  })

  it('lacks a column that nobody had in two looks, and has it again when it is there', () => {
    const stored = new StoredColumns()
    const look = (streams: readonly StreamFacts[], nowMs: number, standing = up) => {
      stored.note({ streams, standing, staying: five, members: five }, nowMs)
      return stored.of('s')
    }
    expect(look(lacking, 0)).toBeUndefined()
    expect(look(lacking, 1_000)).toBeUndefined()
    expect(look(lacking, 2_000)).toEqual(['a', 'b', 'c', 'd', ''])
    expect(look([whole], 3_000)).toBeUndefined()
    expect(look(lacking, 9_000)).toBeUndefined()
    // Who does not answer may have it.
    const away = new Map([...up, ['e', 'away' as const]])
    expect(look(lacking, 12_000, away)).toBeUndefined()
  })

  it('is whoever repair has given it to, who stays rather than who leaves, and as evenly as can be', () => {
    const stored = new StoredColumns()
    const six = [...five, 'f']
    const see = (places: readonly (readonly string[])[], staying: readonly string[]) => {
      stored.note({ streams: withPlaces(places), standing: up, staying, members: six }, 0)
      return stored.of('s')
    }
    expect(see([['a'], ['b'], ['c'], ['d'], ['f']], six)).toEqual(['a', 'b', 'c', 'd', 'f'])
    expect(see([['a', 'f'], ['b'], ['c'], ['d'], ['e']], ['b', 'c', 'd', 'e', 'f'])).toEqual(['f', 'b', 'c', 'd', 'e'])
    expect(see([['a'], ['b'], ['c'], ['d'], ['a', 'f']], six)).toEqual(['a', 'b', 'c', 'd', 'f'])
  })

  it('is nobody where its holder was removed and nobody else has it', () => {
    const stored = new StoredColumns()
    const four = ['a', 'b', 'c', 'd']
    const standing = new Map(four.map(peer => [peer, 'up' as const]))
    for (const nowMs of [0, 2_000]) stored.note({ streams: lacking, standing, staying: four, members: four }, nowMs)
    expect(stored.of('s')).toEqual(['a', 'b', 'c', 'd', ''])
  })
})
