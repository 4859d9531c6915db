/** VMs that wait for each other's answers start together when they go back, where `diapause plan` says, with real guests. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { GroupPlan } from '../../node/edge/plan-view.ts'
import { Bank, calm } from './bank.ts'

describe('a bank of three VMs that talk to each other over TCP', () => {
  let bank: Bank
  let plan: GroupPlan | undefined

  beforeAll(async () => {
    bank = await Bank.start({ peers: 3, settings: { ...calm, shards: { k: 2, m: 1 } }, vms: 3, memoryMiB: 96 })
  }, 240_000)
  afterAll(() => bank?.cluster.stop())

  it('is known by its snapshots to be one: each waits for the answers of both others', async () => {
    await bank.working()
    const epoch = await bank.epoch(bank.peer('p1'))
    plan = await bank.until('another peer to know of the epoch', async () => {
      const [found] = await bank.peer('p2').client.plan({ group: 'bank', host: 'p1' })
      return (found?.epoch ?? 0) < epoch ? undefined : found
    })
    const [loss] = plan?.losses ?? []
    expect(loss).toMatchObject({ host: 'p1', vms: ['vm1'], homeless: [], moves: [{ vm: 'vm1' }] })
    expect(loss?.together).toHaveLength(1)
    expect(loss?.together[0]?.waits.map(({ vm, waitsFor }) => [vm, waitsFor])).toEqual([
      ['vm1', 'vm2'],
      ['vm1', 'vm3'],
      ['vm2', 'vm1'],
      ['vm2', 'vm3'],
      ['vm3', 'vm1'],
      ['vm3', 'vm2']
    ])
  })

  it('starts together on the hosts of the plan when a host dies, and none goes on without the others', async () => {
    const { generation } = await bank.record()
    await bank.killAndWait(bank.peer('p1'))
    const [move] = plan?.losses[0]?.moves ?? []
    expect(await bank.owners()).toMatchObject({ vm1: move?.to })
    const resumed = bank.events('vm.resumed').filter(event => event.generation > generation)
    expect(resumed.map(({ vm }) => vm).sort()).toEqual(['vm1', 'vm2', 'vm3'])
    // Who is not held has not waited for anybody's answers; `without` is there where somebody was too slow.
    for (const event of resumed) {
      expect(event).toHaveProperty('heldMs')
      expect(event).not.toHaveProperty('without')
    }
    expect((await bank.audit()).broken).toBe(0)
  })

  it('is told from then on how long that took, and that it would not come back once more while one of three voters is dead', async () => {
    const of = (name: string) => bank.peer(name).client.status()
    const known = async () => {
      const all = (await Promise.all(['p2', 'p3'].map(of))).flatMap(({ groups }) =>
        Object.values(groups[0]?.outlooks ?? {})
      )
      return all.length === 3 && all.every(({ parts, lossMs }) => parts.runsMs !== null && lossMs > 0) ? all : undefined
    }
    const why = { kind: 'no-majority', live: 1, voters: 3 }
    const outlooks = await bank.until('all parts to be measured', known)
    expect(outlooks).toEqual(outlooks.map(each => ({ ...each, backMs: null, never: true, why })))
    const [plan] = await bank.peer('p2').client.plan({ group: 'bank', host: 'p2' })
    expect(plan?.losses[0]).toMatchObject({ obstacle: why, totalMs: null })
  })
})
