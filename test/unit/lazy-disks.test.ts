/** Disks of a restored VM, served out of an image that is still being read, by shards that come and go. */
import { describe, expect, it } from 'vitest'
import { PATIENCE_MS, RETRY_MS, serveLazily } from '../../node/agents/lazy-disks.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { BlockSource, Clock, Restore } from '../../node/ports.ts'
import { memoryLog } from '../contract/real-clock.ts'

/** A clock that stands still until it is told to go on. */
class HandClock implements Clock {
  #ms = 0
  readonly #due = new Map<() => void, number>()

  now(): number {
    return this.#ms
  }

  after(ms: number, fn: () => void): () => void {
    this.#due.set(fn, this.#ms + ms)
    return () => void this.#due.delete(fn)
  }

  get waiting(): number {
    return this.#due.size
  }

  async pass(ms: number): Promise<void> {
    await turns()
    const end = this.#ms + ms
    for (;;) {
      const next = [...this.#due].filter(([, at]) => at <= end).sort((a, b) => a[1] - b[1])[0]
      if (next === undefined) break
      this.#due.delete(next[0])
      this.#ms = next[1]
      next[0]()
      await turns()
    }
    this.#ms = end
  }
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve()
}

const lost = (): DiapauseError => new DiapauseError('SHARD_LOST', 'too few shards')

async function world(restore?: Promise<Restore>) {
  const clock = new HandClock()
  const log = memoryLog()
  const calls: string[] = []
  const source = {
    bytes: 8192,
    answer: (): Promise<Uint8Array> => Promise.resolve(new Uint8Array(512).fill(7)),
    read: (offset: number) => {
      calls.push(`read ${offset}`)
      return source.answer()
    },
    extents: async (_: number, length: number) => [{ length, zero: false }]
  }
  const image = { disks: [source], closeDisks: async () => void calls.push('closeDisks') } as unknown as Restore
  let served: ReadonlyMap<string, BlockSource> = new Map()
  const lazy = await serveLazily({
    group: 'g',
    vm: 'v',
    sizes: [8192],
    restore: restore ?? Promise.resolve(image),
    serve: async (path, disks) => {
      calls.push(`listen ${path}`)
      served = disks
      return { close: async () => void calls.push('close') }
    },
    socketPath: '/run/v.disks',
    clock,
    log
  })
  const disk = served.get('disk0') as BlockSource
  return { clock, log, calls, source, image, lazy, disk }
}

describe('the disks of a VM that is restored', () => {
  it('are served before the image is there, and asked for then', async () => {
    const image = Promise.withResolvers<Restore>()
    const { lazy, disk, image: restored, calls } = await world(image.promise)
    expect(lazy.starts).toEqual([{ kind: 'nbd', socketPath: '/run/v.disks', exportName: 'disk0' }])
    expect(disk.bytes).toBe(8192)
    const reading = disk.read(512, 512)
    await turns()
    expect(calls).toEqual(['listen /run/v.disks'])
    image.resolve(restored)
    expect(await reading).toEqual(new Uint8Array(512).fill(7))
    expect(await disk.extents(0, 4096, 3)).toEqual([{ length: 4096, zero: false }])
  })

  it('are asked again while shards are away, which is told once, and when they are back', async () => {
    const { clock, log, disk, source, calls } = await world()
    const { answer } = source
    source.answer = () => Promise.reject(lost())
    const reading = disk.read(0, 512)
    await clock.pass(3 * RETRY_MS)
    expect(calls.filter(call => call === 'read 0')).toHaveLength(4)
    source.answer = answer
    await clock.pass(RETRY_MS)
    expect((await reading).length).toBe(512)
    expect(log.lines.map(({ level, fields }) => [level, 'err' in fields])).toEqual([
      ['warn', true],
      ['info', false]
    ])
    expect(clock.waiting).toBe(0)
  })

  it('fail when that takes long, with the reason; later reads are tried anew', async () => {
    const { clock, disk, source } = await world()
    const { answer } = source
    source.answer = () => Promise.reject(lost())
    const failed = disk.read(0, 512).catch((error: unknown) => error)
    await clock.pass(PATIENCE_MS)
    expect(await failed).toMatchObject({ code: 'SHARD_LOST' })
    source.answer = () => new Promise(() => {})
    const slow = disk.read(0, 512).catch((error: unknown) => error)
    await clock.pass(PATIENCE_MS)
    expect(await slow).toMatchObject({ code: 'DISK_SLOW' })
    source.answer = answer
    expect((await disk.read(0, 512)).length).toBe(512)
    await clock.pass(RETRY_MS)
    expect(clock.waiting).toBe(0)
  })

  it('give back what they took when they are read no more, and tell what was read', async () => {
    const { clock, disk, lazy, calls } = await world()
    await disk.read(0, 512)
    await disk.read(4096, 512)
    await clock.pass(700)
    expect(await lazy.end()).toEqual({ bytes: 1024, ms: 700 })
    expect(calls.slice(-2)).toEqual(['close', 'closeDisks'])
    await lazy.end()
    expect(calls.filter(call => call === 'close')).toHaveLength(1)
    const without = await world(new Promise(() => {}))
    expect(await without.lazy.end()).toEqual({ bytes: 0, ms: 0 })
  })
})
