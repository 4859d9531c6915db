import { describe, expect, it } from 'vitest'
import { Objectives } from '../../node/agents/objectives.ts'
import type { SeenEpoch } from '../../protocols/epoch/history.ts'
import type { GroupRecord, VmObjective } from '../../protocols/group.ts'
import type { Obstacle } from '../../protocols/overview/outlook.ts'
import { aGroup, aVm } from './group-records.ts'
import { JumpingClock } from './jumping-clock.ts'
import { memoryLog } from './store-support.ts'

const record = (over: Partial<GroupRecord>, objective?: VmObjective): GroupRecord =>
  aGroup({
    id: 'bank',
    vms: ['a', 'b'].map(id => aVm(id, { objective })),
    owners: { a: 'me', b: 'other' },
    ...over
  })

function world(parts = { detectMs: 400, decideMs: 500, runsMs: 1_100 }) {
  const clock = new JumpingClock()
  const state = {
    records: [] as GroupRecord[],
    seen: [] as SeenEpoch[],
    asked: 0,
    read: 0,
    obstacle: undefined as Obstacle | undefined
  }
  const told: { kind: string; vm?: unknown; objective?: unknown }[] = []
  const objectives = new Objectives({
    self: 'me',
    directory: { all: () => state.records },
    history: { of: () => state.seen },
    clock,
    wallMs: () => 995_000 + clock.now(), // 1,000,000 at first
    log: memoryLog(),
    report: (kind, fields) => told.push({ kind, ...fields }),
    measured: async () => {
      state.asked++
      return { a: parts }
    },
    bySettings: { detectMs: 600, decideMs: 400 },
    imagesOf: async () => {
      state.read++
      return [IMAGE]
    },
    obstacle: (_, images) => (images.includes(IMAGE) ? state.obstacle : undefined)
  })
  const pass = (ms: number) => clock.until(clock.nowMs + ms)
  return { state, told, objectives, pass }
}

const IMAGE = { vm: 'a', streams: [] }

const committed = (wallMs: number) => ({ epoch: 1, generation: 1, previousEpoch: 0, images: {}, wallMs })

describe('objectives', () => {
  it('say of the VMs that run here what a death of this host would mean', async () => {
    const { state, objectives, pass } = world()
    state.records = [record({ committed: committed(999_000) })]
    objectives.start()
    await pass(4_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { backMs: 2_000, lossMs: 5_000, missed: [] } })
    expect(Object.keys(objectives.outlooksOf('bank'))).toEqual(['a'])
    expect(state.asked).toBe(1)
    objectives.stop()
  })

  it('raise an alarm when one is missed for two looks, once, and take it back', async () => {
    const { state, told, objectives, pass } = world()
    state.records = [record({ committed: committed(1_000_000) }, { lossMs: 3_000 })]
    objectives.start()
    await pass(4_000)
    expect(told).toEqual([])
    await pass(8_000)
    expect(told).toMatchObject([{ kind: 'objective.missed', vm: 'a', objective: 'lossMs', atMostMs: 3_000 }])
    state.records = [record({ committed: committed(1_012_000), version: 2 }, { lossMs: 30_000 })]
    await pass(6_000)
    expect(told.map(({ kind }) => kind)).toEqual(['objective.missed', 'objective.kept'])
    objectives.stop()
  })

  it('miss how soon a VM is to be back as soon as it would not come back, and for as long', async () => {
    const { state, told, objectives, pass } = world()
    state.records = [record({ committed: committed(1_000_000) }, { backMs: 3_000 })]
    objectives.start()
    await pass(4_000)
    state.obstacle = { kind: 'no-majority', live: 1, voters: 3 }
    await pass(6_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { backMs: null, never: true, why: state.obstacle } })
    expect(told).toMatchObject([{ kind: 'objective.missed', vm: 'a', objective: 'backMs', wouldBeMs: null }])
    state.obstacle = undefined
    await pass(6_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { backMs: 2_000 } })
    expect(told.map(({ kind }) => kind)).toEqual(['objective.missed', 'objective.kept'])
    expect([state.asked, state.read]).toEqual([2, 2])
    objectives.stop()
  })

  it('count what is lost from the first look on where nothing is committed', async () => {
    const { state, told, objectives, pass } = world()
    state.records = [record({}, { lossMs: 5_000, backMs: 2_100 })]
    objectives.start()
    await pass(4_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { lossMs: 4_000 } })
    await pass(6_000)
    expect(told).toMatchObject([{ kind: 'objective.missed', objective: 'lossMs' }])
    objectives.stop()
  })

  it('count from each epoch that is committed, also where its record does not say when', async () => {
    const { state, told, objectives, pass } = world()
    const undated = (epoch: number) =>
      record({ committed: { epoch, generation: 1, previousEpoch: epoch - 1, images: {} } }, { lossMs: 12_000 })
    state.records = [undated(1)]
    objectives.start()
    await pass(10_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { lossMs: 10_000 } })
    state.records = [undated(2)]
    await pass(10_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { lossMs: 8_000 } }) // it was seen at a look
    const openedAtMs = 1_019_000
    state.seen = [{ group: 'bank', generation: 1, epoch: 3, outcome: 'committed', openedAtMs, tookMs: 500, vms: {} }]
    state.records = [undated(3)]
    await pass(4_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { lossMs: 4_500 } })
    expect(told).toEqual([])
    objectives.stop()
  })

  it('count from when the VMs went on, of a group that was started again after a long rest', async () => {
    const { state, told, objectives, pass } = world()
    state.records = [record({ generation: 3, committed: committed(400_000) }, { lossMs: 12_000 })]
    objectives.start()
    await pass(8_000)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { lossMs: 8_000 } })
    expect(told).toEqual([])
    objectives.stop()
  })

  it('forget a group that is removed or goes elsewhere', async () => {
    const { state, told, objectives, pass } = world()
    state.records = [record({}, { lossMs: 1 })]
    objectives.start()
    await pass(6_000)
    state.records = [record({ generation: 2, owners: { a: 'other', b: 'other' } }, { lossMs: 1 })]
    await pass(2_000)
    expect(objectives.outlooksOf('bank')).toEqual({})
    state.records = [record({ generation: 3 }, { lossMs: 1 })]
    await pass(6_000)
    expect(told.map(({ kind }) => kind)).toEqual(['objective.missed', 'objective.missed'])
    objectives.stop()
  })

  it('ask how long restores take at once after the start, and in another generation when its VMs should run', async () => {
    const { state, objectives, pass } = world()
    state.records = [record({})]
    objectives.start()
    await pass(6_000)
    expect(state.asked).toBe(1)
    state.records = [record({ generation: 2 }), record({ id: 'shop' })]
    await pass(6_000)
    expect(state.asked).toBe(1)
    expect(objectives.outlooksOf('bank')).toMatchObject({ a: { backMs: 2_000 } })
    await pass(4_000)
    expect(state.asked).toBe(3)
    objectives.stop()
  })
})
