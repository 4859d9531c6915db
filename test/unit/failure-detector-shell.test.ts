import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Clock, ControlBus, Log } from '../../node/ports.ts'
import { parseSwimMessage, type SwimMessage } from '../../protocols/failure-detector/messages.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import { SETTINGS, seeded } from '../sim/swim-world.ts'
import { Bench, claim, gossip } from './failure-detector-support.ts'

describe('messages', () => {
  test('well-formed ones pass unchanged', () => {
    const updates = [claim('p0', 'suspect', 3, 'p1')]
    const list: SwimMessage[] = [
      { kind: 'ping', seq: 1, incarnation: 0, updates },
      { kind: 'ack', seq: 2 ** 32 - 1, incarnation: 0, updates: [] },
      { kind: 'nack', seq: 0, updates },
      { kind: 'ping-req', seq: 5, target: 'p3', updates },
      { kind: 'gossip', updates }
    ]
    for (const message of list) expect(parseSwimMessage(message)).toEqual(message)
  })

  test('anything else throws SWIM_SHAPE and nothing else', () => {
    const near = fc.record(
      {
        kind: fc.oneof(fc.constantFrom('ping', 'ack', 'ping-req', 'nack', 'gossip'), fc.anything()),
        seq: fc.oneof(fc.nat(), fc.anything()),
        target: fc.oneof(fc.string(), fc.anything()),
        updates: fc.oneof(
          fc.array(
            fc.record(
              { peer: fc.anything(), state: fc.anything(), incarnation: fc.anything(), from: fc.anything() },
              { requiredKeys: [] }
            )
          ),
          fc.constant([]),
          fc.anything()
        )
      },
      { requiredKeys: [] }
    )
    fc.assert(
      fc.property(fc.oneof(near, fc.anything()), value => {
        try {
          const message = parseSwimMessage(value)
          new Bench(3).message('p0', message)
        } catch (error) {
          expect(error).toMatchObject({ code: 'SWIM_SHAPE' })
        }
      }),
      { numRuns: 1_000 }
    )
    const tooMany = new Array(33).fill(claim('p0', 'dead', 0, 'p1'))
    expect(() => parseSwimMessage({ kind: 'gossip', updates: tooMany })).toThrow(/list/)
    expect(() => parseSwimMessage({ kind: 'gossip', updates: [claim('p0', 'dead', 2 ** 41, 'p1')] })).toThrow(
      /incarnation/
    )
  })

  test('messages and claims of peers that are no members change nothing', () => {
    const bench = new Bench(3)
    bench.message('stranger', gossip(claim('p0', 'dead', 9, 'stranger')))
    bench.message('p0', gossip(claim('stranger', 'dead', 9, 'p0')))
    expect(bench.changes).toEqual([])
  })
})

/** A shell on a bus, a clock and a transport that are driven by hand. */
function shellBench(members: readonly string[], connected: (peer: string) => boolean) {
  const bench = {
    nowMs: 0,
    timer: undefined as (() => void) | undefined,
    deliver: (_from: string, _message: unknown): void => {},
    hint: (_peer: string, _connected: boolean): void => {},
    sent: [] as string[]
  }
  const clock: Clock = {
    now: () => bench.nowMs,
    after(_ms, fn) {
      bench.timer = fn
      return () => {
        bench.timer = undefined
      }
    }
  }
  const bus: ControlBus = {
    self: 'a',
    send: (to, protocol, message) => bench.sent.push(`${to} ${protocol} ${(message as SwimMessage).kind}`) > 0,
    on(_protocol, parse, handler) {
      bench.deliver = (from, message) => handler(from, parse(message))
    }
  }
  const quiet = (): void => {}
  const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet }
  const transport = {
    connected,
    onConnection: (handler: (peer: string, connected: boolean) => void): void => {
      bench.hint = handler
    }
  }
  const random = seeded(1)
  const detector = createFailureDetector({ self: 'a', members, bus, clock, random, settings: SETTINGS, log, transport })
  return Object.assign(bench, { detector })
}

test('the shell reports changes, lists the living and is silent after stop', () => {
  const bench = shellBench(['c', 'b', 'a'], () => true)
  const { detector } = bench
  const seen: string[] = []
  detector.onChange((peer, liveness) => void seen.push(`${peer} ${liveness}`))
  detector.start()
  expect(detector.alive()).toEqual(['a', 'b', 'c'])
  bench.deliver('b', gossip(claim('c', 'dead', 0, 'b')))
  expect(seen).toEqual(['c dead'])
  expect(detector.alive()).toEqual(['a', 'b'])
  expect(['a', 'b', 'c', 'x'].map(peer => detector.livenessOf(peer))).toEqual(['alive', 'alive', 'dead', 'dead'])
  bench.nowMs = 300
  bench.timer?.()
  expect(bench.sent.filter(sent => sent.startsWith('b swim'))).not.toEqual([])
  detector.stop()
  expect(bench.timer).toBeUndefined()
  bench.deliver('c', gossip(claim('c', 'alive', 1, 'c')))
  expect(seen).toEqual(['c dead'])
})

test('the shell takes new members, before its start and after, and asks the transport for those that came', () => {
  const linked = new Set(['b', 'd'])
  const bench = shellBench(['a', 'b'], peer => linked.has(peer))
  const { detector } = bench
  const seen: string[] = []
  detector.onChange((peer, liveness) => void seen.push(`${peer} ${liveness}`))
  detector.setMembers(['a', 'b', 'c'])
  expect(bench.timer).toBeUndefined()
  detector.start()
  expect(detector.alive()).toEqual(['a', 'b', 'c'])
  detector.setMembers(['a', 'b', 'd', 'e'])
  expect(detector.alive()).toEqual(['a', 'b', 'd', 'e'])
  expect(detector.livenessOf('c')).toBe('dead')
  // 'e' has no connection yet: it is not pinged. The others are.
  for (let i = 0; i < 20; i++) {
    bench.nowMs += 100
    bench.timer?.()
  }
  expect(new Set(bench.sent.filter(sent => sent.endsWith(' ping')))).toEqual(new Set(['b swim ping', 'd swim ping']))
  expect(seen.filter(change => change.startsWith('c'))).toEqual([])
})
