import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { EventFeed } from '../../node/edge/events.ts'
import { parseTokenWish } from '../../node/edge/token-view.ts'
import { TokenOperations } from '../../node/operations/tokens.ts'
import { SPEAKS } from '../../protocols/host-facts.ts'
import {
  API_ROLES,
  type ApiToken,
  apiTokenHash,
  apiTokenText,
  findApiToken,
  MAX_API_TOKENS,
  roleAllows
} from '../../protocols/membership/api-tokens.ts'
import { addApiToken, removeApiToken } from '../../protocols/membership/changes.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type ClusterRecord, MAX_MEMBERS, parseClusterRecord } from '../../protocols/membership/record.ts'
import { encodeValue } from '../../protocols/register/value.ts'
import { JumpingClock } from './jumping-clock.ts'

const DAY_MS = 86_400_000
const founder = { id: 'idoak', name: 'oak', address: '/ip4/10.0.0.1/tcp/7400', role: 'storage' } as const
const cluster = foundersRecord('c', [founder])
const text = apiTokenText(new Uint8Array(32).fill(7))
const token: ApiToken = { name: 'one', role: 'view', hash: apiTokenHash(text), madeMs: 1_000 }

describe('a token of the API', () => {
  it('is found by its text alone, whole, until it expires', () => {
    const others = Array.from({ length: 9 }, (_, at) => {
      const hash = apiTokenHash(apiTokenText(new Uint8Array(32).fill(at + 10)))
      return { ...token, name: `n${at}`, hash }
    })
    const tokens = [...others, { ...token, expiresMs: 2_000 }]
    expect(findApiToken(tokens, text, 1_999)?.name).toBe('one')
    expect(findApiToken(tokens, text, 2_000)).toBeUndefined()
    for (const wrong of [
      '',
      text.slice(0, -1),
      `${text}A`,
      text.toLowerCase(),
      token.hash,
      `diapause_${token.hash}`,
      'diapause_'
    ]) {
      expect([wrong, findApiToken(tokens, wrong, 0)]).toEqual([wrong, undefined])
    }
    expect(findApiToken([], text, 0)).toBeUndefined()
  })

  it('may what its role says and what lesser roles may', () => {
    const allowed = API_ROLES.map(role => API_ROLES.filter(needed => roleAllows(role, needed)))
    expect(allowed).toEqual([['view'], ['view', 'operate'], ['view', 'operate', 'admin']])
  })

  it('is made and removed in the cluster record once, whoever tries twice', () => {
    const added = addApiToken(token)(cluster)
    expect(added).toMatchObject({ version: cluster.version + 1, apiTokens: [token] })
    expect(addApiToken(token)(added as ClusterRecord)).toBeUndefined()
    expect(addApiToken({ ...token, hash: apiTokenHash('x') })(added as ClusterRecord)).toBeUndefined()
    const removed = removeApiToken('one')(added as ClusterRecord)
    expect(removed).toEqual({ ...cluster, version: cluster.version + 2 }) // as who is older knows it
    expect(removeApiToken('one')(removed as ClusterRecord)).toBeUndefined()
    expect(() => parseClusterRecord({ ...cluster, apiTokens: [token, token] })).toThrow()
    expect(() => parseClusterRecord({ ...cluster, apiTokens: [{ ...token, role: 'root' }] })).toThrow()
  })

  it('finds room where others have expired, and else not', () => {
    const full = Array.from({ length: MAX_API_TOKENS }, (_, at) => ({ ...token, name: `n${at}` }))
    expect(addApiToken(token)({ ...cluster, apiTokens: full })).toBeUndefined()
    const [first = token, ...rest] = full
    const expired = { ...first, expiresMs: token.madeMs }
    expect(addApiToken(token)({ ...cluster, apiTokens: [expired, ...rest] })?.apiTokens).toEqual([...rest, token])
  })
})

describe('tokens as an operator makes them', () => {
  function world(older: readonly string[] = [], begins: ClusterRecord = cluster) {
    let record = begins
    let nowMs = 1_000.5
    const events = new EventFeed(() => nowMs)
    const disk = { takes: true }
    const clock = new JumpingClock()
    const membership = {
      record: () => (disk.takes ? record : begins),
      newest: () => record,
      refresh: async () => record,
      until: () => (disk.takes ? Promise.resolve(record) : new Promise<never>(() => {})),
      change: async (change: (current: ClusterRecord) => ClusterRecord | undefined) =>
        (record = change(record) ?? record)
    }
    const tokens = new TokenOperations({
      membership,
      events,
      clock,
      detector: { alive: () => ['idoak'] },
      storagePeers: { about: () => [older.length === 0 ? { peer: 'idoak', speaks: SPEAKS } : { peer: 'idoak' }] },
      wallMs: () => nowMs,
      randomBytes
    })
    return { tokens, events, disk, clock, record: () => record, at: (ms: number) => (nowMs = ms) }
  }

  it('are told once; what is kept, listed and noted opens nothing', async () => {
    const { tokens, events, record } = world()
    const made = await tokens.make({ name: 'me', role: 'operate' })
    expect(made).toMatchObject({ name: 'me', role: 'operate' })
    const other = await tokens.make({ name: 'you', role: 'view' })
    expect(other.token).not.toBe(made.token)
    expect(tokens.holderOf(made.token)).toMatchObject({ name: 'me', role: 'operate' })
    const kept =
      JSON.stringify([record(), tokens.list(), events.recent()]) + Buffer.from(encodeValue(record())).toString()
    for (const secret of [made.token, made.token.slice(9), made.token.slice(20)]) expect(kept).not.toContain(secret)
    expect(JSON.stringify(tokens.list())).not.toContain(apiTokenHash(made.token))
  })

  it('end when they expire or are removed', async () => {
    const { tokens, at } = world()
    const { token: mine } = await tokens.make({ name: 'me', role: 'view', expiresDays: 2 })
    const { token: yours } = await tokens.make({ name: 'you', role: 'view' })
    await expect(tokens.make({ name: 'me', role: 'admin' })).rejects.toMatchObject({ code: 'TOKEN_EXISTS' })
    at(1_000 + 2 * DAY_MS)
    expect(tokens.holderOf(mine)).toBeUndefined()
    expect(tokens.list().map(({ name, expired }) => [name, expired])).toEqual([
      ['me', true],
      ['you', false]
    ])
    await tokens.remove('you')
    expect(tokens.holderOf(yours)).toBeUndefined()
    await expect(tokens.remove('you')).rejects.toMatchObject({ code: 'TOKEN_UNKNOWN' })
  })

  it('are made and removed for good when that is decided, though the disk takes nothing', async () => {
    const { tokens, disk, clock } = world()
    disk.takes = false
    const { token } = await tokens.make({ name: 'me', role: 'view' })
    expect(tokens.holderOf(token)).toMatchObject({ name: 'me' })
    const removed = tokens.remove('me')
    await clock.until(clock.nowMs + 10_001)
    await removed
    expect(tokens.holderOf(token)).toBeUndefined()
  })

  it('are not made while a member is of an older version, which would not understand the record', async () => {
    const { tokens, record } = world(['oak'])
    await expect(tokens.make({ name: 'me', role: 'view' })).rejects.toMatchObject({ code: 'MEMBER_OLDER' })
    expect(record()).toBe(cluster)
  })

  it('are refused where there are as many as may be, or their cluster takes up the room, and it is told which', async () => {
    const apiTokens = Array.from({ length: MAX_API_TOKENS }, (_, at) => ({ ...token, name: `n${at}` }))
    const many = world([], { ...cluster, apiTokens })
    await expect(many.tokens.make({ name: 'me', role: 'view' })).rejects.toMatchObject({
      code: 'TOKENS_FULL',
      message: expect.stringContaining(`${MAX_API_TOKENS} tokens already`)
    })
    const members = Array.from({ length: MAX_MEMBERS }, (_, at) => ({
      ...founder,
      id: `m${at}`.padEnd(52, 'x'),
      name: `n${at}`.padEnd(40, 'n'),
      address: `/dns4/${'h'.repeat(253)}/tcp/65535`
    }))
    const wide = world([], foundersRecord('c', members))
    await expect(wide.tokens.make({ name: 'me', role: 'view' })).rejects.toMatchObject({
      code: 'TOKENS_FULL',
      message: expect.stringContaining('no room for another')
    })
  })

  it('have a name, a role, and days until they expire', () => {
    expect(parseTokenWish({ name: 'a', role: 'view' })).toEqual({ name: 'a', role: 'view' })
    for (const wrong of [
      { name: 'a' },
      { name: 'A b', role: 'view' },
      { name: 'a', role: 'root' },
      { name: 'a', role: 'view', expiresDays: 0 },
      { name: 'a', role: 'view', hash: 'x' },
      null
    ]) {
      expect(() => parseTokenWish(wrong)).toThrow(expect.objectContaining({ code: 'TOKEN_REQUEST' }))
    }
  })
})
