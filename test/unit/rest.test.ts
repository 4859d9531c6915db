/** Groups that rest: the changes of their records, and what a peer does about them. */
import { describe, expect, test } from 'vitest'
import { planText } from '../../node/edge/cli-plan.ts'
import { noticesOfRecord } from '../../node/planning/notices.ts'
import { placeVms } from '../../node/planning/placement.ts'
import { plannedStandbys, standbysAt } from '../../node/planning/standby.ts'
import { EpochCore } from '../../protocols/epoch/core.ts'
import { BEFORE_RESTORE, goBackTo, holdByName } from '../../protocols/epoch/kept.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import {
  abortEpoch,
  commitCameTooLate,
  commitEpoch,
  createGroup,
  displaced,
  fateOf,
  openEpoch,
  removeGroup,
  takeOver
} from '../../protocols/epoch/record.ts'
import { restNow, startGroup } from '../../protocols/epoch/rest.ts'
import type { GroupRecord } from '../../protocols/group.ts'

const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const images = (epoch: number) => ({ a: `${epoch}`.padStart(64, 'a'), b: `${epoch}`.padStart(64, 'b') })
const owners = { a: 'p1', b: 'p2' }
const made = createGroup('g', [vm('a'), vm('b')], owners)(null) as GroupRecord

function opened(record: GroupRecord, rest = false): GroupRecord {
  return openEpoch('p1', 1_000, record.version, rest)(record) as GroupRecord
}
function committed(record: GroupRecord, rest = false): GroupRecord {
  const open = opened(record, rest)
  return commitEpoch(open.generation, open.lastEpoch, images(open.lastEpoch))(open) as GroupRecord
}
const asStored = (record: GroupRecord | undefined): GroupRecord =>
  parseGroupRecord(JSON.parse(JSON.stringify(record))) as GroupRecord

describe('a group that is to rest', () => {
  test('rests with the commit of the epoch that was opened for it, in a generation of its own, where it was', () => {
    const before = committed(made)
    const rests = asStored(committed(before, true))
    expect(rests).toMatchObject({ resting: true, open: null, owners, generation: before.generation + 1 })
    expect(rests.committed).toMatchObject({ epoch: 2, generation: before.generation, previousEpoch: 1 })
    expect(displaced(before, rests)).toEqual([])
  })

  test('goes on where that epoch is aborted, or somebody takes the group over meanwhile', () => {
    const open = opened(committed(made), true)
    expect(asStored(open).open).toMatchObject({ rest: true })
    for (const next of [abortEpoch(1, 2)(open), takeOver(1, { a: 'p2', b: 'p2' })(open)]) {
      expect(next).not.toHaveProperty('resting')
      expect(next?.open).toBeNull()
    }
  })

  test('whose epoch another peer has committed first is not news that came too late', () => {
    const rests = committed(made, true)
    expect(commitCameTooLate(rests, 1, 1)).toBe(false)
    expect(commitCameTooLate(rests, 1, 2)).toBe(true)
    expect(commitCameTooLate(takeOver(1, owners)(made) as GroupRecord, 1, 1)).toBe(true)
  })

  test('now rests at its committed epoch, and an epoch that is open is void', () => {
    const open = opened(committed(made))
    const rests = asStored(restNow(1)(open))
    expect(rests).toMatchObject({ resting: true, open: null, generation: 2, lastEpoch: 2, committed: { epoch: 1 } })
    expect(fateOf(rests, 2)).toBe('void')
    expect(restNow(2)(open)).toBeUndefined()
    expect(restNow(2)(rests)).toBeUndefined()
    expect(restNow(1)(made)).toBeUndefined() // its VMs would boot anew
  })
})

describe('a group that rests', () => {
  const held = holdByName(1, 'x')(committed(made)) as GroupRecord
  const rests = committed(held, true)

  test('takes no epoch, is not taken over, and does not go back by itself', () => {
    expect(openEpoch('p1', 1, rests.version)(rests)).toBeUndefined()
    expect(takeOver(rests.generation, owners)(rests)).toBeUndefined()
    expect(goBackTo(rests.generation, 2)(rests)).toBeUndefined()
  })

  test('starts from its committed epoch at the owners that are given, and rests no more', () => {
    const next = asStored(startGroup(rests.generation, 2, { a: 'p3', b: 'p2' })(rests))
    expect(next).toMatchObject({ owners: { a: 'p3', b: 'p2' }, generation: 3, committed: { epoch: 2 } })
    expect(next).not.toHaveProperty('resting')
    expect(displaced(rests, next)).toEqual(['p1'])
    expect(startGroup(3, 2, owners)(next)).toBeUndefined()
    expect(startGroup(rests.generation - 1, 2, owners)(rests)).toBeUndefined()
  })

  test('starts from an epoch that is kept, and then the committed one is held', () => {
    const next = startGroup(rests.generation, 1, owners)(rests)
    expect(next).toMatchObject({ committed: { epoch: 1 }, generation: 3 })
    expect(next?.holds).toContainEqual({ epoch: 2, name: BEFORE_RESTORE })
    expect(startGroup(rests.generation, 7, owners)(rests)).toBeUndefined()
  })

  test('can be removed, and made again awake', () => {
    const gone = removeGroup(rests) as GroupRecord
    expect(gone).not.toHaveProperty('resting')
    expect(createGroup('g', [vm('a')], { a: 'p1' })(gone)).not.toHaveProperty('resting')
  })

  test('asks for no memory, and for no standby copies', () => {
    const asks = { ...rests, vms: rests.vms.map(each => ({ ...each, standby: 1 })) }
    const facts = { hosts: ['p1', 'p2', 'p3'], groups: [] }
    expect(plannedStandbys({ ...asks, resting: undefined }, facts)).not.toEqual({})
    expect(plannedStandbys(asks, facts)).toEqual({})
    expect(standbysAt('p1', asks, facts)).toEqual([])
    const known = [{ peer: 'p1', vmMemoryMiB: 100 }]
    const place = (group: GroupRecord) => placeVms([vm('c')], {}, { hosts: ['p1'], groups: [group], known })
    expect(place(rests).owners).toEqual({ c: 'p1' })
    expect(place(held).owners).toEqual({})
  })
})

describe('people', () => {
  const facts = { atMs: 0, nameOf: (peer: string) => peer, isLost: () => false }
  const kinds = (before: GroupRecord, after: GroupRecord | undefined): string[] =>
    noticesOfRecord(before, after as GroupRecord, facts).flatMap(({ notice }) =>
      notice.state === 'once' ? notice.kind : []
    )

  test('are told of a group that goes back, and not of one that they let rest and start', () => {
    const before = committed(made)
    const rests = restNow(1)(before) as GroupRecord
    expect(kinds(before, rests)).toEqual([])
    expect(kinds(rests, startGroup(2, 1, owners)(rests))).toEqual([])
    expect(kinds(before, goBackTo(1, 1)(before))).toEqual(['rollback'])
  })

  test('read in a plan that no loss means anything to it', () => {
    const plan = { group: 'g', epoch: 2, resting: true, losses: [] } as const
    expect(planText([plan])).toBe('group g rests at epoch 2: the death of a host means nothing to it')
  })
})

describe('a peer whose group comes to rest', () => {
  test('is told that the epoch is committed, and cuts nothing after that', () => {
    const core = new EpochCore({ self: 'p1', members: () => ['p1', 'p2'] })
    core.step({ kind: 'record', record: made }, 0)
    core.step({ kind: 'vm-ready', vm: 'a', colour: 0 }, 0)
    const open = opened(made, true)
    const first = core.step({ kind: 'record', record: open }, 1)
    expect(first.map(({ kind }) => kind)).toContain('prepare')
    const rests = commitEpoch(1, 1, images(1))(open) as GroupRecord
    expect(core.step({ kind: 'record', record: rests }, 2)).toMatchObject([{ kind: 'committed', epoch: 1 }])
    expect(core.step({ kind: 'marker', vm: 'a', epoch: 2 }, 3)).toEqual([])
    expect(core.step({ kind: 'timer' }, 9_000)).toEqual([])
  })
})
