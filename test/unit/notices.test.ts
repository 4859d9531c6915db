import { describe, expect, it } from 'vitest'
import { NoticeWatch, type Exposed } from '../../node/agents/notice-watch.ts'
import { noticeOfReport, noticesOfRecord } from '../../node/planning/notices.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { NoticeInput } from '../../protocols/notifications/core.ts'
import { aGroup, aVm } from './group-records.ts'
import { JumpingClock } from './jumping-clock.ts'

const record = (over: Partial<GroupRecord> = {}): GroupRecord =>
  aGroup({
    id: 'shop',
    generation: 3,
    vms: [aVm('web'), aVm('db')],
    owners: { web: 'A', db: 'B' },
    lastEpoch: 8,
    committed: { epoch: 7, generation: 3, previousEpoch: 6, images: {} },
    ...over
  })

const facts = {
  atMs: 5,
  nameOf: (peer: string) => `host-${peer.toLowerCase()}`,
  isLost: (peer: string) => peer === 'A'
}
const saved = { atMs: 5, self: 'host-b', savedEpochOf: (): number | undefined => 7 }
const told = (before: GroupRecord, after: GroupRecord) =>
  noticesOfRecord(before, after, facts).map(({ notice }) => notice)

describe('what people are told of', () => {
  it('is a failover where a VM left a host that died, and a rollback where none did', () => {
    const [failover] = told(record(), record({ generation: 4, owners: { web: 'C', db: 'B' } }))
    expect(failover).toMatchObject({ key: 'failover/shop/4', kind: 'failover', state: 'once', group: 'shop' })
    expect(failover?.text).toBe(
      'Failover of group shop: host-a died; web to host-c; all its VMs go on from snapshot 7.'
    )
    const [rollback] = told(record(), record({ generation: 4 }))
    expect(rollback).toMatchObject({ key: 'rollback/shop/4', kind: 'rollback' })
  })

  it('is a drill that failed, once, and not one that passed', () => {
    const last = { epoch: 7, by: 'B', atMs: 99, tookMs: 5, failed: 'db did not answer.' }
    const after = record({ drills: { last } })
    expect(told(record(), after)[0]).toMatchObject({ key: 'drill-failed/shop/99', state: 'once' })
    expect(told(after, after)).toEqual([])
    const { failed: _, ...passed } = last
    expect(told(record(), record({ drills: { last: passed } }))).toEqual([])
  })

  it('ends all that lasted when the group is removed', () => {
    const states = told(record(), record({ removed: true })).map(({ kind, state }) => `${kind} ${state}`)
    expect(states).toEqual(['no-host ended', 'epoch-failed ended', 'low-redundancy ended', 'home-failed ended'])
  })

  it('ends what a rest ends, and says that it is one', () => {
    const ended = (after: GroupRecord) =>
      told(record(), after).flatMap(({ kind, state, text }) => (state === 'ended' ? [`${kind}: ${text}`] : []))
    const now = ended(record({ generation: 4, resting: true }))
    expect(now).toEqual(expect.arrayContaining(['no-host: Group shop rests.', 'epoch-failed: Group shop rests.']))
    expect(now.filter(text => text.includes('again'))).toEqual([])
    const committed = { epoch: 9, generation: 3, previousEpoch: 7, images: {} }
    const saved = ended(record({ generation: 4, resting: true, committed }))
    expect(saved.filter(text => text.startsWith('epoch-failed'))).toEqual([
      'epoch-failed: Group shop is saved again: snapshot 9.'
    ])
    expect(saved).toContain('no-host: Group shop rests.')
  })

  it('is an epoch that failed, but not for a failover, which is told itself; and ends with the next', () => {
    const aborted = (reason: string, known = saved) =>
      noticeOfReport('epoch.aborted', { group: 'shop', epoch: 8, reason }, known)
    const failed = aborted('its deadline passed')?.notice
    expect(failed).toMatchObject({ key: 'epoch-failed/shop', state: 'begun' })
    expect(failed?.text).toBe('Snapshot 8 of group shop failed: its deadline passed. The last one stays 7.')
    const never = aborted('its deadline passed', { ...saved, savedEpochOf: () => undefined })
    expect(never?.notice.text).toMatch(/It has none to go back to\.$/)
    expect(aborted('the group was taken over')).toBeUndefined()
    const after = record({ committed: { epoch: 9, generation: 3, previousEpoch: 7, images: {} } })
    expect(told(record(), after)[0]).toMatchObject({ key: 'epoch-failed/shop', state: 'ended' })
  })

  it('is what one peer alone sees of objectives, its disk and the second home', () => {
    const seen = (kind: string, fields: object) => noticeOfReport(kind, { group: 'shop', ...fields }, saved)
    const missed = seen('objective.missed', { vm: 'db', objective: 'lossMs', atMostMs: 20_000, wouldBeMs: 25_000 })
    expect(missed).toMatchObject({ alone: true, notice: { key: 'objective-missed/shop/db/lossMs', vm: 'db' } })
    expect(missed?.notice.text).toContain('it would lose 25.0 s, and may take 20.0 s')
    expect(seen('scrub.damaged', { stream: 's' })?.notice).toMatchObject({ key: 'damage/host-b/s', member: 'host-b' })
    expect(seen('home.copied', {})?.notice).toMatchObject({ key: 'home-failed/shop', state: 'ended' })
    expect(seen('vm.started', {})).toBeUndefined()
  })
})

describe('the watch', () => {
  const world = (more: { alive?: string[]; exposed?: Exposed[] } = {}) => {
    const clock = new JumpingClock()
    const state = {
      alive: ['A', 'B', 'C'],
      exposed: [] as Exposed[],
      members: ['A', 'B', 'C'],
      records: [record()],
      ...more
    }
    const told: NoticeInput[] = []
    const watch = new NoticeWatch({
      self: 'A',
      directory: { all: () => state.records, onRecord: () => {} },
      detector: { livenessOf: peer => (state.alive.includes(peer) ? 'alive' : 'dead') },
      keepers: { isOurs: ({ owners }) => owners['web'] === 'A' },
      members: () => state.members,
      voters: () => ['A', 'B', 'C'],
      nameOf: facts.nameOf,
      exposed: () => state.exposed,
      checkEveryMs: 60_000,
      clock,
      wallMs: () => 5,
      tell: input => told.push(input)
    })
    watch.start()
    const begun = () =>
      told.flatMap(input => (input.kind === 'notice' && input.notice.state === 'begun' ? [input.notice.key] : []))
    const ended = () =>
      told.flatMap(input => (input.kind === 'notice' && input.notice.state === 'ended' ? [input.notice.key] : []))
    return { clock, state, told, begun, ended }
  }

  it('tells of a member that stays dead, not of one that is back soon', async () => {
    const { clock, state, begun, ended } = world()
    state.alive = ['A', 'B']
    await clock.until(clock.nowMs + 8_000)
    state.alive = ['A', 'B', 'C']
    await clock.until(clock.nowMs + 4_000)
    expect(begun()).toEqual([])
    state.alive = ['A', 'B']
    await clock.until(clock.nowMs + 14_000)
    expect(begun()).toEqual(['member-dead/C'])
    state.alive = ['A', 'B', 'C']
    await clock.until(clock.nowMs + 4_000)
    expect(ended().at(-1)).toBe('member-dead/C')
  })

  it('ends what it told of a dead member when that one is removed, by the name that it had', async () => {
    const { clock, state, told, begun } = world()
    state.alive = ['A', 'B']
    await clock.until(clock.nowMs + 14_000)
    expect(begun()).toEqual(['member-dead/C'])
    const before = told.length
    state.members = ['A', 'B']
    await clock.until(clock.nowMs + 14_000)
    expect(told.slice(before)).toMatchObject([
      { notice: { key: 'member-dead/C', state: 'ended', text: 'Member host-c was removed.', member: 'host-c' } }
    ])
  })

  it('tells of a cut from the majority, and then not of what it thinks of each other member', async () => {
    const { clock, begun } = world({ alive: ['A'] })
    await clock.until(clock.nowMs + 60_000)
    expect(begun()).toEqual(['no-majority'])
  })

  it('tells of images that bear fewer losses for two looks of the repair, and of what cannot be read at once', async () => {
    const exposed = { group: 'shop', tolerates: 1, missing: 2 }
    const { clock, state, begun } = world({ exposed: [exposed] })
    await clock.until(clock.nowMs + 110_000)
    expect(begun()).toEqual([])
    await clock.until(clock.nowMs + 20_000)
    expect(begun()).toEqual(['low-redundancy/shop'])
    const other = world()
    other.state.exposed = [{ ...exposed, tolerates: -1 }]
    await other.clock.until(other.clock.nowMs + 4_000)
    expect(other.begun()).toEqual(['low-redundancy/shop'])
    state.records = [record({ owners: { web: 'B', db: 'A' } })]
    state.exposed = []
    await clock.until(clock.nowMs + 10_000)
    expect(begun()).toEqual(['low-redundancy/shop'])
  })
})
