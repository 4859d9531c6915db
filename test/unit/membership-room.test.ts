/** The record of a cluster is one value of bounded length: what people ask for leaves room for what must be. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { addApiToken, addInvite, admit, setAddress, setRecovery } from '../../protocols/membership/changes.ts'
import { MAX_API_TOKENS } from '../../protocols/membership/api-tokens.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { encodeJoinReply, judgeJoin } from '../../protocols/membership/join.ts'
import { MAX_OLDER_KEYS } from '../../protocols/membership/keys.ts'
import {
  type ClusterRecord,
  type Invite,
  MAX_MEMBERS,
  MAX_REMOVED,
  MAX_VOTERS,
  parseClusterRecord
} from '../../protocols/membership/record.ts'
import { bytesAtMost, hasRoom, MAX_RECORD_BYTES } from '../../protocols/membership/room.ts'
import { MAX_JOIN_BYTES } from '../../protocols/join-channel.ts'
import { encodedBytes } from '../../protocols/register/value.ts'

const id = (kind: string, at: number): string => `12D3Koo${kind}${at}`.padEnd(52, 'x')
const addressOf = (at: number, length: number): string => `/dns4/${`h${at}.`.padEnd(length, 'h')}/tcp/65535`
const MADE_MS = 1.5e12 + 0.5

const founded = (count: number, addressLength: number, nameLength = 40): ClusterRecord =>
  foundersRecord(
    'c'.repeat(40),
    Array.from({ length: count }, (_, at) => ({
      id: id('m', at),
      name: `n${at}`.padEnd(nameLength, 'n'),
      address: addressOf(at, addressLength),
      role: 'storage' as const
    }))
  )

const token = (at: number) => ({
  name: `t${at}`.padEnd(40, 't'),
  role: 'operate' as const,
  hash: 'h'.repeat(43),
  madeMs: 1.5e12,
  expiresMs: 1.6e12
})

const invite = (at: number): Invite => ({
  id: id('i', at),
  role: 'storage',
  votes: true,
  replaces: id('m', at),
  expiresMs: MADE_MS
})

/** Everything that comes to a record of itself has come to it, as large as it may be. */
function grown(record: ClusterRecord): ClusterRecord {
  const all = record.invites.reduce((current, each, at) => {
    const newcomer = { id: id('j', at), name: `j${at}`.padEnd(40, 'j'), address: addressOf(at, 253) }
    return current.members.length < MAX_MEMBERS ? (admit(each, newcomer)(current) ?? current) : current
  }, record)
  const ids = all.members.slice(0, 2 * MAX_VOTERS).map(member => member.id)
  const note = { madeMs: MADE_MS, by: id('m', 0) }
  return {
    ...all,
    version: Number.MAX_SAFE_INTEGER,
    groupFloor: Number.MAX_SAFE_INTEGER,
    members: all.members.map(member => ({ ...member, leaving: true, forced: true, key: 'w'.repeat(107) })),
    voters: { version: 1e9, ids, since: Object.fromEntries(ids.map(each => [each, 1e9])), settled: false },
    removed: Array.from({ length: MAX_REMOVED }, (_, at) => id('r', at)),
    keys: {
      suite: 1,
      newest: { id: 1e6, ...note },
      older: Array.from({ length: MAX_OLDER_KEYS }, (_, at) => ({ id: 1e5 - at, ...note, sealed: 's'.repeat(64) }))
    },
    recovery: { public: 'CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', madeMs: 1.5e12 }
  }
}

/** Tokens and invitations are added until there is room for no more. */
function filled(record: ClusterRecord): ClusterRecord {
  let full = record
  for (let at = 0; at < 60; at++) {
    if (at % 3 === 0) full = addInvite(invite(at))(full) ?? full
    full = addApiToken(token(at))(full) ?? full
  }
  return full
}

describe('the record of a cluster', () => {
  it('that has been filled fits, whatever comes to it, with the answer to a newcomer', () => {
    const shape = { members: fc.integer({ min: 1, max: MAX_MEMBERS }), address: fc.integer({ min: 10, max: 253 }) }
    fc.assert(
      fc.property(fc.record(shape), ({ members, address }) => {
        const before = founded(members, address)
        fc.pre(hasRoom(before))
        const full = filled(before)
        const after = grown(full)
        expect(parseClusterRecord(after)).toEqual(after)
        expect(encodedBytes(after)).toBeLessThanOrEqual(bytesAtMost(full))
        expect(bytesAtMost(full)).toBeLessThanOrEqual(MAX_RECORD_BYTES)
        const settings = { lease: { durationMs: 1_000, renewEveryMs: 200, driftPerMille: 20 }, shards: { k: 3, m: 2 } }
        const reply = { kind: 'welcome', record: after, secret: new Uint8Array(32), settings } as const
        expect(encodeJoinReply(reply).length).toBeLessThan(MAX_JOIN_BYTES)
      }),
      { numRuns: 30 }
    )
  })

  it.each([
    [MAX_MEMBERS, 140],
    [82, 253]
  ])('has room for all tokens beside %i members with addresses of %i characters', (members, length) => {
    let record = founded(members, length)
    for (let at = 0; at < MAX_API_TOKENS; at++) record = addApiToken(token(at))(record) ?? record
    expect(record.apiTokens).toHaveLength(MAX_API_TOKENS)
  })

  it('takes no token, invitation or longer address where it has no room, but what makes it smaller', () => {
    const full = founded(MAX_MEMBERS, 250)
    expect(hasRoom(full)).toBe(false)
    expect(addApiToken(token(0))(full)).toBeUndefined()
    expect(addInvite(invite(0))(full)).toBeUndefined()
    expect(setAddress(id('m', 0), addressOf(0, 253))(full)).toBeUndefined()
    expect(setAddress(id('m', 0), addressOf(0, 20))(full)).toBeDefined()
    expect(setRecovery({ public: 'p'.repeat(43), madeMs: 0 }, undefined)(full)).toBeDefined()
  })

  it('takes a newcomer for whom there was room when it was invited, and refuses one for whom nobody made any', () => {
    const few = founded(3, 30)
    const { replaces: _, ...plain } = invite(0)
    const newcomer = { id: id('j', 0), name: 'late', address: addressOf(9, 253), cluster: few.id }
    const invited = addInvite(plain)(few) as ClusterRecord
    expect(judgeJoin(invited, plain.id, newcomer, 0)).toMatchObject({ kind: 'admit' })
    expect(bytesAtMost(admit(plain, newcomer)(invited) as ClusterRecord)).toBeLessThanOrEqual(bytesAtMost(invited))
    const crowded = { ...founded(MAX_MEMBERS - 1, 250), invites: [plain] }
    const another = { ...newcomer, cluster: crowded.id }
    expect(judgeJoin(crowded, plain.id, another, 0)).toMatchObject({ kind: 'refuse', code: 'CLUSTER_FULL' })
  })

  it('keeps room for newcomers who may come, and not for those who would be too many', () => {
    const kept = (members: number): number => {
      const before = founded(members, 10, 4)
      return bytesAtMost(addInvite(invite(0))(before) as ClusterRecord) - bytesAtMost(before)
    }
    expect(kept(MAX_MEMBERS - 1) - kept(MAX_MEMBERS)).toBeGreaterThan(500)
  })
})
