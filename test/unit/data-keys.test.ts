/**
 * Data keys: wrapping, the keys of the next record, and random stories of members against a model that simply notes who was
 * a member when each key was made.
 */
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { DataKeyRing } from '../../node/agents/data-keys.ts'
import { type Identity, identityFromSeed, identitySeed } from '../../node/host/identity.ts'
import { createKeyBox } from '../../node/host/key-box.ts'
import { giveKeys, removeMember, rotateKeys } from '../../protocols/membership/changes.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type KeyBox, openUnder, sealUnder } from '../../protocols/membership/key-box.ts'
import {
  type DataKeys,
  KEPT_KEYS,
  keyHolders,
  type KeyMaking,
  keysAreFull,
  keysForAll,
  lackingKeys,
  MAX_OLDER_KEYS,
  mayMakeKey,
  needsNewKey,
  openKeys
} from '../../protocols/membership/keys.ts'
import { type ClusterRecord, parseClusterRecord, placeable } from '../../protocols/membership/record.ts'
import { plainBox } from '../sim/world-keys.ts'

const SECRET = new Uint8Array(32).fill(9)
const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex')

describe('a wrapped data key', () => {
  const identities: Identity[] = []
  const boxOf = (index: number): KeyBox => {
    const { peerId, privateKey } = identities[index] as Identity
    return createKeyBox(peerId, identitySeed(privateKey))
  }
  const key = Uint8Array.from({ length: 32 }, (_, i) => i)
  beforeAll(async () => {
    for (const fill of [1, 2]) identities.push(await identityFromSeed(new Uint8Array(32).fill(fill)))
  })

  it('is opened by the identity that it is for, in the place that it is for, and by nobody else', () => {
    const to = (identities[0] as Identity).peerId
    const wrapped = boxOf(1).wrap(to, key, 'here') as string
    expect(wrapped).toMatch(/^[A-Za-z0-9_-]{107}$/)
    expect(hex(boxOf(0).unwrap(wrapped, 'here'))).toBe(hex(key))
    expect(boxOf(0).unwrap(wrapped, 'there')).toBeUndefined()
    expect(boxOf(1).unwrap(wrapped, 'here')).toBeUndefined() // nor by who has wrapped it
    expect(boxOf(1).wrap(to, key, 'here')).not.toBe(wrapped)
  })

  it('does not open where one bit of it is another', () => {
    const bytes = Buffer.from(boxOf(1).wrap((identities[0] as Identity).peerId, key, 'here') as string, 'base64url')
    fc.assert(
      fc.property(fc.nat({ max: bytes.length * 8 - 1 }), bit => {
        const changed = Buffer.from(bytes)
        changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
        // The topmost bit of a point is not looked at (RFC 7748, section 5), but it is authenticated.
        expect(boxOf(0).unwrap(changed.toString('base64url'), 'here')).toBeUndefined()
      }),
      { numRuns: 60 }
    )
    for (const text of ['', 'A', bytes.subarray(1).toString('base64url'), 'A'.repeat(107)]) {
      expect(boxOf(0).unwrap(text, 'here')).toBeUndefined()
    }
  })

  it('is none where the id is no Ed25519 key, or a weak one', () => {
    expect(boxOf(0).wrap('oak', key, 'here')).toBeUndefined()
    expect(boxOf(0).wrap('QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N', key, 'here')).toBeUndefined()
  })

  it('that is sealed under another key opens with that key in that place only', () => {
    const sealed = sealUnder(SECRET, 'here', key)
    expect(hex(openUnder(SECRET, 'here', sealed))).toBe(hex(key))
    expect(openUnder(SECRET, 'there', sealed)).toBeUndefined()
    expect(openUnder(key, 'here', sealed)).toBeUndefined()
    expect(openUnder(SECRET, 'here', sealed.slice(4))).toBeUndefined()
  })
})

const host = (name: string) =>
  ({
    id: name,
    name,
    address: `/ip4/10.0.0.1/tcp/${1_000 + name.charCodeAt(0)}`,
    role: name < 'x' ? 'storage' : 'witness'
  }) as const
const clusterOf = (...names: string[]): ClusterRecord => foundersRecord('c', names.map(host))

let drawn = 0
/** Draws the same numbers in each run. */
const random = (): number => (drawn = (drawn * 16_807 + 11) % 2_147_483_647) / 2_147_483_647
const making = (self: string, needed?: number[]): KeyMaking => ({
  self,
  box: plainBox(self, random),
  secret: SECRET,
  wallMs: 5,
  needed: needed && new Set(needed)
})
const opened = (record: ClusterRecord, self: string): string[] | undefined =>
  openKeys(record, making(self))?.map(({ id, key }) => `${id} ${hex(key).slice(0, 8)}`)
const idsOf = (record: ClusterRecord, self: string): number[] | undefined =>
  openKeys(record, making(self))?.map(({ id }) => id)

function leaving(record: ClusterRecord, id: string): ClusterRecord {
  const members = record.members.map(member => (member.id === id ? { ...member, leaving: true } : member))
  const ids = record.voters.ids.filter(each => each !== id)
  const since = Object.fromEntries(ids.map(each => [each, 1]))
  return { ...record, members, voters: { ...record.voters, ids, since } }
}
const join = (record: ClusterRecord, name: string): ClusterRecord => ({
  ...record,
  version: record.version + 1,
  members: [...record.members, { ...host(name), votes: false, leaving: false, forced: false }]
})

function must(record: ClusterRecord | undefined): ClusterRecord {
  if (record === undefined) throw new Error('a change changed nothing')
  return parseClusterRecord(record) as ClusterRecord
}

describe('the data keys of a cluster', () => {
  const three = clusterOf('a', 'b', 'x')

  it('are its secret until the first is made, and a record without keys is read as before', () => {
    expect(idsOf(three, 'a')).toEqual([0])
    expect(placeable(three)).toEqual(['a', 'b'])
    expect(parseClusterRecord(JSON.parse(JSON.stringify(three)))).toEqual(three)
    expect(keysForAll(three, making('a'))).toBeUndefined()
  })

  it('are for storage members; the newest opens the ones before it, the secret among them', () => {
    const rotated = must(rotateKeys(0, making('a'))(three))
    expect(keyHolders(rotated)).toEqual(['a', 'b'])
    expect(idsOf(rotated, 'b')).toEqual([1, 0])
    expect(openKeys(rotated, making('b'))?.[1]?.key).toEqual(SECRET)
    expect(openKeys(rotated, { ...making('b'), secret: undefined })).toEqual(openKeys(rotated, making('b')))
    expect(openKeys(rotated, making('x'))).toBeUndefined()
    expect(rotated.keys?.newest).toEqual({ id: 1, madeMs: 5, by: 'a' })
    expect(parseClusterRecord(JSON.parse(JSON.stringify(rotated)))).toEqual(rotated)
  })

  it('are changed once by one command, however often that is tried', () => {
    const rotated = must(rotateKeys(0, making('a'))(three))
    expect(rotateKeys(0, making('a'))(rotated)).toBeUndefined()
    expect(must(rotateKeys(1, making('b'))(rotated)).keys?.newest.id).toBe(2)
  })

  it('are made by who opens the present ones, and no newcomer, witness or leaver makes them', () => {
    const joined = join(must(rotateKeys(0, making('a'))(three)), 'c')
    for (const self of ['c', 'x']) expect(rotateKeys(1, making(self))(joined)).toBeUndefined()
    const gone = leaving(joined, 'b')
    for (const self of ['b', 'c', 'x']) expect(removeMember('b', making(self))(gone)).toBeUndefined()
    expect(['a', 'b', 'c', 'x'].map(self => mayMakeKey(gone, self, true, 'b'))).toEqual([true, false, false, false])
    expect(must(removeMember('b', making('a'))(gone)).keys?.newest.id).toBe(2)
  })

  it('are not opened by a member that was removed, with all that it has and the record itself', () => {
    const before = must(rotateKeys(0, making('a'))(three))
    const after = must(removeMember('b', making('a'))(leaving(before, 'b')))
    const had = openKeys(before, making('b'))
    expect(had?.map(({ id }) => id)).toEqual([1, 0])
    expect(openKeys(after, making('b'))).toBeUndefined()
    const { newest, older } = after.keys as DataKeys
    for (const { key } of had ?? []) {
      for (const { id, sealed } of older) {
        const context = ['diapause data key', 1, after.id, newest.id, id].join('\n')
        expect(openUnder(key, context, sealed)).toBeUndefined()
      }
    }
  })

  it('change with the first witness that goes, who knew the secret, and with no later one', () => {
    const without = must(removeMember('x', making('a'))(leaving(clusterOf('a', 'b', 'x', 'y'), 'x')))
    expect(without.keys?.newest.id).toBe(1)
    expect(needsNewKey(without, 'y')).toBe(false)
    const gone = must(removeMember('y', making('x'))(leaving(without, 'y'))) // whoever does it
    expect(gone.keys).toEqual(without.keys)
  })

  it('are given to a newcomer by who has them, and nothing is placed there before', () => {
    const joined = join(must(rotateKeys(0, making('a'))(three)), 'c')
    expect(lackingKeys(joined)).toEqual(['c'])
    expect(placeable(joined)).toEqual(['a', 'b'])
    for (const self of ['c', 'x']) expect(giveKeys(making(self))(joined)).toBeUndefined()
    const given = must(giveKeys(making('b'))(joined))
    expect(opened(given, 'c')).toEqual(opened(joined, 'a'))
    expect(placeable(given)).toEqual(['a', 'b', 'c'])
    expect(giveKeys(making('b'))(given)).toBeUndefined()
  })

  it('begin anew where all who had them are gone', () => {
    const none = must(removeMember('a', making('x'))(leaving(clusterOf('a', 'x'), 'a')))
    expect(none.keys).toMatchObject({ newest: { id: 1 }, older: [] })
    const joined = join(none, 'b')
    expect(giveKeys(making('x'))(joined)).toBeUndefined()
    const given = must(giveKeys(making('b'))(joined))
    expect(idsOf(given, 'b')).toEqual([2]) // not the secret, which the one that was removed has
    const lone = leaving(join(given, 'c'), 'b')
    expect(idsOf(must(removeMember('b', making('c'))(lone)), 'c')).toEqual([3])
  })

  it('leave out whom nothing can be wrapped for, and ask no second time', () => {
    const picky: KeyMaking = { ...making('a'), box: { ...plainBox('a', random), wrap: () => undefined } }
    const rotated = must(rotateKeys(0, picky)(three))
    expect(keyHolders(rotated)).toEqual([])
    expect(lackingKeys(rotated)).toEqual([])
  })

  it('that no image needs are dropped when they are old, and no others', () => {
    const many = (needed: number[] | undefined, count: number): ClusterRecord => {
      let record = three
      for (let i = 0; i < count; i++) record = must(rotateKeys(i, making('a', needed))(record))
      return record
    }
    expect(idsOf(many([3], 30), 'b')).toEqual([30, ...Array.from({ length: KEPT_KEYS }, (_, i) => 29 - i), 3])
    const full = many(undefined, MAX_OLDER_KEYS)
    expect(idsOf(full, 'b')).toHaveLength(MAX_OLDER_KEYS + 1)
    expect([keysAreFull(full, undefined), keysAreFull(full, new Set([1]))]).toEqual([true, false])
    expect(rotateKeys(MAX_OLDER_KEYS, making('a'))(full)).toBeUndefined()
    expect(rotateKeys(MAX_OLDER_KEYS, making('a', [1]))(full)).toBeDefined()
  })

  it('of another shape are refused', () => {
    const rotated = must(rotateKeys(0, making('a'))(three))
    const keys = rotated.keys as DataKeys
    const wrong = [
      undefined, // and yet wrapped
      { ...keys, suite: 2 },
      { ...keys, older: [...keys.older, ...keys.older] },
      { ...keys, older: [{ id: 1, madeMs: 0, sealed: 'AAAA' }] },
      { ...keys, newest: { id: 0, madeMs: 0 } },
      { ...keys, more: 1 }
    ]
    for (const other of wrong) expect(() => parseClusterRecord({ ...rotated, keys: other })).toThrow()
    for (const key of ['A'.repeat(161), '%', 7]) {
      const members = rotated.members.map(member => ({ ...member, key }))
      expect(() => parseClusterRecord({ ...rotated, members })).toThrow()
    }
    const witnesses = rotated.members.map(member => ({ ...member, key: 'AAAA' }))
    expect(() => parseClusterRecord({ ...rotated, members: witnesses })).toThrow(/storage members/)
  })
})

describe('the keys that a peer holds', () => {
  it('are those of the newest record, the newest last; where it has none it says what it waits for', () => {
    let record = clusterOf('a', 'b')
    const ring = (self: string) =>
      new DataKeyRing({ ...making(self), membership: { record: () => record }, wallMs: () => 5.5 })
    const [a, c] = [ring('a'), ring('c')]
    expect(a.all()).toEqual([{ id: 0, key: SECRET }])
    record = join(must(rotateKeys(0, a.making(undefined))(record)), 'c')
    expect(a.all().map(({ id }) => id)).toEqual([0, 1])
    expect(c.opens()).toBe(false)
    expect(() => c.all()).toThrow(
      expect.objectContaining({ code: 'IMAGE_KEY', message: expect.stringMatching(/given/) })
    )
    record = must(giveKeys(a.making(undefined))(record))
    expect(c.all()).toEqual(a.all())
    expect(record.keys?.newest.madeMs).toBe(6)
  })
})

// ---------------------------------------------------------------------------------------------- stories

/** Who was told each key, by the plain rule: whoever is a storage member when it is made, or comes while it is kept. */
class Story {
  record = clusterOf('a', 'b', 'c', 'x')
  readonly records: ClusterRecord[] = [this.record]
  readonly faults: string[] = []
  readonly everyone = new Set(['a', 'b', 'c', 'x'])
  /** Key → its bytes, and who may ever open it. */
  readonly keys = new Map<number, { readonly key: string; readonly may: Set<string> }>([
    [0, { key: hex(SECRET), may: this.everyone }]
  ])

  take(changed: ClusterRecord | undefined): void {
    if (changed === undefined) return
    this.record = must(changed)
    this.records.push(this.record)
    const storage = this.record.members.filter(({ role }) => role === 'storage').map(({ id }) => id)
    const maker = keyHolders(this.record)[0]
    for (const { id, key } of (maker && openKeys(this.record, making(maker))) || []) {
      const known = this.keys.get(id) ?? { key: hex(key), may: new Set<string>() }
      if (hex(key) !== known.key) this.faults.push(`two keys ${id}`)
      this.keys.set(id, known)
      for (const member of storage) known.may.add(member)
    }
  }

  /** What is wrong, if something is. */
  check(): readonly string[] {
    const holders = keyHolders(this.record)
    const all = holders[0] === undefined ? undefined : opened(this.record, holders[0])
    for (const holder of holders) {
      if (!isDeepStrictEqual(opened(this.record, holder), all)) this.faults.push(`${holder} opens other keys`)
    }
    // From its removal on, whoever was there: it has the newest no more.
    const gone = [...this.everyone].filter(peer => this.record.members.every(({ id }) => id !== peer))
    const newest = this.keys.get(this.record.keys?.newest.id ?? 0)
    for (const peer of gone) if (newest?.may.has(peer) === true) this.faults.push(`${peer} went with the newest key`)
    // Whoever was ever there, and has seen every record that there ever was.
    for (const peer of this.everyone) {
      for (const record of this.records) {
        for (const { id } of (record.keys && openKeys(record, making(peer))) ?? []) {
          if (this.keys.get(id)?.may.has(peer) !== true) this.faults.push(`${peer} opens key ${id}`)
        }
      }
    }
    return this.faults
  }
}

type Act = (story: Story) => void
const pick = (story: Story, n: number): string => story.record.members[n % story.record.members.length]?.id ?? ''
const act: fc.Arbitrary<Act> = fc.oneof(
  fc.constantFrom('d', 'e', 'f', 'g', 'h', 'y', 'z').map(
    (name): Act =>
      story => {
        if (story.everyone.has(name)) return
        story.everyone.add(name)
        story.take(join(story.record, name))
      }
  ),
  fc.nat(9).map(
    (n): Act =>
      story =>
        story.take(giveKeys(making(pick(story, n)))(story.record))
  ),
  fc.nat(9).map(
    (n): Act =>
      story => {
        story.take(rotateKeys(story.record.keys?.newest.id ?? 0, making(pick(story, n)))(story.record))
      }
  ),
  fc.tuple(fc.nat(9), fc.nat(9)).map(
    ([n, m]): Act =>
      story => {
        const [id, by] = [pick(story, n), pick(story, m)]
        if (id === by || story.record.members.length < 3) return
        const { ids } = leaving(story.record, id).voters
        if (ids.length > 0) story.take(removeMember(id, making(by))(leaving(story.record, id)))
      }
  )
)

it('whoever comes and goes: those who hold the newest open the same keys, and nobody opens one made without him', () => {
  let rotations = 0
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), acts => {
      const story = new Story()
      for (const each of acts) each(story)
      expect(story.check()).toEqual([])
      rotations += story.record.keys?.newest.id ?? 0
    }),
    { numRuns: 200 }
  )
  expect(rotations).toBeGreaterThan(100)
})
