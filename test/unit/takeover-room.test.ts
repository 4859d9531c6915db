/** A group that lost its VMs while no survivor has room for them. */
import { expect, test } from 'vitest'
import { TakeoverAgent } from '../../node/agents/takeover.ts'
import type { FailureDetector } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'
import { JumpingClock } from './jumping-clock.ts'
import { memoryLog } from './store-support.ts'

const recordOf = (id: string, owner: string): GroupRecord =>
  aGroup({ id, vms: [aVm('a', { memoryMiB: 256 })], owners: { a: owner } })

/** Host `me`, which gives 300 MiB; p2 is dead. Group g was there, group h is here. */
function world() {
  const clock = new JumpingClock()
  const state = { records: [recordOf('g', 'p2'), recordOf('h', 'me')], gives: 300, waits: 0, changes: 0 }
  const agent = new TakeoverAgent({
    self: 'me',
    hosts: () => ['me', 'p2'],
    leaving: () => [],
    about: peers => peers.map(peer => ({ peer, vmMemoryMiB: state.gives })),
    directory: {
      all: () => state.records,
      get: (id: string) => state.records.find(record => record.id === id),
      onRecord() {},
      async change() {
        state.changes++
        state.records = state.records.map(record => ({ ...record, generation: 2, owners: { a: 'me' } }))
        return state.records[0]
      }
    } as never,
    detector: {
      alive: () => ['me'],
      livenessOf: (peer: string) => (peer === 'p2' ? 'dead' : 'alive'),
      onChange() {}
    } as unknown as FailureDetector,
    clock,
    log: memoryLog(),
    report() {},
    note: fact => {
      if (fact.kind === 'takeover-waits') state.waits++
    }
  })
  agent.considerAll()
  return { state, agent, pass: (ms: number) => clock.until(clock.nowMs + ms) }
}

test('where no host has room and nothing changes, a plan is made again now and then only', async () => {
  const { state, agent, pass } = world()
  await pass(9_000)
  expect(state.waits).toBe(1)
  await pass(60_000)
  expect(state.waits).toBe(7)
  agent.stop()
})

test('where a host gives more, or another group ends, the group is taken over soon', async () => {
  const changes: ((state: ReturnType<typeof world>['state']) => void)[] = [
    state => (state.gives = 600),
    state => (state.records = state.records.map(each => (each.id === 'h' ? { ...each, removed: true } : each)))
  ]
  for (const change of changes) {
    const { state, agent, pass } = world()
    await pass(1_000)
    change(state)
    await pass(1_000)
    expect(state).toMatchObject({ waits: 1, changes: 1 })
    agent.stop()
  }
})
