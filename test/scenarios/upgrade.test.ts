/**
 * A running cluster is upgraded one peer at a time, as `diapause upgrade check` says, to a build of a higher version that
 * says more than this one knows, and back:
 * the bank goes on all the while, also while versions are mixed.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { UpgradeReport } from '../../node/edge/upgrade.ts'
import { programVersion } from '../../node/host/version.ts'
import { Bank, calm } from './bank.ts'
import { mainOf, makeNewer, NEWER } from './newer.ts'

const root = join(import.meta.dirname, '../..')
/** Of 2 VMs with 64 accounts of 1,000 coins each. */
const SOUND = { money: 128_000, gaps: 0, broken: 0, faults: [] }

describe('a cluster of three that is upgraded while it runs', () => {
  let dir: string
  let newer: string
  let bank: Bank
  let nonces: string[]
  const upgraded: string[] = []

  /** What that tree's program says of the cluster, asked through a peer. */
  const check = (tree: string): Promise<UpgradeReport> =>
    new Promise((resolve, reject) => {
      const [peer] = bank.cluster.alive
      const args = [mainOf(tree), 'upgrade', 'check', '--json', '--socket', peer?.socketPath ?? '']
      execFile(process.execPath, args, (error, stdout) => {
        // 1: it says to wait.
        if (error !== null && error.code !== 1) reject(new Error(error.message, { cause: error }))
        else resolve(JSON.parse(stdout) as UpgradeReport)
      })
    })

  const mayGoOn = (tree: string): Promise<UpgradeReport> =>
    bank.until('nothing to wait for', async () => {
      const report = await check(tree)
      return report.waits.length === 0 ? report : undefined
    })

  /** Its VMs go on elsewhere meanwhile. */
  async function replace(name: string, tree: string): Promise<void> {
    await bank.epoch(bank.peer('p1'))
    const peer = bank.peer(name)
    const owns = Object.values(await bank.owners()).includes(name)
    await (owns ? bank.endAndWait(peer) : bank.cluster.endPeer(peer))
    bank.cluster.startPeer(peer, mainOf(tree))
    await bank.cluster.allConnected(60_000)
  }

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'diapause-newer-'))
    newer = join(dir, 'tree')
    makeNewer(newer)
    bank = await Bank.start({ peers: 3, settings: { ...calm, shards: { k: 2, m: 1 } }, vms: 2, memoryMiB: 128 })
  }, 240_000)

  afterAll(async () => {
    await bank?.cluster.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  it('is told to take a snapshot first, and then which peer is next', async () => {
    ;({ nonces } = await bank.audit())
    expect((await check(newer)).waits).toEqual(['group bank has no snapshot yet: take one (diapause snapshot bank)'])
    await bank.epoch(bank.peer('p1'))
    const report = await mayGoOn(newer)
    expect(report).toMatchObject({ program: NEWER, next: { name: 'p3', vms: [] } })
  })

  it('is upgraded peer by peer, and takes epochs while versions are mixed', async () => {
    for (;;) {
      const { next } = await mayGoOn(newer)
      if (next === null) break
      await replace(next.name, newer)
      upgraded.push(next.name)
      const mixed = await bank.peer('p3').client.overview()
      expect(mixed.members.filter(({ report }) => report?.version === NEWER)).toHaveLength(upgraded.length)
    }
    expect(upgraded.sort()).toEqual(['p1', 'p2', 'p3'])
    await bank.epoch(bank.peer('p2'))
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  }, 180_000)

  it('goes back the same way', async () => {
    for (const name of upgraded) {
      await mayGoOn(root)
      await replace(name, root)
    }
    const { members, next } = await mayGoOn(root)
    expect(members.map(({ version }) => version)).toEqual(Array.from({ length: 3 }, programVersion))
    expect(next).toBeNull()
    expect(await bank.audit()).toEqual({ ...SOUND, nonces })
  }, 180_000)
})
