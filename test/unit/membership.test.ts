/** The pure parts of membership: what a record may be, its changes, tokens, and who may join. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  addInvite,
  addVoter,
  admit,
  type Change,
  dropExpiredInvites,
  dropInvite,
  markSettled,
  raiseGroupFloor,
  removeMember,
  removeVoter,
  setAddress,
  wishLeave,
  wishVotes
} from '../../protocols/membership/changes.ts'
import { MAX_OLDER_KEYS } from '../../protocols/membership/keys.ts'
import { foundersRecord, initialRecord } from '../../protocols/membership/genesis.ts'
import {
  encodeJoinReply,
  encodeJoinRequest,
  judgeJoin,
  parseJoinReply,
  parseJoinRequest
} from '../../protocols/membership/join.ts'
import { parseMembershipMessage } from '../../protocols/membership/messages.ts'
import {
  type ClusterRecord,
  findMember,
  type Invite,
  MAX_INVITES,
  MAX_MEMBERS,
  MAX_REMOVED,
  MAX_VOTERS,
  memberById,
  parseClusterRecord,
  wantedVoters
} from '../../protocols/membership/record.ts'
import { decodeToken, encodeToken, type Token } from '../../protocols/membership/token.ts'
import { MAX_JOIN_BYTES } from '../../protocols/join-channel.ts'
import { firstVoters } from '../../protocols/register/voters.ts'
import { encodeValue } from '../../protocols/register/value.ts'
import { plainBox } from '../sim/world-keys.ts'

const ID = '0123456789abcdef'.repeat(2)
const founder = (name: string) =>
  ({
    id: `id${name}`,
    name,
    address: `/ip4/10.0.0.1/tcp/${name.length + 1000 + name.charCodeAt(0)}`,
    role: 'storage'
  }) as const
const three = foundersRecord('c', [founder('oak'), founder('elm'), founder('ash')])
const secret = new Uint8Array(32).fill(7)
const making = { self: 'idelm', box: plainBox('idelm', Math.random), secret, wallMs: 5, needed: undefined }
const invite: Invite = { id: 'inv1', role: 'witness', votes: true, expiresMs: 1_000 }
const newcomer = { id: 'idfir', name: 'fir', address: '/ip4/10.0.0.9/tcp/7400', cluster: three.id }

/** The record after changes that all must change it. */
function after(record: ClusterRecord, ...changes: Change[]): ClusterRecord {
  return changes.reduce((current, change) => {
    const changed = change(current)
    if (changed === undefined) throw new Error('a change changed nothing')
    expect(changed.version).toBe(current.version + 1)
    expect(change(changed)).toBeUndefined() // idempotent by content
    return parseClusterRecord(changed) as ClusterRecord
  }, record)
}

describe('the record that a cluster begins with', () => {
  it('is the same for all founders, whatever the order of their lists, and another for other founders', () => {
    expect(foundersRecord('c', [founder('ash'), founder('oak'), founder('elm')])).toEqual(three)
    expect(foundersRecord('d', [founder('ash'), founder('oak'), founder('elm')]).id).not.toBe(three.id)
    expect(foundersRecord('c', [founder('ash'), founder('oak')]).id).not.toBe(three.id)
    const moved = [founder('ash'), founder('oak'), { ...founder('elm'), address: '/ip4/10.9.9.9/tcp/1' }]
    expect(foundersRecord('c', moved).id).toBe(three.id)
    expect(three.voters).toEqual({
      version: 1,
      ids: ['idash', 'idelm', 'idoak'],
      since: expect.anything(),
      settled: true
    })
  })

  it(`lets ${MAX_VOTERS} of more founders vote`, () => {
    const many = foundersRecord(
      'c',
      Array.from({ length: 9 }, (_, i) => founder(`peer${i}`))
    )
    expect(many.members).toHaveLength(9)
    expect(many.voters.ids).toHaveLength(MAX_VOTERS)
    expect(wantedVoters(many).map(member => member.id)).toEqual(many.voters.ids)
    expect(parseClusterRecord(many)).toEqual(many)
  })

  it('has one member where it was made by init', () => {
    expect(initialRecord(ID, 'c', founder('oak'))).toMatchObject({ id: ID, version: 1, voters: firstVoters(['idoak']) })
  })
})

describe('a record from elsewhere', () => {
  const wrong: [string, unknown][] = [
    ['no object', 7],
    ['another shape', { ...three, extra: 1 }],
    ['a voter that is no member', { ...three, voters: firstVoters(['idash', 'idbeech']) }],
    ['no voter', { ...three, voters: { ...three.voters, ids: [], since: {} } }],
    ['a voter twice', { ...three, voters: { ...three.voters, ids: ['idash', 'idash'] } }],
    [
      'a term that begins later than the set',
      { ...three, voters: { ...three.voters, since: { idash: 1, idelm: 1, idoak: 2 } } }
    ],
    ['two members of one name', { ...three, members: three.members.map(member => ({ ...member, name: 'oak' })) }],
    ['two members of one id', { ...three, members: [...three.members, { ...three.members[0], name: 'fir' }] }],
    [
      'too many members',
      {
        ...three,
        members: Array.from({ length: MAX_MEMBERS + 1 }, (_, i) => ({
          ...three.members[0],
          id: `i${i}`,
          name: `n${i}`
        }))
      }
    ],
    [
      'an address that is none',
      { ...three, members: three.members.map(member => ({ ...member, address: 'oak:7400' })) }
    ]
  ]
  it.each(wrong)('is refused with %s', (_, record) => {
    expect(() => parseClusterRecord(record)).toThrow()
    expect(() => parseMembershipMessage({ kind: 'record', record })).toThrow()
  })

  it('that is the largest possible fits a register and the answer to a newcomer', () => {
    const id = (kind: string, i: number) => `${kind}${i}`.padEnd(52, 'x')
    const address = `/dns4/${'h'.repeat(63)}.${'d'.repeat(63)}.example/tcp/65535`
    const members = Array.from({ length: MAX_MEMBERS }, (_, i) => ({
      id: id('member', i),
      name: `n${i}`.padEnd(40, 'n'),
      address,
      role: 'storage' as const,
      votes: false,
      leaving: false,
      forced: false,
      replaces: id('old', i),
      key: 'w'.repeat(107)
    }))
    const crowded: ClusterRecord = {
      ...three,
      version: Number.MAX_SAFE_INTEGER,
      groupFloor: Number.MAX_SAFE_INTEGER,
      members,
      voters: firstVoters(members.slice(0, MAX_VOTERS + 1).map(member => member.id)),
      removed: Array.from({ length: MAX_REMOVED }, (_, i) => id('removed', i)),
      invites: Array.from({ length: MAX_INVITES }, (_, i) => ({
        ...invite,
        id: id('invite', i),
        replaces: id('old', i),
        usedBy: id('used', i),
        expiresMs: 1.5e12 + 0.5
      }))
    }
    const note = (i: number) => ({ id: 1e6 - i, madeMs: 1.5e12 + 0.5, by: id('member', 0) })
    const keys = {
      suite: 1,
      newest: note(0),
      older: Array.from({ length: MAX_OLDER_KEYS }, (_, i) => ({ ...note(i + 1), sealed: 's'.repeat(64) }))
    } as const
    const largest: ClusterRecord = { ...crowded, keys }
    expect(parseClusterRecord(largest)).toEqual(largest)
    expect(() => encodeValue(largest)).not.toThrow()
    const settings = { lease: { durationMs: 1_000, renewEveryMs: 200, driftPerMille: 20 }, shards: { k: 3, m: 2 } }
    const reply = { kind: 'welcome', record: largest, secret: new Uint8Array(32), settings } as const
    expect(encodeJoinReply(reply).length).toBeLessThan(MAX_JOIN_BYTES)
  })
})

describe('wishes', () => {
  it('keep at least one vote', () => {
    const one = after(three, wishVotes('idoak', false), wishVotes('idelm', false))
    expect(wishVotes('idash', false)(one)).toBeUndefined()
    expect(wishLeave('idash', true)(one)).toBeUndefined()
    expect(after(one, wishVotes('idelm', true), wishVotes('idash', false)).voters).toEqual(three.voters)
  })

  it(`give at most ${MAX_VOTERS} votes`, () => {
    const many = foundersRecord(
      'c',
      Array.from({ length: 9 }, (_, i) => founder(`peer${i}`))
    )
    expect(wishVotes('idpeer8', true)(many)).toBeUndefined()
    expect(after(many, wishVotes('idpeer0', false), wishVotes('idpeer8', true)).version).toBe(3)
  })

  it('to leave are not taken back, and force is added to them', () => {
    const leaving = after(three, wishLeave('idoak', false))
    expect(wishVotes('idoak', false)(leaving)).toBeUndefined()
    expect(findMember(after(leaving, wishLeave('idoak', true)), 'oak')).toMatchObject({ leaving: true, forced: true })
  })

  it('of members that do not exist change nothing', () => {
    const changes = [
      wishVotes('x', false),
      wishLeave('x', true),
      setAddress('x', '/ip4/1.1.1.1/tcp/1'),
      removeMember('x', making)
    ]
    for (const change of changes) expect(change(three)).toBeUndefined()
  })
})

describe('voters', () => {
  it('change one at a time, and only when the set is settled and the one that was seen', () => {
    const removed = after(three, removeVoter(1, 'idoak'))
    expect(removed.voters).toMatchObject({ version: 2, ids: ['idash', 'idelm'], settled: false })
    expect(addVoter(2, 'idoak')(removed)).toBeUndefined()
    expect(removeVoter(2, 'idash')(removed)).toBeUndefined()
    expect(markSettled(1)(removed)).toBeUndefined()
    const settled = after(removed, markSettled(2))
    expect(removeVoter(1, 'idash')(settled)).toBeUndefined()
    const back = after(settled, addVoter(2, 'idoak'))
    expect(back.voters.since).toEqual({ idash: 1, idelm: 1, idoak: 3 })
  })

  it('are members, and never none', () => {
    const one = initialRecord(ID, 'c', founder('oak'))
    expect(addVoter(1, 'idelm')(one)).toBeUndefined()
    expect(removeVoter(1, 'idoak')(one)).toBeUndefined()
  })

  it('are not removed as members', () => {
    const leaving = after(three, wishLeave('idoak', true))
    expect(removeMember('idoak', making)(leaving)).toBeUndefined()
    expect(removeMember('idash', making)(leaving)).toBeUndefined()
    const gone = after(leaving, removeVoter(1, 'idoak'), removeMember('idoak', making))
    expect(gone.removed).toEqual(['idoak'])
    expect(gone.members.map(member => member.name)).toEqual(['ash', 'elm'])
  })
})

describe('an invitation', () => {
  const invited = after(three, addInvite(invite))
  const judge = (record: ClusterRecord, who: Partial<typeof newcomer> = {}, wallMs = 0, key = invite.id) =>
    judgeJoin(record, key, { ...newcomer, ...who }, wallMs)

  it('makes one member, in the step that uses it up', () => {
    expect(judge(invited)).toEqual({ kind: 'admit', invite })
    const joined = after(invited, admit(invite, newcomer))
    expect(findMember(joined, 'fir')).toEqual({
      id: 'idfir',
      name: 'fir',
      address: newcomer.address,
      role: 'witness',
      votes: true,
      leaving: false,
      forced: false
    })
    expect(joined.voters).toEqual(three.voters)
    expect(judge(joined, { id: 'idyew', name: 'yew' })).toMatchObject({
      code: 'INVITE_USED',
      message: expect.stringContaining('by fir')
    })
    expect(judge(joined)).toEqual({ kind: 'admitted' }) // its first answer was lost
    expect(admit(invite, { ...newcomer, id: 'idyew', name: 'yew' })(joined)).toBeUndefined()
  })

  it('tells why it does not admit', () => {
    expect(judge(invited, { cluster: ID })).toMatchObject({ code: 'OTHER_CLUSTER' })
    expect(judge(invited, {}, 0, 'inv2')).toMatchObject({ code: 'INVITE_UNKNOWN' })
    expect(judge(invited, {}, 1_000)).toMatchObject({ code: 'INVITE_EXPIRED' })
    expect(judge(invited, { name: 'oak' })).toMatchObject({ code: 'NAME_TAKEN' })
    expect(judge(invited, { address: founder('elm').address })).toMatchObject({ code: 'ADDRESS_TAKEN' })
    expect(judge(invited, { id: 'idelm' })).toMatchObject({ code: 'MEMBER_ALREADY' })
    const gone = after(
      three,
      wishLeave('idoak', true),
      removeVoter(1, 'idoak'),
      removeMember('idoak', making),
      addInvite(invite)
    )
    expect(judge(gone, { id: 'idoak' })).toMatchObject({ code: 'MEMBER_REMOVED' })
    const left = after(invited, admit(invite, newcomer), wishLeave('idfir', true), removeMember('idfir', making))
    expect(judge(left)).toMatchObject({ code: 'MEMBER_REMOVED' })
  })

  it('to replace a member gives its name, its address and, in the end, its vote to the newcomer', () => {
    const replacing = { ...invite, replaces: 'idoak' }
    const record = after(three, addInvite(replacing))
    const heir = { name: 'oak', address: founder('oak').address }
    expect(judge(record, heir)).toEqual({ kind: 'admit', invite: replacing })
    const joined = after(record, admit(replacing, { ...newcomer, ...heir }))
    expect(memberById(joined, 'idoak')).toMatchObject({ name: 'oak-replaced', leaving: true, forced: false })
    expect(findMember(joined, 'oak')).toMatchObject({ id: 'idfir', replaces: 'idoak', votes: true })
    const done = after(joined, removeVoter(1, 'idoak'), removeMember('idoak', making))
    expect(findMember(done, 'oak')).not.toHaveProperty('replaces')
  })

  it('gives a vote where nobody else would have one, and none where enough have', () => {
    const one = after(
      initialRecord(three.id, 'c', founder('oak')),
      addInvite({ ...invite, votes: false, replaces: 'idoak' })
    )
    expect(findMember(after(one, admit(invite, newcomer)), 'fir')?.votes).toBe(true)
    const full = after(
      foundersRecord(
        'c',
        Array.from({ length: 7 }, (_, i) => founder(`peer${i}`))
      ),
      addInvite(invite)
    )
    expect(findMember(after(full, admit(invite, newcomer)), 'fir')?.votes).toBe(false)
  })

  it('is withdrawn while nobody has joined with it, and then nobody does', () => {
    const withdrawn = after(invited, dropInvite(invite.id))
    expect(withdrawn.invites).toEqual(invited.invites.filter(({ id }) => id !== invite.id))
    expect(judge(withdrawn)).toMatchObject({ code: 'INVITE_UNKNOWN' })
    expect(dropInvite('other')(invited)).toBeUndefined()
    expect(dropInvite(invite.id)(after(invited, admit(invite, newcomer)))).toBeUndefined()
  })

  it('goes when it has expired, used or not', () => {
    const used = after(invited, admit(invite, newcomer))
    expect(dropExpiredInvites(999)(used)).toBeUndefined()
    expect(after(used, dropExpiredInvites(1_000)).invites).toEqual([])
  })
})

it('the floor of groups only rises', () => {
  const raised = after(three, raiseGroupFloor(7))
  expect(raised.groupFloor).toBe(7)
  expect(raiseGroupFloor(6)(raised)).toBeUndefined()
})

describe('a token', () => {
  const token: Token = {
    cluster: { id: ID, name: 'forest' },
    seed: Uint8Array.from({ length: 32 }, (_, i) => i),
    expiresMs: 1_800_000_000_000,
    members: [{ id: '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5', address: '/ip4/10.0.0.1/tcp/7400' }]
  }
  const text = encodeToken(token)

  it('comes back as it was, also with blanks around it', () => {
    expect(decodeToken(` ${text}\n`)).toEqual(token)
    expect(text).toMatch(/^[A-Za-z0-9_-]{100,400}$/)
  })

  it('that was cut short, changed, or is none is refused with what to do', () => {
    for (const wrong of [text.slice(0, -1), text.slice(4), `${text}A`, 'swordfish', '', '###', 'a'.repeat(5_000)]) {
      expect(() => decodeToken(wrong)).toThrow(expect.objectContaining({ name: 'UsageError', code: 'TOKEN_INVALID' }))
    }
    const at = fc.integer({ min: 0, max: text.length - 1 })
    fc.assert(
      fc.property(at, fc.constantFrom('A', 'z', '0', '_'), (index, letter) => {
        fc.pre(text[index] !== letter)
        const changed = text.slice(0, index) + letter + text.slice(index + 1)
        fc.pre(!Buffer.from(changed, 'base64url').equals(Buffer.from(text, 'base64url')))
        expect(() => decodeToken(changed)).toThrow(expect.objectContaining({ code: 'TOKEN_INVALID' }))
      })
    )
  })
})

describe('messages of the join channel', () => {
  it('come back as they were, and anything else is refused', () => {
    const request = { ...newcomer, signature: new Uint8Array(64) }
    expect(parseJoinRequest(encodeJoinRequest(request))).toEqual(request)
    const refused = { kind: 'refused', code: 'INVITE_USED', message: 'used' } as const
    expect(parseJoinReply(encodeJoinReply(refused))).toEqual(refused)
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
        expect(() => parseJoinRequest(bytes)).toThrow(expect.objectContaining({ code: 'JOIN_MESSAGE' }))
        expect(() => parseJoinReply(bytes)).toThrow(expect.objectContaining({ code: 'JOIN_MESSAGE' }))
      })
    )
    expect(() => parseJoinRequest(encodeJoinRequest({ ...request, name: 'No Name' }))).toThrow()
  })
})
