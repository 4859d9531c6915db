/**
 * A base that the VMs of two hosts begin with is stored once: the first epoch writes none of it, and a VM whose host has died finds
 * its disk whole on the other. The tests are one story in order, on one cluster.
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ClusterPeer } from '../demo/cluster.ts'
import { Bank, calm } from './bank.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
const MIB = 2 ** 20
const BASE_MIB = 24
const DISK_MIB = 32

describe('two VMs with one base on two hosts, and a witness', () => {
  let bank: Bank
  let left: ClusterPeer
  let right: ClusterPeer
  let folder: string
  let raw: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'diapause-bases-'))
    const base = join(folder, 'base')
    raw = join(folder, 'raw')
    const content = randomBytes(BASE_MIB * MIB)
    await writeFile(base, content)
    await writeFile(raw, Buffer.concat([content, Buffer.alloc((DISK_MIB - BASE_MIB) * MIB)]))
    bank = await Bank.start({
      peers: 3,
      roles: ['storage', 'storage', 'witness'],
      settings: { ...calm, shards: { k: 1, m: 1 } },
      vms: 2,
      memoryMiB: 128,
      disks: [{ sizeMiB: DISK_MIB, base: { path: base, format: 'raw' } }]
    })
    ;[left, right] = bank.cluster.peers as [ClusterPeer, ClusterPeer]
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
    await rm(folder, { recursive: true, force: true })
  })

  it('is stored once, beside the streams of the VMs, which hold nothing of it', async () => {
    const epoch = await bank.epoch(left)
    const { store } = await right.client.status()
    expect(store.streams).toBe(3)
    const durable = bank.cluster.events.flatMap(({ event }) =>
      event.kind === 'epoch.durable' && event.epoch === epoch ? [event.stats.bytesData] : []
    )
    expect(durable).toHaveLength(2)
    for (const bytes of durable) expect(bytes).toBeLessThan(BASE_MIB * MIB)
  })

  it('is found by a VM whose host has died, as it was', async () => {
    await bank.killAndWait(left)
    expect(await bank.owners()).toEqual({ vm1: 'p2', vm2: 'p2' })
    await bank.epoch(right)
    for (const vm of ['vm1', 'vm2']) {
      const out = join(folder, vm)
      await promisify(execFile)(process.execPath, [main, 'export', vm, '--out', out, '--socket', right.socketPath])
      const names = [join(out, 'disk0.qcow2'), raw]
      const compared = await promisify(execFile)('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', ...names])
      expect(compared.stdout).toMatch(/identical/)
    }
  })
})
