/** When bases are forgotten, by a simulated clock and simulated registers. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BaseKeeping } from '../../node/agents/base-keeping.ts'
import type { BaseFacts } from '../../node/planning/base-retention.ts'
import { planRetention } from '../../node/planning/retention.ts'
import { baseKey, type BaseRecord, baseStream } from '../../protocols/base.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { quietLog } from '../contract/real-clock.ts'

const BASE = 'a'.repeat(64)
const STREAM = baseStream(BASE, 7)
const HASH = 'f'.repeat(64)
const MINUTE_MS = 60_000
const STORED = { manifest: HASH, extents: 1, blocks: 1, lengths: { offset: 0, length: 1 } }

/** A group with a base. */
const group = (fields: Partial<GroupRecord>): GroupRecord =>
  ({
    id: 'g',
    committed: null,
    removed: false,
    vms: [{ id: 'v', disks: [{ sizeMiB: 1, base: { path: '/b', format: 'raw' } }] }],
    ...fields
  }) as unknown as GroupRecord

const COMMITTED = group({ committed: { epoch: 1, generation: 1, previousEpoch: 0, images: {} } })

/** One peer's store beside a register that others use, too. */
class World {
  nowMs = 0
  record: BaseRecord | undefined = { by: 'p', nonce: 7, stored: STORED }
  unreadable = false
  streams = [STREAM]
  manifests = new Map([[HASH, STREAM]])
  wanted: Set<string> | undefined = new Set()
  groups: GroupRecord[] = [COMMITTED]
  readonly keeping: BaseKeeping

  constructor(deadlineMs = 30_000) {
    this.keeping = new BaseKeeping({
      registers: {
        read: async key => {
          if (this.unreadable) throw new Error('no majority')
          return key === baseKey(BASE) ? (this.record ?? null) : null
        },
        delete: async (key, options) => {
          const deleted = key === baseKey(BASE) && options?.only?.(this.record ?? null) === true
          if (deleted) this.record = undefined
          return deleted
        }
      },
      store: {
        dropStream: async stream => void (this.streams = this.streams.filter(each => each !== stream)),
        dropManifest: async hash => void this.manifests.delete(hash)
      },
      clock: { now: () => this.nowMs },
      log: quietLog,
      deadlineMs
    })
  }

  get facts(): BaseFacts {
    const { streams, manifests, wanted, groups } = this
    return { streams, manifests: new Map(manifests), wanted, groups }
  }

  async pass(minutes: number): Promise<void> {
    for (let n = 0; n < minutes; n++) {
      await this.keeping.forget(this.facts)
      this.nowMs += MINUTE_MS
    }
    await this.keeping.forget(this.facts)
  }
}

describe('a base', () => {
  it('that nobody refers to loses its register, and only as long after that its shards', async () => {
    const world = new World()
    await world.pass(9)
    expect(world.record).toBeDefined()
    await world.pass(1)
    expect(world.record).toBeUndefined()
    await world.pass(9)
    expect(world.streams).toEqual([STREAM])
    await world.pass(1)
    expect([world.streams, world.manifests.size, world.keeping.waits]).toEqual([[], 0, true])
    await world.pass(0)
    expect(world.keeping.waits).toBe(false)
  })

  it('waits longer where epochs may take longer', async () => {
    const world = new World(60 * MINUTE_MS)
    await world.pass(119)
    expect(world.record).toBeDefined()
    await world.pass(1)
    expect(world.record).toBeUndefined()
  })

  it('stays while an image refers to it, while not all images are known, and while a group with a base begins', async () => {
    for (const keep of [
      { wanted: new Set([STREAM]) },
      { wanted: undefined },
      { groups: [COMMITTED, group({ id: 'new' })] }
    ]) {
      const world = new World()
      await world.pass(15)
      expect(world.record).toBeUndefined()
      Object.assign(world, keep)
      await world.pass(60)
      expect(world.streams).toEqual([STREAM])
      Object.assign(world, { wanted: new Set(), groups: [COMMITTED, group({ removed: true })] })
      await world.pass(19)
      expect(world.streams).toEqual([STREAM]) // the time before does not count
      await world.pass(1)
      expect(world.streams).toEqual([])
    }
  })

  it('that is stored anew is another stream: the old one goes, the new register stays', async () => {
    const world = new World()
    world.record = { by: 'q', nonce: 8, stored: STORED }
    await world.pass(30)
    expect([world.streams, world.record.nonce]).toEqual([[], 8])
  })

  it('stays while its register cannot be read', async () => {
    const world = new World()
    world.unreadable = true
    await world.pass(60)
    expect(world.streams).toEqual([STREAM])
  })

  it('is never without shards while anything might refer to it, whatever happens when', async () => {
    const steps = fc.array(
      fc.record({ minutes: fc.nat(25), use: fc.constantFrom('none', 'image', 'begins', 'unknown') })
    )
    await fc.assert(
      fc.asyncProperty(steps, async all => {
        const world = new World()
        let unusedMin = 0
        for (const { minutes, use } of all) {
          world.wanted = use === 'unknown' ? undefined : new Set(use === 'image' ? [STREAM] : [])
          world.groups = use === 'begins' ? [group({})] : [COMMITTED]
          const stored = world.streams.length
          await world.pass(minutes)
          unusedMin = use === 'none' ? unusedMin + minutes : 0
          if (unusedMin < 20) expect(world.streams).toHaveLength(stored)
        }
      })
    )
  })
})

describe('what is forgotten of groups', () => {
  it('is nothing of bases, which are of no group', () => {
    const about = new Map([[HASH, { group: '.base', vm: BASE, generation: 0, epoch: 7 }]])
    const facts = { streams: [STREAM], manifests: [HASH], groups: [], gone: new Set(['.base']), floor: 9, about }
    expect(planRetention(facts)).toEqual({ streams: [], manifests: [] })
  })
})
