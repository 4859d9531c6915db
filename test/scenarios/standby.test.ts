/**
 * Standby copies, with real peers and VMs: a host dies, and its VM goes on from the copy that another host keeps, the others from
 * those of their own hosts. One story in order, on one cluster.
 */
import { existsSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { naming } from '../demo/processes.ts'
import { Bank, calm, GROUP } from './bank.ts'

/** Of 2 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 128_000, gaps: 0, broken: 0, faults: [] }

describe('a bank with standby copies', () => {
  let bank: Bank
  let stopped = false

  beforeAll(async () => {
    const settings = { ...calm, shards: { k: 2, m: 1 } }
    bank = await Bank.start({ peers: 3, settings, vms: 2, memoryMiB: 128, standby: 1, disks: [{ sizeMiB: 8 }] })
  }, 240_000)

  afterAll(async () => {
    if (!stopped) await bank?.cluster.stop()
  })

  /** Every copy is of the committed epoch; VM → names of the hosts that keep one. */
  const copies = async (epoch: number): Promise<Record<string, string[]>> =>
    await bank.until(`standby copies of epoch ${epoch}`, async () => {
      const all = await Promise.all(
        bank.cluster.alive.map(async peer => {
          const { standbys = [] } = await peer.client.status()
          return standbys.map(standby => ({ ...standby, host: peer.name }))
        })
      )
      const ready = all.flat().filter(standby => standby.group === GROUP && standby.state === 'ready')
      if (ready.length !== 2 * bank.vms.length || ready.some(standby => standby.epoch !== epoch)) return undefined
      return Object.fromEntries(
        bank.vms.map(vm => [vm, ready.flatMap(standby => (standby.vm === vm ? [standby.host] : [])).sort()])
      )
    })

  /** VM → from what it went on in that generation. */
  const resumed = (generation: number): Record<string, unknown> =>
    Object.fromEntries(
      bank
        .events('vm.resumed')
        .filter(event => event.generation === generation)
        .map(event => [event.vm, { from: event.from, noStandby: event.noStandby }])
    )

  it('keeps a copy of each VM at its own host and at the one that would take it over', async () => {
    const first = await bank.epoch(bank.peer('p1'))
    const hosts = await copies(first)
    expect(hosts.vm1).toContain('p1')
    expect(hosts.vm2).toContain('p2')
    await bank.working()
    const second = await bank.epoch(bank.peer('p2'))
    expect(await copies(second)).toEqual(hosts)
  })

  it('goes on from the copies when a host dies, and again when the next one does: no coin is lost', async () => {
    for (const [victim, vm] of [
      ['p1', 'vm1'],
      ['p2', 'vm2']
    ] as const) {
      const { nonces } = await bank.audit()
      const committed = await bank.epoch(bank.peer('p3'))
      const hosts = await copies(committed)
      await bank.working()
      const decided = await bank.killAndWait(bank.peer(victim))
      expect(decided).toMatchObject({ epoch: committed, lost: [vm] })
      const [heir] = (hosts[vm] ?? []).filter(host => host !== victim)
      expect((await bank.owners())[vm]).toBe(heir)
      const { generation } = await bank.record()
      const both = { from: 'standby', noStandby: undefined }
      expect(resumed(generation)).toEqual({ vm1: both, vm2: both })
      expect(await bank.audit()).toEqual({ ...SOUND, nonces })
      if (victim === 'p1') {
        bank.cluster.startPeer(bank.peer(victim))
        await bank.cluster.allConnected(60_000)
      }
    }
  })

  it('goes on without a copy where there is none of the epoch', async () => {
    const committed = (await bank.record()).committed?.epoch ?? 0
    const { generation } = await bank.record()
    await bank.goBack(bank.peer('p3'), committed)
    const ways = Object.values(resumed(generation + 1)) as { from: string; noStandby: string | undefined }[]
    expect(ways.map(({ from }) => from)).toEqual(['shards', 'shards'])
    for (const { noStandby } of ways) expect(noStandby).toBe('there is no copy here')
    expect(await bank.audit()).toMatchObject(SOUND)
  })

  it('leaves no process behind when it is stopped', async () => {
    const { dir } = bank.cluster
    expect(await bank.cluster.stop()).toEqual([])
    stopped = true
    expect(naming(`${dir}/`)).toEqual([])
    expect(existsSync(dir)).toBe(false)
  })
})
