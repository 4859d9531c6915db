/**
 * Data keys with real peers, as one story in order: a new key by hand, a storage host that joins after it and is the one that
 * restores the VM, a host that is removed and what its files still open, and what all of them leave where others may look.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { identitySeed, loadOrCreateIdentity } from '../../node/host/identity.ts'
import { createKeyBox } from '../../node/host/key-box.ts'
import { readSecret } from '../../node/host/secret.ts'
import { openKeys } from '../../protocols/membership/keys.ts'
import { clusterRecordSchema } from '../../protocols/membership/record.ts'
import { Cluster, type ClusterPeer, loopback } from '../demo/cluster.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { openToOthers, spellings, told } from './left-behind.ts'
import { Member, until } from './member.ts'

describe('data keys of a cluster of two hosts and a witness', () => {
  let cluster: Cluster
  let p1: ClusterPeer
  let p2: ClusterPeer
  let late: Member
  let invitation = ''
  let umask = 0

  beforeAll(async () => {
    umask = process.umask(0) // an operator's that protects nothing
    const detector = { suspicionMinMs: 1_000, suspicionMaxMs: 4_000 }
    const roles = ['storage', 'storage', 'witness'] as const
    cluster = await Cluster.create({ peers: 3, roles, settings: { shards: { k: 1, m: 1 }, detector } })
    for (const peer of cluster.peers) cluster.startPeer(peer)
    await cluster.allConnected(90_000)
    ;[p1, p2] = cluster.peers as [ClusterPeer, ClusterPeer]
    const vm = async (index: number) => bankVm(await buildGuest(), { index, total: 2, memoryMiB: 128 })
    await p1.client.createGroup({ id: 'bank', vms: [await vm(1)], owners: { vm1: 'p1' } })
    // So that p2 has promised memory, and a third host would rather be chosen for the bank.
    await p1.client.createGroup({ id: 'ballast', vms: [await vm(2)], owners: { vm2: 'p2' } })
  }, 240_000)

  afterAll(async () => {
    await late?.kill().catch(() => {})
    await cluster?.stop()
    process.umask(umask)
  })

  const epoch = async ({ client }: Pick<ClusterPeer, 'client'>): Promise<void> =>
    until('an epoch', async () => (await client.takeEpoch('bank').catch(() => undefined))?.outcome === 'committed')

  it('are made by hand, and epochs go on under the new one', async () => {
    await epoch(p1)
    // What a committed epoch holds is known at the host that took it; the other one reads of it a moment later.
    await until('p2 to see the image', async () => ((await p2.client.keys()).keys[0]?.streams ?? 0) > 0)
    expect((await p2.client.keys()).keys).toEqual([{ id: 0, streams: 1 }])
    expect(await p2.client.rotateKeys()).toMatchObject({ opens: true, keys: [{ id: 1, by: 'p2' }, { id: 0 }] })
    await until('p1 to have it', async () => (await p1.client.keys()).keys.length === 2)
    await epoch(p1)
    expect((await p1.client.keys()).keys.map(({ id, streams }) => [id, (streams ?? 0) > 0])).toContainEqual([1, true])
    const witness = (cluster.peers[2] as ClusterPeer).client
    await expect(witness.rotateKeys()).rejects.toMatchObject({ code: 'KEYS_ELSEWHERE' })
  })

  it('are given to a host that joins without the cluster secret, which then restores what was sealed before it came', async () => {
    const [address = ''] = await loopback(1)
    late = new Member(cluster.dir, 'p4', address)
    const { token } = await p1.client.invite({})
    invitation = token
    expect(await late.run('join', token, ...late.setup)).toMatchObject({ code: 0 })
    expect(readFileSync(late.configFile, 'utf8')).not.toContain('secretFile')
    await late.start()
    await until('it to have the keys', async () => {
      const { opens, keys } = await late.client.keys()
      return opens && keys.length === 2
    })
    await late.sees('four votes', ({ voters }) => voters.settled && voters.count === 4)
    await cluster.killPeer(p1)
    await until('the VM to run there', async () => {
      const groups = (await late.client.status()).groups
      return groups.some(({ record, running }) => record.id === 'bank' && running.includes('vm1'))
    })
    await epoch(late)
  })

  it('change when a host is removed, whose files and whatever it steals open no later one', async () => {
    const newest = async (): Promise<number | undefined> => (await late.client.keys()).keys[0]?.id
    const before = await newest()
    await late.ask('members', 'remove', 'p1', '--force', '--yes')
    expect(await newest()).toBe((before ?? 0) + 1)
    expect(await late.ask('keys')).toContain('held by: p')
    await epoch(late)
    const { privateKey, peerId: self } = await loadOrCreateIdentity(p1.dataDir)
    const box = createKeyBox(self, identitySeed(privateKey))
    const secret = await readSecret(join(cluster.dir, 'secret'))
    const recordOf = (dataDir: string) =>
      clusterRecordSchema.parse(
        (JSON.parse(readFileSync(join(dataDir, 'cluster.json'), 'utf8')) as { record: unknown }).record
      )
    const own = openKeys(recordOf(p1.dataDir), { self, box, secret })
    expect(own?.map(({ id }) => id)).toEqual([1, 0])
    expect(openKeys(recordOf(late.dataDir), { self, box, secret })).toBeUndefined()
  })

  it('leave no file that another user could open, and no secret in logs, arguments and environments', async () => {
    const folders = cluster.peers.flatMap(({ dataDir, runDir }) => [dataDir, runDir])
    expect(await openToOthers(folders)).toEqual([])
    const { token } = await p2.client.newToken({ name: 'reader', role: 'view' })
    const running = [cluster.pidOf(p2), late.pid]
    const all = told([...cluster.peers.map(({ logFile }) => logFile), join(late.dataDir, 'log')], running)
    expect(all).toContain(p2.id) // that this looks at the right thing
    expect(all).toContain(late.dataDir)
    const identities = await Promise.all([p1, p2, late].map(({ dataDir }) => loadOrCreateIdentity(dataDir)))
    const secret = await readSecret(join(cluster.dir, 'secret'))
    const { privateKey, peerId: self } = identities[2] as (typeof identities)[number]
    const text = readFileSync(join(late.dataDir, 'cluster.json'), 'utf8')
    const record = clusterRecordSchema.parse((JSON.parse(text) as { record: unknown }).record)
    const keys = openKeys(record, { self, box: createKeyBox(self, identitySeed(privateKey)), secret: undefined })
    expect(keys?.length).toBeGreaterThan(1)
    const secrets = [
      secret,
      ...identities.map(identity => identitySeed(identity.privateKey)),
      ...(keys ?? []).map(({ key }) => key)
    ]
    const leaked = [...secrets.flatMap(spellings), token, invitation].filter(spelling => all.includes(spelling))
    expect(leaked).toEqual([])
  })
})
