/** What a member can make the others believe of one that is well, and what it cannot. */
import { describe, expect, test } from 'vitest'
import { MAX_INCARNATION } from '../../protocols/failure-detector/messages.ts'
import { SETTINGS } from '../sim/swim-world.ts'
import { Bench, claim, gossip } from './failure-detector-support.ts'

const LAST = MAX_INCARNATION - 1
const stateOf = (bench: Bench, peer: string) => bench.core.view.get(peer)?.state

describe('a member that lies about another', () => {
  test('is refuted by the next word of that one, whatever it says and in whose name', () => {
    const bench = new Bench(6)
    for (const incarnation of [0, 7, 1_000_000, LAST - 1]) {
      bench.message('p0', gossip(...['p0', 'p2', 'p3', 'p4'].map(by => claim('p1', 'suspect', incarnation, by))))
      bench.message('p0', gossip(claim('p1', 'dead', incarnation, 'p3')))
      expect(stateOf(bench, 'p1')).toBe('dead')
      bench.message('p1', gossip(claim('p1', 'alive', incarnation + 1, 'p1')))
      expect(stateOf(bench, 'p1')).toBe('alive')
    }
  })

  test('cannot make up an incarnation beyond which it cannot go: then its own voice counts', () => {
    const bench = new Bench(4)
    bench.message('p0', gossip(claim('p1', 'dead', LAST, 'p2')))
    expect(stateOf(bench, 'p1')).toBe('dead')
    bench.message('p1', { kind: 'ping', seq: 1, incarnation: LAST, updates: [] })
    expect(stateOf(bench, 'p1')).toBe('alive')
    // And of nobody else, nor in a rumour.
    bench.message('p0', gossip(claim('p1', 'dead', LAST, 'p2'), claim('p1', 'alive', LAST, 'p1')))
    expect(stateOf(bench, 'p1')).toBe('dead')
    bench.message('p0', { kind: 'ping', seq: 2, incarnation: LAST, updates: [] })
    expect(stateOf(bench, 'p1')).toBe('dead')
  })

  test('hides nobody who is gone, also not at the last incarnation', () => {
    const bench = new Bench(2)
    bench.message('p0', { kind: 'ping', seq: 1, incarnation: LAST, updates: [] })
    bench.until(60 * SETTINGS.suspicionMaxMs)
    expect(stateOf(bench, 'p0')).toBe('dead')
  })

  test('makes one that is accused speak at once, and no more often than news is told', () => {
    const bench = new Bench(4)
    for (let lie = 0; lie < 5_000; lie++) bench.message('p0', gossip(claim('me', 'dead', lie, 'p1')))
    bench.until(SETTINGS.periodMs)
    expect(bench.sends.flatMap(({ message }) => message.updates)).toContainEqual(claim('me', 'alive', 5_000, 'me'))
    expect(bench.sends.length).toBeLessThan(100)
  })
})
