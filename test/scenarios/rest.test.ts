/** A group rests, a host dies meanwhile, and the group starts again: on what is there, with nothing lost. One story in order. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { guestName } from '../../node/hypervisor/command-line.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import { naming } from '../demo/processes.ts'
import type { BankReport } from '../guest/console.ts'
import { Bank, calm, GROUP } from './bank.ts'

/** Of 2 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 128_000, gaps: 0, broken: 0, faults: [] }

describe('a group of two VMs on three hosts', () => {
  let bank: Bank
  let left: ClusterPeer
  let nonces: string[]

  beforeAll(async () => {
    const settings = { ...calm, shards: { k: 2, m: 1 } }
    bank = await Bank.start({ peers: 3, settings, vms: 2, portable: ['vm2'], memoryMiB: 96 })
    left = bank.peer('p1')
    ;({ nonces } = await bank.audit())
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
  })

  const said = (): BankReport[] => [...bank.consoles.latest.values()].map(({ latest }) => latest)

  const machines = (): number =>
    bank.cluster.peers.flatMap(({ id }) => bank.vms.flatMap(vm => naming(`guest=${guestName(id, vm)} `))).length

  it('is not made, nor said to be possible, where its host lacks what a VM boots from', async () => {
    const { client } = bank.peer('p1')
    const [vm] = (await bank.record()).vms
    const other = { id: 'other', vms: [{ ...vm, initrd: '/nowhere/initrd' }], owners: { [vm?.id ?? '']: 'p2' } }
    for (const options of [{ dryRun: true }, { dryRun: false }]) {
      await expect(client.createGroup(other, options)).rejects.toMatchObject({
        code: 'FILES_MISSING',
        message: expect.stringContaining('/nowhere/initrd at p2')
      })
    }
    expect((await client.groups()).map(({ id }) => id)).toEqual(['bank'])
  })

  it('rests at an epoch that is taken for it: its VMs have ended, and nobody takes a snapshot', async () => {
    expect(machines()).toBe(2)
    const record = await left.client.stopGroup(GROUP, { now: false })
    expect(record).toMatchObject({ resting: true, generation: 2, committed: { generation: 1 } })
    await bank.until('all VMs to end', () => (machines() === 0 ? true : undefined))
    await expect(left.client.takeEpoch(GROUP)).rejects.toMatchObject({ code: 'GROUP_RESTS' })
    const { vms } = await left.client.overview()
    expect(vms.map(({ state }) => state)).toEqual(['resting', 'resting'])
  }, 120_000)

  it('is left alone when a host of it dies', async () => {
    const { version } = await bank.record()
    const dead = bank.peer('p2')
    await bank.cluster.killPeer(dead)
    await bank.until('the others to hold it for dead', async () => {
      const { members } = await left.client.status()
      return members.find(({ id }) => id === dead.id)?.liveness === 'dead' ? true : undefined
    })
    expect((await bank.record()).version).toBe(version)
    expect(bank.events('takeover.decided')).toEqual([])
  }, 120_000)

  it('starts where there are hosts, with its connections, from the moment at which it was stopped', async () => {
    bank.consoles.poll()
    const before = said()
    await bank.startAgain(left)
    const owners = Object.values(await bank.owners())
    expect(owners).not.toContain('p2')
    for (const { vm, uptimeMs } of said()) {
      expect(uptimeMs).toBeGreaterThan(before.find(report => report.vm === vm)?.uptimeMs ?? 0)
    }
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  }, 120_000)

  it('rests at once where that is asked for, at the epoch of before, and takes epochs when it runs again', async () => {
    const epoch = await bank.epoch(left)
    await bank.working()
    const record = await left.client.stopGroup(GROUP, { now: true })
    expect(record).toMatchObject({ resting: true, committed: { epoch }, lastEpoch: epoch })
    await bank.startAgain(left)
    expect(await bank.epoch(left)).toBe(epoch + 1)
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  }, 120_000)
})
