/**
 * A cluster as an operator makes it, with the commands that the README documents and real peers: from one host to three,
 * one of them a witness; a host dies and is replaced, another is removed with a VM on it, all restart, one leaves. The tests
 * are one story in order, on one cluster: each begins where the one before it ended.
 */
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Invitation } from '../../node/edge/cluster-view.ts'
import { decodeToken, encodeToken } from '../../protocols/membership/token.ts'
import { Cluster, type ClusterPeer, loopback } from '../demo/cluster.ts'
import { naming } from '../demo/processes.ts'
import { bankVm, buildGuest } from '../guest/build.ts'
import { Member, until, votersOf } from './member.ts'

/** What the first operator writes into the file that init made, before the peer runs; those who join get it from there. */
const SETTINGS = `
[shards]
k = 1
m = 1
[detector]
# A busy machine must not look like a dead peer.
suspicionMinMs = 1_000
suspicionMaxMs = 4_000
[epochs]
intervalMs = 0
`

describe('a cluster made by hand', () => {
  let dir: string
  let oak: Member
  let elm: Member
  let ash: Member
  let fir: Member
  let token: string
  /** An invitation that will have expired when the story comes to it. */
  let early: Invitation

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-members-'))
    const [a = '', b = '', c = '', d = ''] = await loopback(4)
    oak = new Member(dir, 'oak', a)
    elm = new Member(dir, 'elm', b)
    ash = new Member(dir, 'ash', c)
    fir = new Member(dir, 'fir', d)
  })

  afterAll(async () => {
    for (const member of [oak, elm, ash, fir]) await member?.kill().catch(() => {})
    if (dir !== undefined) await rm(dir, { recursive: true, force: true })
  })

  it('begins with one peer: init makes its files, for its user alone, and overwrites none', async () => {
    const made = await oak.run('init', '--cluster', 'forest', ...oak.setup)
    expect(made).toMatchObject({ code: 0, out: expect.stringContaining(`diapause up --config ${oak.configFile}`) })
    for (const name of ['secret', 'identity.key', 'cluster.json']) {
      expect(statSync(join(oak.dataDir, name)).mode & 0o777).toBe(0o600)
    }
    const secret = readFileSync(join(oak.dataDir, 'secret'), 'utf8')
    const again = await oak.run('init', '--cluster', 'forest', ...oak.setup)
    expect(again).toMatchObject({ code: 2, err: expect.stringContaining('peer.toml is there already') })
    expect(readFileSync(join(oak.dataDir, 'secret'), 'utf8')).toBe(secret)
    appendFileSync(oak.configFile, SETTINGS)
    await oak.start()
    const text = await oak.ask('members')
    expect(text).toContain('cluster forest: 1 member,')
    expect(text).toContain('votes: 1, of which none may fail')
    const identity = await oak.run('identity', '--data-dir', oak.dataDir)
    expect(identity.out.trim()).toBe((await oak.member('oak'))?.id)
  })

  it('refuses a stranger who has a token that no member made', async () => {
    early = JSON.parse(await oak.ask('invite', '--expires', '1', '--json')) as Invitation
    const { seed, ...rest } = decodeToken(early.token)
    const forged = encodeToken({ ...rest, seed: seed.map(byte => byte ^ 1) })
    const refused = await elm.run('join', forged, ...elm.setup)
    expect(refused).toMatchObject({ code: 2, err: expect.stringContaining('[JOIN_REFUSED]') })
    expect(refused.err).toContain('new invitation')
    expect((await oak.client.members()).members).toHaveLength(1)
  })

  it('takes in a second host and a witness, which get their votes when they run', async () => {
    token = await oak.ask('invite')
    const joined = await elm.run('join', token, ...elm.setup)
    expect(joined).toMatchObject({ code: 0, out: expect.stringContaining('elm (12D3Koo') })
    expect(readFileSync(elm.configFile, 'utf8')).toContain('suspicionMinMs = 1000')
    expect(statSync(join(elm.dataDir, 'secret')).mode & 0o777).toBe(0o600)
    // It is decided, and a peer shows what it has on its disk: a moment later where that is busy.
    await oak.sees('elm', ({ members }) => members.some(({ name }) => name === 'elm'))
    expect(await oak.member('elm')).toMatchObject({ role: 'storage', votes: false, wantsVote: true })
    expect(await oak.ask('members')).toContain('waiting: elm: it gets its vote when it runs and is connected')
    await elm.start()
    await oak.sees('two votes', ({ voters }) => voters.settled && voters.count === 2)

    const witness = await elm.ask('invite', '--role', 'witness')
    await ash.run('join', witness, ...ash.setup)
    await ash.start()
    for (const member of [oak, elm, ash]) {
      const status = await member.sees('three votes', ({ voters }) => voters.settled && voters.count === 3)
      expect(status.voters.tolerates).toBe(1)
      expect(status.code).toMatchObject({ k: 1, m: 1, storage: 2, tolerates: 1 })
    }
    expect((await ash.client.status()).hypervisor).toBe('none (witness)')
    const json = JSON.parse(await ash.ask('members', '--json')) as { members: { name: string }[] }
    expect(json.members.map(member => member.name).sort()).toEqual(['ash', 'elm', 'oak'])
  })

  it('takes a token once, says who used it, and lets the same host ask again whose answer was lost', async () => {
    const used = await fir.run('join', token, ...fir.setup)
    expect(used).toMatchObject({ code: 2, err: expect.stringMatching(/used by elm.*\[INVITE_USED\]/) })
    const lost = new Member(dir, 'elm', elm.address, 'lost')
    mkdirSync(lost.dataDir, { mode: 0o700 })
    copyFileSync(join(elm.dataDir, 'identity.key'), join(lost.dataDir, 'identity.key'))
    expect(await lost.run('join', token, ...lost.setup)).toMatchObject({ code: 0 })
    expect(readFileSync(join(lost.dataDir, 'secret'), 'utf8')).toBe(readFileSync(join(oak.dataDir, 'secret'), 'utf8'))
    rmSync(lost.dataDir, { recursive: true })
  })

  it('takes and gives votes one at a time', async () => {
    const taken = await ash.ask('members', 'set', 'elm', '--votes', 'no')
    expect(taken).toContain('elm is set')
    expect(votersOf(await oak.client.members())).toEqual(['ash', 'oak'])
    await oak.ask('members', 'set', 'elm', '--votes', 'yes')
    const { voters } = await ash.sees('elm vote again', status => votersOf(status).includes('elm'))
    expect(voters.version).toBe(5)
    const nobody = await oak.run('members', 'set', 'yew', '--votes', 'no', '--config', oak.configFile)
    expect(nobody).toMatchObject({ code: 2, err: expect.stringContaining('there is no member "yew"') })
  })

  it('does not remove a living host with a VM; forced, the host is cut off and the VM goes on elsewhere', async () => {
    const vm = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 128 })
    await oak.client.createGroup({ id: 'bank', vms: [vm], owners: { vm1: 'elm' } })
    await until('an epoch', async () => {
      const { outcome } = await elm.client.takeEpoch('bank').catch(() => ({ outcome: 'aborted' }))
      return outcome === 'committed'
    })
    const refused = await oak.run('members', 'remove', 'elm', '--yes', '--config', oak.configFile)
    expect(refused).toMatchObject({
      code: 2,
      err: expect.stringMatching(/owns bank\/vm1.*--force.*\[MEMBER_OWNS_VMS\]/)
    })
    expect(await oak.member('elm')).toMatchObject({ leaving: false })

    expect(await oak.ask('members', 'remove', 'elm', '--force', '--yes')).toContain('elm is removed')
    expect(await elm.end()).toBe(0) // it has heard of it
    await until('the VM to run at oak', async () => {
      const [bank] = (await oak.client.status()).groups
      return bank?.running.includes('vm1') === true && bank.record.generation === 2
    })
    expect(votersOf(await oak.client.members())).toEqual(['ash', 'oak'])
    const back = await elm.run('up', '--config', elm.configFile)
    expect(back).toMatchObject({ code: 2, err: expect.stringContaining('[REMOVED]') })
  })

  it('goes on deciding when a voter is killed, and replaces it by a host of the same name and address', async () => {
    fir = new Member(dir, 'fir', fir.address)
    await fir.run('join', await oak.ask('invite', '--role', 'witness'), ...fir.setup)
    await fir.start()
    await oak.sees('three votes', ({ voters }) => voters.settled && voters.count === 3)
    await fir.kill()
    // A decision: a majority of three is left.
    const replacement = await oak.ask('invite', '--role', 'witness', '--replace', 'fir', '--expires', '30')
    const heir = new Member(dir, 'fir', fir.address, 'fir2')
    await heir.run('join', replacement, ...heir.setup)
    await heir.start()
    const status = await ash.sees('the old fir gone and the new one voting', ({ members, voters }) => {
      return voters.settled && voters.count === 3 && members.length === 3
    })
    expect(status.members.find(member => member.name === 'fir')).toMatchObject({ votes: true, connected: true })

    // The old one comes back at another address, with all that it knew.
    const [elsewhere = ''] = await loopback(1)
    const old = readFileSync(fir.configFile, 'utf8')
    const returned = new Member(dir, 'fir', elsewhere, 'fir')
    appendFileSync(join(dir, 'fir', 'moved.toml'), old.replaceAll(fir.address, elsewhere))
    copyFileSync(join(dir, 'fir', 'moved.toml'), fir.configFile)
    await returned.start()
    await returned.sees('nobody', ({ members }) => members.every(member => member.self || member.liveness !== 'alive'))
    expect((await returned.client.members()).members.some(member => !member.self && member.connected)).toBe(false)
    expect((await ash.client.members()).members).toHaveLength(3)
    await until('the old fir to be told that it was removed', async () => {
      const { removed } = await returned.client.status()
      return ['ash', 'oak', 'fir'].includes(removed?.by ?? '')
    })
    expect(await returned.ask('status')).toMatch(/^REMOVED: this identity was removed from cluster \S+, says/)
    const again = await returned.run('join', await ash.ask('invite'), ...returned.setup)
    expect(again).toMatchObject({ code: 2, err: expect.stringContaining('[NEW_PEER_EXISTS]') })
    await returned.kill()

    const fresh = new Member(dir, 'fir3', elsewhere)
    mkdirSync(fresh.dataDir, { mode: 0o700 })
    copyFileSync(join(dir, 'fir', 'identity.key'), join(fresh.dataDir, 'identity.key'))
    const dead = await fresh.run('join', await ash.ask('invite'), ...fresh.setup)
    expect(dead).toMatchObject({ code: 2, err: expect.stringContaining('[MEMBER_REMOVED]') })
    fir = heir
  })

  it('finds itself again from disk when all peers were stopped, wherever its config names no members', async () => {
    const { version } = await oak.client.members()
    for (const member of [oak, ash, fir]) expect(await member.stop()).toBe(0)
    for (const member of [oak, ash, fir]) {
      expect(readFileSync(member.configFile, 'utf8')).not.toContain('[[members]]')
      await member.start()
    }
    for (const member of [oak, ash, fir]) {
      const status = await member.sees('all others', ({ members }) =>
        members.every(each => each.self || (each.connected && each.liveness === 'alive'))
      )
      expect(status.version).toBeGreaterThanOrEqual(version)
      expect(votersOf(status)).toEqual(['ash', 'fir', 'oak'])
    }
  })

  it('tells the others where a host has moved to', async () => {
    const [elsewhere = ''] = await loopback(1)
    expect(await fir.stop()).toBe(0)
    await oak.ask('members', 'set', 'fir', '--address', elsewhere)
    expect((await oak.member('fir'))?.address).toBe(elsewhere)
    const text = readFileSync(fir.configFile, 'utf8')
    rmSync(fir.configFile)
    appendFileSync(fir.configFile, text.replaceAll(fir.address, elsewhere))
    await fir.start()
    await oak.sees('fir', ({ members }) => members.some(member => member.name === 'fir' && member.connected))
  })

  it('refuses a token that has expired', async () => {
    await until('the invitation to expire', () => Date.now() > early.expiresMs + 1_000)
    await oak.sees('it gone', ({ invites }) => invites.every(invite => invite.expiresMs !== early.expiresMs))
    const late = new Member(dir, 'late', (await loopback(1))[0] ?? '')
    const refused = await late.run('join', early.token, ...late.setup)
    expect(refused).toMatchObject({ code: 2, err: expect.stringMatching(/the token expired at .*\[INVITE_EXPIRED\]/) })
  })

  it('lets hosts leave until the last vote', async () => {
    expect(await fir.ask('leave', '--yes')).toContain('fir has left the cluster')
    expect(await fir.end()).toBe(0)
    expect(await ash.ask('leave', '--yes')).toContain('ash has left the cluster')
    expect(await ash.end()).toBe(0)
    const status = await oak.client.members()
    expect(status).toMatchObject({ members: [{ name: 'oak' }], voters: { count: 1, settled: true }, waits: [] })
    const last = await oak.run('leave', '--yes', '--force', '--config', oak.configFile)
    expect(last).toMatchObject({ code: 2, err: expect.stringContaining('[LAST_VOTER]') })
  })

  it('leaves nothing running when its peers are stopped', async () => {
    expect(await oak.stop()).toBe(0)
    expect(naming(dir).map(each => each.command)).toEqual([])
  })
})

describe('a storage member of a cluster whose configs name its founders', () => {
  let cluster: Cluster

  beforeAll(async () => {
    const detector = { suspicionMinMs: 1_000, suspicionMaxMs: 4_000 }
    cluster = await Cluster.create({ peers: 3, settings: { shards: { k: 1, m: 1 }, detector } })
    for (const peer of cluster.peers) cluster.startPeer(peer)
    await cluster.allConnected(90_000)
  })

  afterAll(async () => {
    await cluster?.stop()
  })

  it('leaves when the next epoch has put elsewhere what the snapshots lean on, and not before', async () => {
    const [p1, p2] = cluster.peers as [ClusterPeer, ClusterPeer]
    const vm = bankVm(await buildGuest(), { index: 1, total: 1, memoryMiB: 128 })
    await p1.client.createGroup({ id: 'bank', vms: [vm], owners: { vm1: 'p1' } })
    const epoch = async (): Promise<void> =>
      until('an epoch', async () => {
        cluster.check()
        return (await p1.client.takeEpoch('bank').catch(() => undefined))?.outcome === 'committed'
      })
    await epoch()
    // The image has two columns, one of them at the VM's own host or not: one of these two has the other.
    const holder = await holderBesides(cluster, p1)
    const leaving = holder.client.leave(false)
    let left = false
    void leaving.then(() => (left = true))
    await until('the leaver to be held back', async () => {
      const { waits } = await p1.client.members()
      return waits.some(({ member, why }) => member === holder.name && why.includes('snapshots need what it stores'))
    })
    expect(left).toBe(false)
    await epoch()
    await leaving
    // Those who stay hear of it a moment later.
    await until('two members', async () => {
      const { members, voters } = await (holder === p2 ? p1 : p2).client.members()
      return members.every(member => member.name !== holder.name) && voters.count === 2
    })
  })
})

/** A peer other than `owner` that stores a part of the image. */
async function holderBesides(cluster: Cluster, owner: ClusterPeer): Promise<ClusterPeer> {
  for (const peer of cluster.peers) {
    if (peer !== owner && (await peer.client.status()).store.streams > 0) return peer
  }
  throw new Error('nobody but the owner stores the image')
}
