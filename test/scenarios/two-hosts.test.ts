/**
 * The smallest cluster that survives a host: two hosts with VMs, and a witness that only votes. The tests are one story in
 * order, on one cluster.
 */
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ClusterPeer } from '../demo/cluster.ts'
import { naming } from '../demo/processes.ts'
import { Bank, calm, GROUP } from './bank.ts'

/** Of 2 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 128_000, gaps: 0, broken: 0, faults: [] }

/** Their processes. Trackers are others: one that waits for the next VM comes and goes by itself. */
const machinesAt = ({ runDir }: { readonly runDir: string }): number[] =>
  naming(`${runDir}/`)
    .filter(({ command }) => !command.includes('tracker serve'))
    .map(({ pid }) => pid)

describe('a bank on one of two hosts, and a witness', () => {
  let bank: Bank
  let left: ClusterPeer
  let right: ClusterPeer
  let witness: ClusterPeer
  let nonces: string[]
  let stopped = false

  beforeAll(async () => {
    bank = await Bank.start({
      peers: 3,
      roles: ['storage', 'storage', 'witness'],
      settings: { ...calm, shards: { k: 1, m: 1 } },
      vms: 2,
      memoryMiB: 128,
      owners: { vm1: 'p1', vm2: 'p1' }
    })
    ;[left, right, witness] = bank.cluster.peers as [ClusterPeer, ClusterPeer, ClusterPeer]
    nonces = (await bank.audit()).nonces
  }, 240_000)

  afterAll(async () => {
    if (!stopped) await bank?.cluster.stop()
  })

  const allOn = (peer: ClusterPeer) => ({ vm1: peer.name, vm2: peer.name })

  /** Starts a peer that was killed; resolves when it is one of the cluster again and knows the newest record. */
  async function bringBack(peer: ClusterPeer): Promise<void> {
    bank.cluster.startPeer(peer)
    await bank.cluster.allConnected(60_000)
    const { version } = await bank.record()
    await bank.until(`${peer.name} to learn of the group`, async () =>
      (await bank.at(peer)).version === version ? true : undefined
    )
  }

  /** Uptimes of the VMs, by their own consoles. */
  const uptimes = (): number[] => [...bank.consoles.latest.values()].map(({ latest }) => latest.uptimeMs)

  async function bytesIn(dir: string): Promise<number> {
    const files = (await readdir(dir, { recursive: true, withFileTypes: true })).filter(entry => entry.isFile())
    const sizes = await Promise.all(files.map(async file => (await readFile(`${file.parentPath}/${file.name}`)).length))
    return sizes.reduce((sum, size) => sum + size, 0)
  }

  it('keeps every epoch on both hosts, and nothing of the VMs at the witness', async () => {
    await bank.epoch(witness)
    const stores = await Promise.all(bank.cluster.peers.map(async ({ client }) => (await client.status()).store))
    expect(stores.map(({ streams }) => streams)).toEqual([2, 2, 0])
    expect(stores[2]).toEqual({ streams: 0, manifests: 0, bytes: 0 })
    // Its votes and its identity; an image of a VM is many megabytes.
    expect(await bytesIn(witness.dataDir)).toBeLessThan(1_000_000)
    expect(await bytesIn(right.dataDir)).toBeGreaterThan(10_000_000)
    expect(await witness.client.status()).toMatchObject({ hypervisor: 'none (witness)', capture: null })
    const { capture, groups } = await left.client.status()
    const modes = Object.entries(groups[0]?.captures ?? {}).map(([vm, { mode }]) => [vm, mode])
    expect(modes).toEqual([
      ['vm1', capture?.mode],
      ['vm2', capture?.mode]
    ])
  })

  it('goes on at the other host, with the vote of the witness, when the host with the VMs dies', async () => {
    await bank.working()
    const committed = (await bank.record()).committed?.epoch
    const decided = await bank.killAndWait(left)
    expect(decided).toMatchObject({ epoch: committed, lost: ['vm1', 'vm2'] })
    expect(await bank.owners()).toEqual(allOn(right))
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    expect(await bank.epoch(witness)).toBeGreaterThan(committed ?? 0)
  })

  it('counts on the dead host when it has come back: after one more epoch the other may die', async () => {
    await bringBack(left)
    expect(await bank.at(left)).toMatchObject({ running: [] })
    const committed = await bank.epoch(left)
    await bank.working()
    const decided = await bank.killAndWait(right)
    expect(decided).toMatchObject({ epoch: committed, lost: ['vm1', 'vm2'] })
    expect(await bank.owners()).toEqual(allOn(left))
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    await bringBack(right)
  })

  it('fences the VMs where their owner is alone, and lets the same ones go on when the witness is back', async () => {
    const { generation } = await bank.record()
    await bank.epoch(left)
    await bank.working()
    const machines = machinesAt(left)
    await bank.cluster.killPeer(right)
    await bank.working() // with the witness it has a majority
    await bank.cluster.killPeer(witness)
    await bank.until('the VMs to be fenced', async () =>
      (await bank.at(left)).running.length === 0 ? true : undefined
    )
    // They stand still, and nobody has them.
    await sleep(100)
    bank.consoles.poll()
    const before = uptimes()
    await sleep(1_500)
    bank.consoles.poll()
    expect(uptimes()).toEqual(before)
    await bringBack(witness)
    await bank.working()
    expect(machinesAt(left)).toEqual(machines)
    expect(await bank.record()).toMatchObject({ generation })
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
    await bringBack(right)
  })

  it('takes nothing over where a host is alone without VMs, until the witness is back', async () => {
    const committed = await bank.epoch(right)
    const { generation } = await bank.record()
    const mark = (await readFile(right.logFile, 'utf8')).length
    await bank.cluster.killPeer(witness)
    await bank.cluster.killPeer(left)
    const died = (peer: ClusterPeer) =>
      bank.cluster.events.some(
        ({ by, event }) =>
          by === right.name && event.kind === 'liveness' && event.peer === peer.id && event.liveness === 'dead'
      )
    await bank.until('both to be missed', () => (died(left) && died(witness) ? true : undefined))
    await bank.until('a takeover to be tried in vain', async () =>
      (await readFile(right.logFile, 'utf8')).slice(mark).includes('takeover not decided yet') ? true : undefined
    )
    expect(await bank.at(right)).toMatchObject({ running: [], generation })
    expect(machinesAt(right)).toEqual([])

    bank.cluster.startPeer(witness)
    await bank.until('both VMs to run on the host that is left', async () =>
      (await bank.at(right)).running.length === 2 ? true : undefined
    )
    await bank.working()
    expect(await bank.owners()).toEqual(allOn(right))
    expect(await bank.record()).toMatchObject({ committed: { epoch: committed } })
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  })

  it('leaves no process, socket or folder behind when it is stopped', async () => {
    await right.client.removeGroup(GROUP)
    stopped = true
    expect(await bank.cluster.stop()).toEqual([])
  })
})
