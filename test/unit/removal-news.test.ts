/** A peer that was removed while it was down learns of it from those who cut it off, and only says it. */
import { expect, test } from 'vitest'
import { answerJoin } from '../../node/agents/membership-joins.ts'
import { ASK_EVERY_MS, RemovalNews } from '../../node/agents/removal-news.ts'
import { troubleText } from '../../node/edge/format-places.ts'
import type { Log } from '../../node/ports.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { encodeJoinReply, parseJoinReply } from '../../protocols/membership/join.ts'
import { founder } from './membership-world.ts'
import { ManualClock } from './register-support.ts'

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }
const known = foundersRecord('c', ['a', 'b', 'c'].map(founder))
const now = { ...known, members: known.members.slice(0, 2), removed: ['idc'] }
const [request, refusal] = [new Uint8Array(1), { kind: 'refused', code: 'INVITE_UNKNOWN', message: 'x' } as const]

/** What member a answers to whoever comes under `id`. */
const answer = (id: string): Promise<Uint8Array> => {
  const register = (): Promise<never> => Promise.reject(new Error('no register is asked'))
  const membership = { record: () => now, refresh: register, change: register }
  const verify = async (): Promise<boolean> => true
  return answerJoin({ membership, secret: undefined, settings: {}, log: silent, wallMs: () => 0, verify }, id, request)
}

function scene(ask: () => Promise<Uint8Array>) {
  const clock = new ManualClock()
  const linked = new Set<string>()
  const asked: string[] = []
  const news = new RemovalNews({
    self: 'idc',
    membership: { record: () => known },
    transport: { connected: peer => linked.has(peer) },
    clock,
    random: () => 0,
    log: silent,
    ask: member => {
      asked.push(member.id)
      return ask()
    }
  })
  news.start()
  const rounds = (count: number): Promise<void> => clock.pass(count * ASK_EVERY_MS + 1)
  return { news, linked, asked, rounds }
}

test('a member tells a removed identity that it was removed, whatever it sends, and nobody else', async () => {
  expect(parseJoinReply(await answer('idc'))).toMatchObject({ kind: 'refused', code: 'MEMBER_REMOVED' })
  expect(parseJoinReply(await answer('idb'))).toMatchObject({ kind: 'refused', code: 'JOIN_MESSAGE' })
})

test('whoever reaches no majority asks, is told, and says so until a majority is reached', async () => {
  const { news, linked, asked, rounds } = scene(() => answer('idc'))
  await rounds(3)
  expect(asked).toEqual(['ida'])
  expect(news.told()).toEqual({ cluster: 'c', by: 'a' })
  const [shown] = troubleText({ members: [], groups: [], removed: news.told() })
  expect(shown).toMatch(/^REMOVED: this identity was removed from cluster c, says a: .*diapause join TOKEN/)
  linked.add('ida')
  await rounds(1)
  expect(news.told()).toBeUndefined()
})

test('nobody is asked while a majority is reached, and no other answer counts', async () => {
  const { linked, asked, rounds, news } = scene(() => answer('idc'))
  linked.add('idb')
  await rounds(3)
  expect(asked).toEqual([])
  expect(news.told()).toBeUndefined()
  for (const ask of [
    () => Promise.reject(new Error('cut off')),
    () => Promise.resolve(encodeJoinReply(refusal)),
    () => Promise.resolve(new Uint8Array([1, 2, 3]))
  ]) {
    const other = scene(ask)
    await other.rounds(3)
    expect(other.asked).toHaveLength(3)
    expect(other.news.told()).toBeUndefined()
  }
})
