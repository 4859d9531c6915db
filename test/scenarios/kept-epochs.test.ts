/** Epochs that are kept beside the last: held, forgotten, exported, gone back to, and undone. One story in order, on one cluster. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exportTo } from '../../node/edge/image-folder.ts'
import type { ClusterPeer } from '../demo/cluster.ts'
import type { BankReport } from '../guest/console.ts'
import { Bank, calm, GROUP } from './bank.ts'

describe('a group that keeps more epochs than the last', () => {
  let bank: Bank
  let left: ClusterPeer
  let right: ClusterPeer
  let folder: string
  const epochs: number[] = []
  /** What the VM had said when each of them was asked for. */
  const said: BankReport[] = []

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'diapause-kept-'))
    bank = await Bank.start({
      peers: 3,
      roles: ['storage', 'storage', 'witness'],
      settings: { ...calm, shards: { k: 1, m: 1 } },
      vms: 1,
      memoryMiB: 96
    })
    ;[left, right] = bank.cluster.peers as [ClusterPeer, ClusterPeer]
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
    await rm(folder, { recursive: true, force: true })
  })

  /** Its next word. */
  async function word(): Promise<BankReport> {
    const before = bank.consoles.latest.get(1)?.latest
    return await bank.until('a word of the VM', () => {
      const latest = bank.consoles.latest.get(1)?.latest
      return latest?.uptimeMs === before?.uptimeMs ? undefined : latest
    })
  }

  async function take(): Promise<number> {
    said.push(await word())
    const epoch = await bank.epoch(left)
    epochs.push(epoch)
    return epoch
  }

  const kept = async (peer: ClusterPeer): Promise<number[]> =>
    (await peer.client.epochs(GROUP)).epochs.map(({ epoch }) => epoch)

  it('keeps as many as its policy says, and those that are held', async () => {
    await left.client.setRetention(GROUP, { keepLast: 2 })
    const first = await take()
    await right.client.holdEpoch(GROUP, first, 'audit')
    const [, , third, fourth] = [first, await take(), await take(), await take()]
    expect(await kept(right)).toEqual([first, third, fourth])
    const { epochs: listed } = await left.client.epochs(GROUP)
    expect(listed.map(({ committed, holds }) => [committed, holds.join()])).toEqual([
      [false, 'audit'],
      [false, ''],
      [true, '']
    ])
    for (const { bytesStored = 0, wallMs = 0 } of listed) expect([bytesStored > 0, wallMs > 0]).toEqual([true, true])
    expect(listed[0]?.bytesStored).toBeGreaterThan(listed[1]?.bytesStored ?? 0) // only what changed
  }, 120_000)

  it('forgets what no kept epoch needs, and exports one that is kept', async () => {
    const second = epochs[1] ?? 0
    await bank.until('all peers to forget the epoch that is not kept', async () => {
      const { store } = await right.client.status()
      return store.manifests <= 3 + 4 ? true : undefined // of three images, and of the streams that they may lean on
    })
    const { signal } = new AbortController()
    const wish = { group: GROUP, vm: 'vm1', epoch: second }
    const told = { progress: () => {}, signal }
    await expect(exportTo(join(folder, 'second'), right.client, wish, told)).rejects.toMatchObject({
      code: 'EPOCH_NOT_KEPT'
    })
    const [first = 0] = epochs
    const { image } = await exportTo(join(folder, 'first'), right.client, { ...wish, epoch: first }, told)
    expect(image.epoch).toBe(first)
  }, 120_000)

  it('goes back to an epoch of long ago, from which its VM goes on, and takes epochs there', async () => {
    const [first = 0] = epochs
    const last = epochs.at(-1) ?? 0
    const before = await word()
    await bank.goBack(right, first)
    const after = await word()
    expect(after).toMatchObject({ nonce: before.nonce, broken: 0 })
    expect(after.uptimeMs).toBeGreaterThanOrEqual(said[0]?.uptimeMs ?? 0)
    expect(after.uptimeMs - (said[0]?.uptimeMs ?? 0)).toBeLessThan(before.uptimeMs)
    const record = await bank.record()
    expect(record.committed).toMatchObject({ epoch: first, generation: 1 })
    expect(record.holds).toContainEqual({ epoch: last, name: 'before-restore' })
    const next = await bank.epoch(right)
    expect(next).toBeGreaterThan(last)
    expect(await kept(left)).toEqual([first, last, next])
  }, 120_000)

  it('goes forth again to what it had left', async () => {
    await bank.goBack(left, epochs.at(-1) ?? 0)
    const after = await word()
    expect(after.nonce).toBe(said[0]?.nonce)
    expect(after.uptimeMs).toBeGreaterThanOrEqual(said.at(-1)?.uptimeMs ?? 0)
  }, 120_000)

  it('takes epochs by itself by a policy, of which every peer remembers what they cost, and none without one', async () => {
    expect((await left.client.policy(GROUP)).text).toBe('on request only')
    await right.client.setPolicy(GROUP, { kind: 'interval', everyMs: 700 })
    const atWitness = bank.cluster.peers[2]?.client ?? left.client
    // Those of a generation that is over say nothing of what the next one costs, nor does its first.
    const shown = await bank.until('a few epochs that nobody asked for', async () => {
      const found = await atWitness.policy(GROUP)
      return (found.costs?.epochs ?? 0) >= 4 ? found : undefined
    })
    expect(shown).toMatchObject({ own: true, text: 'interval: every 700 ms', next: { why: 'every 700 ms' } })
    expect(shown.costs?.pauseMs).toBeGreaterThan(0)
    expect(shown.costs?.storedBytes).toBeGreaterThan(0)
    const { was, wouldBe } = await left.client.simulatePolicy(GROUP, { kind: 'interval', everyMs: 1_400 })
    expect(was.epochs).toBeGreaterThanOrEqual(4)
    expect(wouldBe).toMatchObject({ overMs: was.overMs, intervalMs: { median: 1_400 } })
    expect(wouldBe.lossMs.mean).toBeGreaterThan(0)
    await left.client.setPolicy(GROUP, undefined)
    expect(await left.client.policy(GROUP)).toMatchObject({ own: false, policy: null, next: null })
  }, 120_000)
})
