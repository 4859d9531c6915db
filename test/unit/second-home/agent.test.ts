import { setImmediate as turn } from 'node:timers/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import { SecondHomeAgent } from '../../../node/agents/second-home.ts'
import { DiapauseError } from '../../../node/errors.ts'
import type { HomeCopying, HomeWish, ImageManifest, SecondHome } from '../../../node/ports.ts'
import {
  abortEpoch,
  commitEpoch,
  createGroup,
  openEpoch,
  removeGroup,
  takeOver
} from '../../../protocols/epoch/record.ts'
import { goBackTo } from '../../../protocols/epoch/kept.ts'
import type { GroupRecord } from '../../../protocols/group.ts'
import { restNow } from '../../../protocols/epoch/rest.ts'
import { initialRecord } from '../../../protocols/membership/genesis.ts'
import { SeenKeepers } from '../seen-keepers.ts'

const INTERVAL_MS = 600_000
const founder = { id: 'me', name: 'me', address: '/ip4/127.0.0.1/tcp/1', role: 'storage' } as const
const vm = (id: string) => ({ id, memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const settings = { outputCommit: true, retention: { keepLast: 3, hourly: 0, daily: 0, weekly: 0 } }
type Change = (current: GroupRecord | null) => GroupRecord | undefined

/** One group, whose record is truth at once. */
class World {
  nowMs = 0
  record: GroupRecord | null = null
  /** What is copied waits for `finish`. */
  copying: { readonly wish: HomeWish; readonly how: HomeCopying } | undefined
  finish: (error?: Error) => void = () => {}
  readonly copied: number[] = []
  readonly swept: number[] = []
  sweepsUntilEnded = false
  /** Of the log. */
  readonly warnings: string[] = []
  readonly events: string[] = []
  /** Images that were held at the end of each copy. */
  readonly held: string[][] = []
  hasKey = true
  /** A path at which this host has nothing. */
  absent = ''
  /** Its registers take a while to answer. */
  isSlow = false
  readonly seen: SeenKeepers
  readonly agent: SecondHomeAgent
  #timers: { atMs: number; fn: () => void }[] = []
  #handlers: ((record: GroupRecord) => void)[] = []

  constructor() {
    const cluster = { ...initialRecord('0'.repeat(32), 'forest', founder), removed: ['gone'] }
    const home: SecondHome = {
      url: 'memory:',
      epochs: () => Promise.resolve({ epochs: [], damaged: [], others: [] }),
      verify: () => Promise.reject(new Error('unused')),
      open: () => Promise.reject(new Error('unused')),
      sweep: (_, keep, _copied, signal) => this.#sweep(keep, signal),
      copy: (wish, how) =>
        new Promise((resolve, reject) => {
          this.copying = { wish, how }
          this.finish = error => {
            this.copying = undefined
            this.held.push(this.record?.held?.flatMap(({ images }) => Object.values(images)) ?? [])
            if (error !== undefined) return reject(error)
            this.copied.push(wish.epoch)
            resolve({ generation: wish.generation, streams: 2, streamsCopied: 1, bytesSent: 10 })
          }
          how.signal.addEventListener('abort', () => this.finish(new DiapauseError('HOME_CANCELLED', 'ended')))
        })
    }
    const known = {
      onRecord: (handler: (record: GroupRecord) => void) => void this.#handlers.push(handler),
      all: () => (this.record === null ? [] : [this.record])
    }
    this.seen = new SeenKeepers('me', ['me', 'other', 'third'], known)
    this.agent = new SecondHomeAgent({
      self: 'me',
      keepers: this.seen.keepers,
      run: 'run1',
      directory: {
        onForgotten: () => {},
        get: () => this.record ?? undefined,
        refresh: () => Promise.resolve(this.record),
        change: async (_, next) => {
          if (this.isSlow) await turn()
          return this.change(next)
        }
      },
      membership: {
        record: () => (this.hasKey ? { ...cluster, recovery: { public: 'public', madeMs: 1 } } : cluster)
      },
      home,
      clock: {
        now: () => this.nowMs,
        after: (ms, fn) => {
          const timer = { atMs: this.nowMs + ms, fn }
          this.#timers.push(timer)
          return () => void (this.#timers = this.#timers.filter(each => each !== timer))
        }
      },
      log: { debug: () => {}, info: () => {}, warn: (_, message) => void this.warnings.push(message), error: () => {} },
      report: (kind, fields) => void this.events.push(`${kind} ${String(fields['epoch'] ?? fields['code'])}`),
      intervalMs: INTERVAL_MS,
      keep: 7,
      wallMs: () => this.nowMs,
      readManifest: hash => Promise.resolve({ vm: hash } as unknown as ImageManifest),
      openFile: path => {
        if (path === this.absent) return Promise.reject(new DiapauseError('FILE_MISSING', path))
        return Promise.resolve({ path, hash: 'h', bytes: 1, read: () => Promise.resolve(new Uint8Array(1)) })
      },
      keysOf: () => [{ id: 0, key: new Uint8Array(32) }]
    })
  }

  #sweep(keep: number, signal?: AbortSignal): ReturnType<SecondHome['sweep']> {
    this.swept.push(keep)
    if (!this.sweepsUntilEnded) return Promise.resolve({ epochs: 0, objects: 0, damaged: [] })
    return new Promise((_, reject) =>
      signal?.addEventListener('abort', () => reject(new DiapauseError('HOME_CANCELLED', 'ended')))
    )
  }

  change(next: Change): GroupRecord | null {
    const changed = next(this.record)
    if (changed === undefined) return this.record
    this.record = changed
    for (const handler of this.#handlers) handler(changed)
    return changed
  }

  /** Runs what is due within `ms`. */
  async run(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    for (;;) {
      await turn()
      const due = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0]
      if (due === undefined) break
      this.#timers = this.#timers.filter(each => each !== due)
      this.nowMs = Math.max(this.nowMs, due.atMs)
      due.fn()
    }
    this.nowMs = untilMs
  }

  commit(): number {
    const { generation = 0, version = 0 } = this.record ?? {}
    const epoch = this.change(openEpoch('me', 1_000, version))?.open?.epoch ?? 0
    this.change(commitEpoch(generation, epoch, { a: `a${epoch}`, b: `b${epoch}` }))
    return epoch
  }
}

describe('copies to the second home', () => {
  let world: World
  beforeEach(() => {
    world = new World()
    world.change(createGroup('g', [vm('a'), vm('b')], { a: 'me', b: 'other' }, 0, settings))
  })

  it('are made some time after the first commit, then once an interval, and only of what is new', async () => {
    await world.run(INTERVAL_MS)
    expect(world.copying).toBeUndefined()
    world.commit()
    await world.run(2_000)
    expect(world.copying?.wish).toMatchObject({
      ...settings,
      epoch: 1,
      vms: [{ id: 'a' }, { id: 'b' }],
      images: { a: {}, b: {} }
    })
    world.finish()
    await world.run(0)
    expect(world.agent.copiesOf('g')).toMatchObject({ last: { epoch: 1, bytesSent: 10 } })
    for (let i = 0; i < 5; i++) world.commit()
    await world.run(INTERVAL_MS - 3_000)
    expect(world.copying).toBeUndefined()
    await world.run(2_000)
    expect(world.copying?.wish.epoch).toBe(6)
    world.finish()
    await world.run(3 * INTERVAL_MS)
    expect(world.copied).toEqual([1, 6])
    expect(world.swept).toEqual([7, 7])
    expect(world.events).toEqual(['home.copied 1', 'home.copied 6'])
  })

  it('hold what they copy, all images of the epoch, and nothing afterwards', async () => {
    world.commit()
    await world.run(2_000)
    world.commit()
    world.commit()
    expect(world.record?.committed?.epoch).toBe(3)
    world.finish()
    await world.run(0)
    expect(world.held).toEqual([['a1', 'b1']])
    expect(world.record?.held).toBeUndefined()
  })

  it('take along what VMs boot from, each once, and say what their host lacks', async () => {
    world.commit()
    await world.run(2_000)
    expect(world.copying?.wish.files?.map(({ path }) => path)).toEqual(['/k', '/i'])
    world.finish()
    await world.run(0)
    expect(world.agent.copiesOf('g').last?.without).toEqual([])
    world.absent = '/i'
    world.commit()
    await world.run(INTERVAL_MS)
    expect(world.copying?.wish.files?.map(({ path }) => path)).toEqual(['/k'])
    world.finish()
    await world.run(0)
    expect(world.agent.copiesOf('g').last).toMatchObject({ epoch: 2, without: ['/i'] })
  })

  it('say how far they are', async () => {
    world.commit()
    await world.run(2_000)
    world.copying?.how.progress(3, 9)
    expect(world.agent.copiesOf('g').copying).toEqual({ epoch: 1, doneBytes: 3, allBytes: 9 })
    world.finish()
    await world.run(0)
    expect(world.agent.copiesOf('g').copying).toBeUndefined()
  })

  it('that fail are told of, hold nothing, and are tried again', async () => {
    world.commit()
    await world.run(2_000)
    world.finish(new DiapauseError('HOME_UNREACHABLE', 'nobody answers'))
    await world.run(0)
    expect(world.agent.copiesOf('g')).toMatchObject({ failed: { code: 'HOME_UNREACHABLE', message: 'nobody answers' } })
    expect(world.record?.held).toBeUndefined()
    await world.run(60_000)
    world.finish()
    await world.run(0)
    expect(world.agent.copiesOf('g')).toMatchObject({ last: { epoch: 1 } })
    expect(world.agent.copiesOf('g').failed).toBeUndefined()
    expect(world.events).toEqual(['home.failed HOME_UNREACHABLE', 'home.copied 1'])
  })

  it('that fail again and again are told of once, and when they fail otherwise', async () => {
    world.hasKey = false
    world.commit()
    await world.run(5 * 60_000)
    expect(world.events).toEqual(['home.failed HOME_NO_KEY'])
    expect(world.agent.copiesOf('g').failed?.atMs).toBeGreaterThan(4 * 60_000)
    world.hasKey = true
    await world.run(60_000)
    world.finish(new DiapauseError('HOME_UNREACHABLE', 'nobody answers'))
    await world.run(60_000)
    world.finish()
    await world.run(0)
    world.hasKey = false
    world.commit()
    await world.run(INTERVAL_MS)
    const once = ['home.failed HOME_NO_KEY', 'home.failed HOME_UNREACHABLE', 'home.copied 1']
    expect(world.events).toEqual([...once, 'home.failed HOME_NO_KEY'])
  })

  it('are made at once when the group has gone back, of what it has gone back to', async () => {
    world.commit()
    world.commit()
    await world.run(2_000)
    world.finish()
    await world.run(0)
    world.commit() // waits for the interval
    await world.run(2_000)
    expect(world.copying).toBeUndefined()
    const kept = { epoch: 1, generation: 1, images: { a: 'a1', b: 'b1' } }
    world.change(now => (now === null ? undefined : { ...now, version: now.version + 1, kept: [kept] }))
    world.change(goBackTo(1, 1))
    await world.run(2_000)
    expect(world.copying?.wish).toMatchObject({ epoch: 1, generation: 1, groupGeneration: 2 })
    world.finish()
    await world.run(INTERVAL_MS)
    expect(world.copied).toEqual([2, 1])
  })

  it('are not made without a recovery key', async () => {
    world.hasKey = false
    world.commit()
    await world.run(2_000)
    expect(world.copying).toBeUndefined()
    expect(world.agent.copiesOf('g')).toMatchObject({ failed: { code: 'HOME_NO_KEY' } })
    expect(world.record?.held).toBeUndefined()
  })

  it('are made by who keeps a group that rests while the host of its first VM is dead, which goes on when it is back', async () => {
    world.change(takeOver(1, { a: 'other', b: 'me' }))
    world.commit()
    world.change(restNow(2))
    await world.run(INTERVAL_MS)
    expect(world.copying).toBeUndefined()
    world.seen.alive = ['me', 'third']
    await world.run(2_000)
    expect(world.copying?.wish.epoch).toBe(1)
    world.seen.alive = ['me', 'other', 'third']
    await world.run(0)
    expect([world.copying, world.copied, world.record?.held]).toEqual([undefined, [], undefined])
  })

  it('are the business of whoever owns the first VM: who loses it leaves off', async () => {
    world.commit()
    await world.run(2_000)
    world.change(takeOver(1, { a: 'other', b: 'me' }))
    await world.run(INTERVAL_MS)
    expect(world.copying).toBeUndefined()
    expect(world.copied).toEqual([])
    expect(world.record?.held).toBeUndefined()
    world.change(takeOver(2, { a: 'me', b: 'me' }))
    await world.run(INTERVAL_MS)
    expect(world.copying?.wish.epoch).toBe(1)
  })

  it('end with the group, and with the peer', async () => {
    world.commit()
    await world.run(2_000)
    world.change(removeGroup)
    await world.run(INTERVAL_MS)
    expect(world.copying).toBeUndefined()
    world.change(createGroup('g', [vm('a'), vm('b')], { a: 'me', b: 'me' }))
    world.commit()
    await world.run(2_000)
    await world.agent.stop()
    await world.run(INTERVAL_MS)
    expect(world.copying).toBeUndefined()
    expect(world.copied).toEqual([])
    expect(world.record?.held).toBeUndefined()
  })

  it('can be asked for at any peer, at once, but not twice', async () => {
    world.change(takeOver(1, { a: 'other', b: 'other' }))
    await expect(world.agent.push('g')).rejects.toMatchObject({ code: 'EPOCH_NOT_KEPT' })
    world.commit()
    const pushed = world.agent.push('g')
    await world.run(0)
    await expect(world.agent.push('g')).rejects.toMatchObject({ code: 'HOME_BUSY' })
    world.change(abortEpoch(0, 0))
    world.commit() // that it is another's group does not end it
    world.finish()
    expect(await pushed).toMatchObject({ epoch: 1, streamsCopied: 1 })
  })

  it('drop at once what an earlier run of this peer held, what a failed release left, and what who was removed held', async () => {
    world.commit()
    const hold = (by: string): void => {
      const held = [{ epoch: 1, images: { a: 'a1' }, by }]
      world.change(now => (now === null ? undefined : { ...now, version: now.version + 1, held }))
    }
    for (const by of ['me run0 home 1', 'me run1 home 77', 'gone run9 file 1']) {
      hold(by)
      await world.run(0)
      expect(world.record?.held, by).toBeUndefined()
    }
    for (const by of ['me run1 file 1', 'other run9 home 1']) {
      hold(by)
      await world.run(0)
      expect(world.record?.held, by).toHaveLength(1)
    }
  })

  it('do not hold up a peer that stops while the home is cleaned up after them, which is no failure', async () => {
    world.sweepsUntilEnded = true
    world.commit()
    await world.run(2_000)
    world.finish()
    await world.run(0)
    expect([world.swept, world.record?.held?.length]).toEqual([[7], 1])
    await world.agent.stop()
    expect(world.record?.held).toBeUndefined()
    expect(world.events).toEqual(['home.copied 1'])
    expect(world.warnings).toEqual([])
  })

  it('that a stopping peer ended are no failure, whatever the home says to that', async () => {
    world.commit()
    await world.run(2_000)
    const { finish } = world
    world.finish = () => finish(new DiapauseError('HOME_UNREACHABLE', 'nobody answers'))
    await world.agent.stop()
    expect(world.events).toEqual([])
    expect(world.agent.copiesOf('g').failed).toBeUndefined()
  })

  it('have released what they held when the peer has stopped', async () => {
    world.commit()
    await world.run(2_000)
    expect(world.record?.held).toHaveLength(1)
    world.isSlow = true
    await world.agent.stop()
    expect(world.record?.held).toBeUndefined()
  })
})
