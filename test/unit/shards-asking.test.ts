import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { Unanswered } from '../../protocols/shards/asking.ts'
import { parseMessage } from '../../protocols/shards/messages.ts'
import { ShardService } from '../../protocols/shards/service.ts'
import { ManualClock } from './register-support.ts'
import { type FakeTransport, MemoryStore, Network } from './shards-network.ts'
import { memoryLog } from './store-support.ts'

const STREAM = 'g/v/1/1'
const OPEN = { code: 'SHARD_UNREACHABLE' }
const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 5))

/** A peer that asks, and one that is asked and has one column. */
async function two() {
  const [network, clock, store] = [new Network(), new ManualClock(), new MemoryStore()]
  const make = (id: string) => {
    const transport = network.transport(id)
    return { transport, service: new ShardService({ transport, store, clock, log: memoryLog() }) }
  }
  const [{ service: asker, transport }, { transport: asked }] = [make('a'), make('b')]
  await asker.put('b', STREAM, 0, 0, randomBytes(64))
  const have = () => asker.have('b', STREAM)
  const get = () => asker.get('b', STREAM, 0, 0, [{ offset: 0, length: 8 }])
  return { network, clock, asker, transport, asked, have, get }
}

/** From now on it does as a peer of before `have` and `check` did. */
function makeOld(asked: FakeTransport): void {
  const { handler } = asked
  asked.handler = async (from, message) => {
    if (!['have', 'check'].includes(parseMessage(message).kind)) await handler?.(from, message)
  }
}

/** What has been asked of the peer is answered, or nobody waits for it any more. */
async function outcomes(clock: ManualClock, asked: Promise<unknown>[], ms: number) {
  const all = Promise.allSettled(asked)
  await turn()
  await clock.pass(ms)
  return (await all).map(({ status }) => status)
}

test('questions that are left open hold up no read', async () => {
  const { asker, asked, clock, have, get } = await two()
  makeOld(asked)
  const open = [
    ...Array.from({ length: 30 }, have),
    ...Array.from({ length: 30 }, () => asker.check('b', STREAM, 0, 0, 1))
  ]
  const ended = Promise.allSettled(open)
  expect(await get()).toHaveLength(8) // while the clock stands
  await clock.pass(30_000)
  expect((await ended).every(({ status }) => status === 'rejected')).toBe(true)
})

test('who leaves one open is asked no more for a while', async () => {
  const { asked, transport, clock, have, get } = await two()
  makeOld(asked)
  expect(await outcomes(clock, [have()], 2_000)).toEqual(['rejected'])
  const before = transport.sent.get('b')
  await expect(have()).rejects.toMatchObject(OPEN)
  expect(transport.sent.get('b')).toBe(before)
  expect(await get()).toHaveLength(8)
  await clock.pass(1_000)
  expect(await outcomes(clock, [have()], 2_000)).toEqual(['rejected'])
  expect(transport.sent.get('b')).toBe((before ?? 0) + 2)
})

test('that while is longer each time, at most a minute, and once for what was asked together', () => {
  const unanswered = new Unanswered()
  const seconds: number[] = []
  let [nowS, id] = [0, 0]
  for (let times = 0; times < 8; times++) {
    for (const _ of [1, 2]) unanswered.note('b', { id: ++id, kind: 'have' }, nowS * 1_000)
    const fromS = nowS
    while (unanswered.covers('b', 'have', nowS * 1_000)) nowS++
    seconds.push(nowS - fromS)
    nowS += 600
  }
  expect(seconds).toEqual([1, 2, 4, 8, 16, 32, 60, 60])
})

test('who has been silent and answers is as one that never was', async () => {
  const { network, asked, clock, have, transport } = await two()
  const { handler } = asked
  makeOld(asked)
  for (let times = 0; times < 4; times++) {
    expect(await outcomes(clock, [have()], 2_000)).toEqual(['rejected'])
    await clock.pass(60_000)
  }
  asked.handler = handler
  expect(await have()).toEqual([{ column: 0, grids: 1 }])
  network.silence('b')
  expect(await outcomes(clock, [have()], 2_000)).toEqual(['rejected'])
  await clock.pass(1_000)
  const before = transport.sent.get('b')
  void have().catch(() => {})
  await turn()
  expect(transport.sent.get('b')).toBe((before ?? 0) + 1)
})

test('who was only slow, or has come back, is asked again at once', async () => {
  const { network, asked, transport, clock, have } = await two()
  network.silence('b')
  expect(await outcomes(clock, [have(), have()], 2_000)).toEqual(['rejected', 'rejected'])
  await expect(have()).rejects.toMatchObject(OPEN)
  network.release('b')
  await turn()
  expect(await have()).toEqual([{ column: 0, grids: 1 }])
  const { handler } = asked
  makeOld(asked)
  expect(await outcomes(clock, [have()], 2_000)).toEqual(['rejected'])
  transport.connection?.('b', false)
  asked.handler = handler
  expect(await have()).toEqual([{ column: 0, grids: 1 }])
})

test('who does not know one kind of question is asked the others as before', async () => {
  const { asker, asked, transport, clock, have } = await two()
  const { handler } = asked
  asked.handler = async (from, message) => {
    if (parseMessage(message).kind !== 'file') await handler?.(from, message)
  }
  expect(await outcomes(clock, [asker.file('b', 'a'.repeat(64), 0)], 10_000)).toEqual(['rejected'])
  expect(await have()).toEqual([{ column: 0, grids: 1 }])
  const before = transport.sent.get('b')
  await expect(asker.file('b', 'a'.repeat(64), 0)).rejects.toMatchObject(OPEN)
  await expect(asker.paths('b', ['/kernel'])).rejects.toMatchObject(OPEN) // both came with one version
  expect(transport.sent.get('b')).toBe(before)
})
