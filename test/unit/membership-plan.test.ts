/**
 * The planner of membership against a model of a cluster: operators wish, hosts come and go, epochs pass, and any peer carries
 * out the next step that the planner gives it. Whatever happens, every state on the way keeps the rules, and when it is
 * quiet and all hosts are up the cluster becomes what was wished.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { rotateKeys, wishLeave, wishVotes } from '../../protocols/membership/changes.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type ClusterRecord, MAX_VOTERS, wantedVoters } from '../../protocols/membership/record.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import { membershipWaits, neededStores, planMembershipStep } from '../../node/planning/membership.ts'
import type { ImageManifest } from '../../node/ports.ts'
import { facts, host, makingOf, Model } from './membership-model.ts'

function keepsRules(before: ClusterRecord, after: ClusterRecord): void {
  expect(after.version).toBe(before.version + 1)
  expect(wantedVoters(after).length).toBeGreaterThan(0)
  const [was, is] = [before.voters, after.voters]
  if (is.version === was.version) return expect(is.ids).toEqual(was.ids)
  // Never two unsettled changes, each by one peer, and nobody's vote goes who was not to lose it.
  expect(was.settled).toBe(true)
  expect(is).toMatchObject({ version: was.version + 1, settled: false })
  const lost = was.ids.filter(id => !is.ids.includes(id))
  const won = is.ids.filter(id => !was.ids.includes(id))
  expect(lost.length + won.length).toBe(1)
  for (const id of lost) expect(wantedVoters(before).some(member => member.id === id)).toBe(false)
  for (const id of won) expect(wantedVoters(before).some(member => member.id === id)).toBe(true)
}

class Watched extends Model {
  override onChange = keepsRules
}

type Action = (model: Model) => void

const nth = (model: Model, at: number) => (model.record.members[at % model.record.members.length] as { id: string }).id
const at = fc.nat({ max: 12 })
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Action>(model => void model.step()) },
  {
    weight: 2,
    arbitrary: fc.boolean().map(
      (votes): Action =>
        model =>
          model.invite(votes, undefined)
    )
  },
  {
    weight: 1,
    arbitrary: at.map(
      (n): Action =>
        model =>
          model.invite(true, nth(model, n))
    )
  },
  {
    weight: 2,
    arbitrary: at.map(
      (n): Action =>
        model =>
          void model.down.add(nth(model, n))
    )
  },
  {
    weight: 2,
    arbitrary: at.map(
      (n): Action =>
        model =>
          void model.down.delete(nth(model, n))
    )
  },
  {
    weight: 2,
    arbitrary: fc.tuple(at, fc.boolean()).map(
      ([n, votes]): Action =>
        model =>
          model.change(wishVotes(nth(model, n), votes))
    )
  },
  {
    weight: 1,
    arbitrary: fc.tuple(at, fc.boolean()).map(
      ([n, forced]): Action =>
        model =>
          model.change(wishLeave(nth(model, n), forced))
    )
  },
  {
    weight: 1,
    arbitrary: at.map(
      (n): Action =>
        model =>
          void model.owners.add(nth(model, n))
    )
  },
  {
    weight: 1,
    arbitrary: at.map(
      (n): Action =>
        model =>
          void model.needed.add(nth(model, n))
    )
  },
  { weight: 1, arbitrary: fc.constant<Action>(model => void (model.wallMs += 600)) }
)

describe('the planner of membership', () => {
  it('keeps every rule on the way and ends in what was wished, whatever happened before', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), actions => {
        const model = new Watched()
        for (const act of actions) act(model)
        model.down.clear()
        model.owners.clear()
        model.needed.clear()
        model.wallMs += 1_000
        // Two steps for each voter that comes or goes, one for each member that leaves, one for the invitations, one for keys.
        const bound = 2 * model.record.members.length * 2 + model.record.members.length + 4
        let steps = 0
        while (model.step() !== undefined) expect(++steps).toBeLessThanOrEqual(bound)
        const { record } = model
        expect(record.voters.settled).toBe(true)
        expect([...record.voters.ids].sort()).toEqual(
          wantedVoters(record)
            .map(member => member.id)
            .sort()
        )
        expect(record.members.filter(member => member.leaving)).toEqual([])
        expect(record.invites).toEqual([])
        expect(membershipWaits(record, model.facts())).toEqual([])
      }),
      { numRuns: 500 }
    )
  })

  it('never makes a set of which no majority can be reached', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), actions => {
        const model = new Watched()
        for (const act of actions) {
          const { version } = model.record.voters
          act(model)
          const { voters } = model.record
          if (voters.version === version) continue
          const up = voters.ids.filter(id => !model.down.has(id)).length
          expect(up).toBeGreaterThanOrEqual(majorityOf(voters.ids.length))
        }
      }),
      { numRuns: 300 }
    )
  })

  it('exchanges all voters one by one, without a set that is larger than a record may hold', () => {
    const model = new Watched()
    model.record = foundersRecord(
      'c',
      Array.from({ length: 14 }, (_, i) => ({ ...host(i), id: `p${String.fromCharCode(97 + i)}` }))
    )
    const [old, young] = [model.record.members.slice(0, 7), model.record.members.slice(7)]
    for (const [i, { id }] of old.entries()) {
      model.change(wishVotes(id, false))
      model.change(wishVotes((young[i] as { id: string }).id, true))
    }
    let largest = 0
    while (model.step() !== undefined) largest = Math.max(largest, model.record.voters.ids.length)
    expect(largest).toBe(MAX_VOTERS + 1)
    expect(model.record.voters.ids).toEqual(young.map(member => member.id))
  })

  /** p0 to p2 vote; p3 is a member that has just joined in p0's stead. */
  function replacing(): Model {
    const model = new Watched()
    model.invite(true, undefined)
    model.invite(true, undefined)
    while (model.step() !== undefined);
    expect(model.record.voters.ids).toEqual(['p0', 'p1', 'p2'])
    model.invite(true, 'p0')
    return model
  }

  it('lets a living member keep its vote until the one that replaces it has one', () => {
    const model = replacing()
    model.down.add('p3')
    expect(model.step()).toBeUndefined()
    expect(membershipWaits(model.record, model.facts())).toEqual([
      { peer: 'p3', why: expect.stringContaining('when it runs') },
      { peer: 'p0', why: expect.stringContaining('p3, which replaces it, must get its vote first') }
    ])
    model.down.delete('p3')
    const kinds = [model.step(), model.step(), model.step()].map(step => step?.kind)
    expect(kinds).toEqual(['add-voter', 'settle', 'remove-voter'])
  })

  it('takes the vote of a dead member before it gives one to the member that replaces it', () => {
    const model = replacing()
    model.down.add('p0')
    expect(model.step()).toMatchObject({ kind: 'remove-voter', peer: 'p0' })
  })

  it('does not take a vote where the others could not decide without it', () => {
    const model = replacing()
    model.down.add('p1').add('p3')
    model.change(wishLeave('p2', false))
    expect(model.step()).toBeUndefined()
    expect(membershipWaits(model.record, model.facts())).toContainEqual({
      peer: 'p2',
      why: expect.stringContaining('no majority')
    })
  })

  it('removes no member that owns VMs or stores what snapshots need, unless it is forced, or replaced and dead', () => {
    const model = replacing()
    model.owners.add('p0')
    for (let i = 0; i < 6; i++) model.step()
    expect(model.record.voters.ids).toEqual(['p1', 'p2', 'p3'])
    expect(model.step()).toBeUndefined()
    expect(membershipWaits(model.record, model.facts())).toEqual([
      { peer: 'p0', why: expect.stringContaining('owns VMs') }
    ])
    model.owners.clear()
    model.needed.add('p0')
    expect(model.step()).toBeUndefined()
    expect(membershipWaits(model.record, model.facts())[0]?.why).toContain('snapshots need')
    expect(planMembershipStep(model.record, { ...model.facts(), dead: new Set(['p0']) })).toEqual({
      kind: 'remove-member',
      peer: 'p0'
    })
    model.needed.clear()
    const unknowing = { ...model.facts(), groupsKnown: false }
    expect(planMembershipStep(model.record, unknowing)).toBeUndefined()
    expect(membershipWaits(model.record, unknowing)[0]?.why).toContain('not known here yet')
    model.needed.add('p0')
    model.change(wishLeave('p0', true))
    expect(model.step()).toEqual({ kind: 'remove-member', peer: 'p0' })
  })
})

describe('a leaving member that looks dead', () => {
  const leaving = (): Model => {
    const model = new Watched()
    for (let i = 0; i < 3; i++) model.invite(true, undefined)
    while (model.step() !== undefined);
    model.change(wishLeave('p3', false))
    while (model.step()?.kind !== 'settle');
    model.down.add('p3')
    return model
  }

  it('is waited for as a living one, until it has been dead for so long that it is lost', () => {
    const cases = [
      [{ owners: new Set(['p3']) }, 'owns VMs'],
      [{ needed: new Set(['p3']) }, 'snapshots need'],
      [{ groupsKnown: false }, 'not known here yet']
    ] as const
    for (const [seen, why] of cases) {
      const { record } = leaving()
      const present = { ...facts(), reachable: new Set(['p1']), dead: new Set(['p3']), ...seen }
      expect(planMembershipStep(record, present)).toBeUndefined()
      expect(membershipWaits(record, present)).toEqual([{ peer: 'p3', why: expect.stringContaining(why) }])
      const lost = { ...present, lost: new Set(['p3']) }
      expect(planMembershipStep(record, lost)).toEqual({ kind: 'remove-member', peer: 'p3' })
      expect(membershipWaits(record, lost)).toEqual([])
    }
  })

  it('goes at once where nothing needs it', () => {
    expect(leaving().step()).toEqual({ kind: 'remove-member', peer: 'p3' })
  })
})

describe('who changes data keys', () => {
  /** p0 to p3; p3 is removed by p0, then p4 joins. */
  const joined = (): Model => {
    const model = new Watched()
    for (let i = 0; i < 3; i++) model.invite(true, undefined)
    while (model.step() !== undefined);
    model.change(wishLeave('p3', false))
    while (model.step() !== undefined);
    expect(model.record.keys?.newest.id).toBe(1)
    model.invite(false, undefined)
    return model
  }

  it('gives them to a newcomer before all else, if it has them', () => {
    const model = joined()
    const step = { kind: 'give-keys', newest: 1, peers: ['p4'] }
    expect(planMembershipStep(model.record, model.facts('p1'))).toEqual(step)
    expect(planMembershipStep(model.record, model.facts('p4'))).toBeUndefined()
    expect(model.step()).toEqual(step)
    expect(model.step()).toBeUndefined()
  })

  it('removes nobody who alone has them and can still give them to another', () => {
    const model = new Model()
    model.change(rotateKeys(0, makingOf('p0')))
    model.invite(true, undefined)
    model.change(wishLeave('p0', true))
    model.record = { ...model.record, voters: { ...model.record.voters, ids: ['p1'] } }
    expect(planMembershipStep(model.record, model.facts('p1'))).toBeUndefined()
    expect(membershipWaits(model.record, model.facts('p1'))).toContainEqual({
      peer: 'p0',
      why: expect.stringContaining('has yet to give them to p1')
    })
    expect(planMembershipStep(model.record, model.facts('p0'))).toMatchObject({ kind: 'give-keys' })
    model.down.add('p0')
    expect(planMembershipStep(model.record, model.facts('p1'))).toEqual({ kind: 'remove-member', peer: 'p0' })
  })

  it('removes a member if it opens them, and where nobody does who is up, people read whom that waits for', () => {
    const model = joined()
    model.change(wishLeave('p0', true))
    for (const id of ['p0', 'p1', 'p2']) model.down.add(id)
    model.record = { ...model.record, voters: { ...model.record.voters, ids: ['p1', 'p2'] } }
    expect(planMembershipStep(model.record, model.facts('p4'))).toBeUndefined()
    expect(membershipWaits(model.record, model.facts('p4'))).toContainEqual({
      peer: 'p0',
      why: expect.stringContaining('one of p1, p2 must be up')
    })
    model.down.delete('p2')
    const seen = model.facts('p2')
    expect(planMembershipStep({ ...model.record, keys: undefined }, seen)).toEqual({
      kind: 'remove-member',
      peer: 'p0'
    })
    expect(planMembershipStep({ ...model.record, keys: undefined }, { ...seen, opensKeys: false })).toBeUndefined()
  })
})

describe('what a leaving member stores', () => {
  const record = ((): ClusterRecord => {
    const model = new Watched()
    for (let i = 0; i < 3; i++) model.invite(true, undefined)
    model.change(wishLeave('p0', false))
    return model.record
  })()
  const image = (...holders: string[]): ImageManifest =>
    ({ streams: [{ stream: 's', k: 2, m: 1, holders, dataBytes: 1, grids: [] }] }) as unknown as ImageManifest

  it('is needed while an image bears fewer losses without it than a new one would', () => {
    const needed = (images: ImageManifest[] | undefined, lost: string[] = []) => [
      ...neededStores(record, images, new Set(lost))
    ]
    expect(needed([image('p0', 'p1', 'p2')])).toEqual(['p0'])
    expect(needed([image('p1', 'p2', 'p3')])).toEqual([])
    expect(needed([image('p1', 'p2', 'p3'), image('p3', 'p0', 'p1')])).toEqual(['p0'])
    expect(needed([])).toEqual([])
    // With two left a new image bears no loss either: it is enough that this one can be read.
    expect(needed([image('p0', 'p1', 'p2')], ['p3'])).toEqual([])
    expect(needed([image('p0', 'p1', 'p3')], ['p3'])).toEqual(['p0'])
  })

  it('counts as needed where nobody here knows what it stores', () => {
    expect([...neededStores(record, undefined, new Set())]).toEqual(['p0'])
  })
})
