/** Each thing is told to people once: several cores, messages between them, deaths, and targets that fail. */
import { describe, expect, it } from 'vitest'
import type { NoticeKind } from '../../config/notices.ts'
import {
  GATHER_MS,
  GIVE_UP_MS,
  MAX_WAITING,
  NoticeCore,
  type NoticeEffect,
  type NoticeInput,
  TURN_MS
} from '../../protocols/notifications/core.ts'
import { type Notice, type NoticeState, parseNotificationMessage } from '../../protocols/notifications/messages.ts'

const note = (which: string, state: NoticeState = 'once', kind: NoticeKind = 'failover'): Notice => ({
  key: `${kind}/${which}`,
  kind,
  state,
  text: `${which} ${state}`,
  atMs: 1
})

const pager = { name: 'pager', on: ['failover', 'low-redundancy'] as NoticeKind[], perHour: 3_600 }

/** Cores of peers a, b, c …, in lockstep: what is sent arrives a millisecond later, unless `cut` says that it does not. */
class World {
  nowMs = 0
  readonly cores = new Map<string, NoticeCore>()
  readonly told: { by: string; keys: string[]; left: number; atMs: number }[] = []
  readonly lost: string[] = []
  /** Whether the target takes what this peer delivers; undefined: the peer hangs over it. */
  takes: (by: string) => boolean | undefined = () => true
  cut: (from: string, to: string) => boolean = () => false
  readonly #timers = new Map<string, number>()
  readonly #events: { atMs: number; run: () => void }[] = []

  constructor(peers: readonly string[], targets = () => [pager]) {
    for (const peer of peers) this.cores.set(peer, new NoticeCore(peer, targets()))
    for (const peer of peers)
      for (const other of peers) if (other !== peer) this.feed(peer, { kind: 'connected', peer: other })
    this.alive(peers)
    this.run(10)
  }

  alive(peers: readonly string[]): void {
    for (const peer of this.cores.keys()) if (!peers.includes(peer)) this.cores.delete(peer)
    for (const peer of peers) this.feed(peer, { kind: 'alive', peers })
  }

  see(peers: readonly string[], notice: Notice, more: Partial<Extract<NoticeInput, { kind: 'notice' }>> = {}): void {
    for (const peer of peers) this.feed(peer, { kind: 'notice', notice, ...more })
  }

  feed(peer: string, input: NoticeInput): void {
    for (const effect of this.cores.get(peer)?.step(input, this.nowMs) ?? []) this.#apply(peer, effect)
  }

  run(ms: number): void {
    const untilMs = this.nowMs + ms
    for (;;) {
      const timer = [...this.#timers].toSorted((a, b) => a[1] - b[1])[0]
      const event = this.#events.toSorted((a, b) => a.atMs - b.atMs)[0]
      const atMs = Math.min(timer?.[1] ?? Number.POSITIVE_INFINITY, event?.atMs ?? Number.POSITIVE_INFINITY)
      if (atMs > untilMs) break
      this.nowMs = Math.max(this.nowMs, atMs)
      if (event?.atMs === atMs) {
        this.#events.splice(this.#events.indexOf(event), 1)
        event.run()
      } else if (timer !== undefined) {
        this.#timers.delete(timer[0])
        this.feed(timer[0], { kind: 'timer' })
      }
    }
    this.nowMs = untilMs
  }

  #apply(by: string, effect: NoticeEffect): void {
    if (effect.kind === 'timer') this.#timers.set(by, effect.atMs)
    else if (effect.kind === 'lost') this.lost.push(...effect.notices.map(({ key }) => key))
    else if (effect.kind === 'deliver') {
      const { target, notices, left } = effect
      const takes = this.takes(by)
      if (takes === undefined) return
      if (takes)
        this.told.push({ by, keys: notices.map(({ key, state }) => `${key} ${state}`), left, atMs: this.nowMs })
      this.#later(100, () => this.feed(by, { kind: takes ? 'delivered' : 'failed', target }))
    } else {
      const message = parseNotificationMessage(effect.message)
      const to = effect.to === 'all' ? [...this.cores.keys()].filter(peer => peer !== by) : [effect.to]
      for (const peer of to) {
        if (!this.cut(by, peer)) this.#later(1, () => this.feed(peer, { kind: 'message', from: by, message }))
      }
    }
  }

  #later(ms: number, run: () => void): void {
    this.#events.push({ atMs: this.nowMs + ms, run })
  }
}

const abc = ['a', 'b', 'c']

describe('notifications', () => {
  it('are told by one of the peers that see the same thing, and what comes together in one message', () => {
    const world = new World(abc)
    world.see(abc, note('shop/2'))
    world.see(['b', 'c', 'a'], note('bank/7'))
    world.run(60_000)
    expect(world.told.map(({ by, keys }) => ({ by, keys }))).toEqual([
      { by: 'a', keys: ['failover/shop/2 once', 'failover/bank/7 once'] }
    ])
  })

  it('are told also where only a peer without targets has seen it', () => {
    const world = new World(abc)
    world.cores.set('d', new NoticeCore('d', []))
    world.see(['d'], note('shop/2'), { alone: true })
    world.run(60_000)
    expect(world.told.map(({ by }) => by)).toEqual(['a'])
  })

  it('are told by the next peer when the first is dead, or dies over it', () => {
    const world = new World(abc)
    world.takes = by => (by === 'a' ? undefined : true)
    world.see(abc, note('shop/2'))
    world.run(GATHER_MS + TURN_MS + 1_000)
    expect(world.told).toEqual([])
    world.alive(['b', 'c'])
    world.run(60_000)
    expect(world.told.map(({ by }) => by)).toEqual(['b'])
  })

  it('are told by the next peer where the first cannot, and by the first again when nobody could', () => {
    const world = new World(abc)
    const tried: string[] = []
    world.takes = by => tried.push(by) > 4
    world.see(abc, note('shop/2'))
    world.run(600_000)
    expect(tried).toEqual(['a', 'b', 'c', 'a', 'b'])
    expect(world.told).toHaveLength(1)
  })

  it('are let go when nobody could be told for an hour, which is said', () => {
    const world = new World(abc)
    world.takes = () => false
    world.see(abc, note('shop/2'))
    world.run(GIVE_UP_MS * 2)
    expect(world.lost).toEqual(['failover/shop/2', 'failover/shop/2', 'failover/shop/2'])
  })

  it('say nothing of a state that ends before it has lasted, and of its end only to who was told of it', () => {
    const world = new World(abc)
    world.see(abc, note('shop', 'begun', 'low-redundancy'), { holdMs: 10_000 })
    world.run(9_000)
    world.see(abc, note('shop', 'ended', 'low-redundancy'))
    world.run(60_000)
    expect(world.told).toEqual([])
    for (const state of ['begun', 'begun', 'ended', 'ended', 'begun'] as const) {
      world.see(abc, note('shop', state, 'low-redundancy'))
      world.run(60_000)
    }
    expect(world.told.flatMap(({ keys }) => keys)).toEqual([
      'low-redundancy/shop begun',
      'low-redundancy/shop ended',
      'low-redundancy/shop begun'
    ])
  })

  it('are not told again by a peer that has been started anew', () => {
    const world = new World(abc)
    world.see(abc, note('shop', 'begun', 'low-redundancy'))
    world.run(60_000)
    world.cores.set('a', new NoticeCore('a', [pager]))
    for (const peer of ['b', 'c']) {
      world.feed(peer, { kind: 'connected', peer: 'a' })
      world.feed('a', { kind: 'connected', peer })
    }
    world.alive(abc)
    world.see(['a'], note('shop', 'begun', 'low-redundancy'), { alone: true })
    world.run(60_000)
    expect(world.told).toHaveLength(1)
  })

  it('come twice rather than never where the peers do not hear each other', () => {
    const world = new World(abc)
    world.cut = () => true
    world.see(abc, note('shop/2'))
    world.run(60_000)
    expect(world.told.map(({ by }) => by)).toEqual(['a', 'b', 'c'])
  })

  it('are no more an hour than the target allows: what comes above that is told later, in one, and the oldest counted', () => {
    const world = new World(['a'], () => [{ ...pager, perHour: 6 }])
    for (let i = 0; i < 6; i++) {
      world.see(['a'], note(`first/${i}`))
      world.run(10_000)
    }
    expect(world.told).toHaveLength(6)
    for (let i = 0; i < MAX_WAITING + 7; i++) world.see(['a'], note(`second/${i}`))
    world.run(60_000)
    expect(world.told).toHaveLength(6)
    world.run(600_000)
    expect(world.told).toHaveLength(7)
    expect(world.told.at(-1)?.left).toBe(7)
    expect(world.told.at(-1)?.keys).toHaveLength(MAX_WAITING)
  })

  it('go only to targets that are told of their kind', () => {
    const world = new World(abc, () => [pager, { ...pager, name: 'drills', on: ['drill-failed'] }])
    world.see(abc, note('shop', 'once', 'drill-failed'))
    world.run(60_000)
    expect(world.told).toHaveLength(1)
    world.see(abc, note('shop', 'once', 'home-failed'))
    world.run(60_000)
    expect(world.told).toHaveLength(1)
  })
})
