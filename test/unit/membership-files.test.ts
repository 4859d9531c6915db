/** The files of a peer that init and join make, and what a peer starts from. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkConfig } from '../../config/parse.ts'
import type { Config } from '../../config/schema.ts'
import { clusterAtStart, readCluster, saveCluster } from '../../node/host/cluster-file.ts'
import { loadConfig } from '../../node/host/config-file.ts'
import { identityFromSeed, loadOrCreateIdentity, signedBy } from '../../node/host/identity.ts'
import { initCluster } from '../../node/host/init.ts'
import { joinCluster } from '../../node/host/join.ts'
import { planNewPeer, writeNewPeer } from '../../node/host/new-peer.ts'
import { readSecret, writeSecret } from '../../node/host/secret.ts'
import { removeMember, removeVoter, setAddress, wishLeave } from '../../protocols/membership/changes.ts'
import { initialRecord } from '../../protocols/membership/genesis.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { encodeToken } from '../../protocols/membership/token.ts'
import { plainBox } from '../sim/world-keys.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-files-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const listen = '/ip4/10.0.0.1/tcp/7400'
const options = (folder: string) => ({ name: 'oak', dataDir: join(dir, folder), listen })
const mode = (path: string): number => statSync(path).mode & 0o777
const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ name: 'UsageError', code, message: expect.stringMatching(message) })

describe('init', () => {
  it('makes a peer that can start: config, identity, secret and a cluster in which it votes alone', async () => {
    const made = await initCluster({ ...options('oak'), cluster: 'forest', configFile: join(dir, 'etc/oak.toml') })
    const config = loadConfig(join(dir, 'etc/oak.toml'))
    expect(config).toMatchObject({ cluster: { name: 'forest' }, peer: { name: 'oak', listen }, members: [] })
    expect(await loadOrCreateIdentity(config.peer.dataDir)).toMatchObject({ peerId: made.id })
    expect(await readSecret(config.cluster.secretFile ?? '')).toHaveLength(32)
    for (const file of ['secret', 'identity.key', 'cluster.json']) expect(mode(join(dir, 'oak', file))).toBe(0o600)
    const record = await clusterAtStart(config, made.id)
    expect(record.members).toEqual([
      expect.objectContaining({ id: made.id, name: 'oak', address: listen, votes: true })
    ])
    const other = await initCluster({ ...options('elm'), cluster: 'forest' })
    expect((await readCluster(join(dir, 'elm')))?.id).not.toBe(record.id)
    expect(readFileSync(join(dir, 'elm/secret'), 'utf8')).not.toBe(readFileSync(join(dir, 'oak/secret'), 'utf8'))
    expect(other.configFile).toBe(join(dir, 'elm/peer.toml'))
  })

  it('writes over nothing, and makes nothing that could not start', async () => {
    await initCluster({ ...options('oak'), cluster: 'forest' })
    const again = initCluster({ ...options('oak'), cluster: 'forest', configFile: join(dir, 'other.toml') })
    await expect(again).rejects.toEqual(refused('NEW_PEER_EXISTS', /cluster.json is there already/))
    expect(existsSync(join(dir, 'other.toml'))).toBe(false)
    const unreachable = initCluster({ ...options('elm'), listen: '/ip4/0.0.0.0/tcp/7400', cluster: 'Forest' })
    await expect(unreachable).rejects.toEqual(
      refused('NEW_PEER_INVALID', /cluster.name: .*\n.*--advertise: expected the address/)
    )
    const strange = initCluster({ ...options('elm'), advertise: 'elm:7400', cluster: 'forest' })
    await expect(strange).rejects.toEqual(refused('NEW_PEER_INVALID', /--advertise: expected an address such as/))
    expect(existsSync(join(dir, 'elm'))).toBe(false)
  })
})

describe('join', () => {
  const seed = new Uint8Array(32).fill(1)
  const members = [{ id: '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5', address: '/ip4/127.0.0.1/tcp/1' }]
  const cluster = { id: '0'.repeat(32), name: 'forest' }
  const silent = { waitsFor: () => {}, tell: () => {} }

  it('says which members it could not reach, and leaves nothing but an identity for the next time', async () => {
    const [asked, told]: [string[], string[]] = [[], []]
    const token = encodeToken({ cluster, seed, expiresMs: 1, members: [...members, ...members] })
    const heard = { waitsFor: (what: string) => void asked.push(what), tell: (text: string) => void told.push(text) }
    const joining = joinCluster({ ...options('oak'), token, ...heard })
    await expect(joining).rejects.toEqual(refused('JOIN_UNREACHABLE', /127.0.0.1/))
    const member = `the member at ${members[0]?.address}`
    expect(asked).toEqual([`${member} is asked`, `${member} is asked`])
    expect(told.map(text => text.startsWith(`${member}: `))).toEqual([true, true])
    expect(existsSync(join(dir, 'oak/identity.key'))).toBe(true)
    for (const file of ['secret', 'cluster.json', 'peer.toml']) expect(existsSync(join(dir, 'oak', file))).toBe(false)
  })

  it('does not touch a peer that is there', async () => {
    await initCluster({ ...options('oak'), cluster: 'forest' })
    const token = encodeToken({ cluster, seed, expiresMs: 1, members })
    await expect(joinCluster({ ...options('oak'), token, ...silent })).rejects.toEqual(
      refused('NEW_PEER_EXISTS', /peer.toml is there/)
    )
    await expect(joinCluster({ ...options('elm'), token: token.slice(1), ...silent })).rejects.toEqual(
      refused('TOKEN_INVALID', /diapause invite/)
    )
  })
})

it('a peer that joins when there are data keys has no secret, neither as a file nor in its config', async () => {
  const peer = await planNewPeer(options('oak'), 'forest')
  const record = initialRecord('0'.repeat(32), 'forest', { id: 'idoak', name: 'oak', address: listen, role: 'storage' })
  await writeNewPeer(peer, { record, secret: undefined, settings: {}, by: 'join' })
  expect(existsSync(join(dir, 'oak/secret'))).toBe(false)
  expect(loadConfig(peer.configFile).cluster).toEqual({ name: 'forest' })
})

describe('what a peer starts from', () => {
  const ids = [
    '12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5',
    '12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq'
  ] as const
  const founders = [
    { name: 'oak', id: ids[0], address: listen },
    { name: 'elm', id: ids[1], address: '/ip4/10.0.0.2/tcp/7400' }
  ]

  function configOf(changed: { name?: string; cluster?: string; members?: typeof founders } = {}): Config {
    const parsed = checkConfig({
      cluster: { name: changed.cluster ?? 'forest', secretFile: '/secret' },
      peer: { name: changed.name ?? 'oak', dataDir: dir, runDir: '/run/oak' },
      members: changed.members ?? founders,
      shards: { k: 1 }
    })
    if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems))
    return parsed.config
  }
  const start = (config: Config, self: string = ids[0]): Promise<ClusterRecord> => clusterAtStart(config, self)

  it('is the list of founders until the cluster changes, and what is in the data folder from then on', async () => {
    const first = await start(configOf())
    await saveCluster(dir, first)
    const mended = founders.map(member => ({ ...member, address: `${member.address}1` }))
    expect((await start(configOf({ members: mended }))).members[0]?.address).toMatch(/74001$/)
    const changed = setAddress(ids[0], '/ip4/10.0.0.9/tcp/7400')(first) as ClusterRecord
    await saveCluster(dir, changed)
    expect(await start(configOf({ members: mended }))).toEqual(changed)
    expect(await start(configOf({ members: [] }))).toEqual(changed)
  })

  it('is refused where there is nothing, and where config and data folder contradict each other', async () => {
    await expect(start(configOf({ members: [] }))).rejects.toEqual(refused('NO_CLUSTER', /init.*join.*\[\[members\]\]/))
    await saveCluster(dir, await start(configOf()))
    await expect(start(configOf({ members: founders.slice(0, 1) }))).rejects.toEqual(
      refused('FOUNDERS_CHANGED', /diapause invite/)
    )
    await expect(start(configOf({ cluster: 'wood' }))).rejects.toEqual(
      refused('DATA_DIR_OTHER_CLUSTER', /"forest".*"wood"/)
    )
    await expect(start(configOf({ name: 'elm' }))).rejects.toEqual(refused('NOT_THIS_MEMBER', /is member "oak"/))
    const strange = start(configOf({ members: [] }), '12D3KooWother')
    await expect(strange).rejects.toEqual(refused('NOT_A_MEMBER', /identity.key/))
  })

  it('is refused to a member that was removed, and to a stranger', async () => {
    await expect(start(configOf(), '12D3KooWother')).rejects.toEqual(refused('NOT_A_MEMBER', /id = "12D3KooWother"/))
    const box = plainBox(ids[1], Math.random)
    const making = { self: ids[1], box, secret: new Uint8Array(32), wallMs: 0, needed: undefined }
    const changes = [wishLeave(ids[0], true), removeVoter(1, ids[0]), removeMember(ids[0], making)]
    let record = await start(configOf())
    for (const change of changes) record = change(record) as ClusterRecord
    await saveCluster(dir, record)
    await expect(start(configOf())).rejects.toEqual(refused('REMOVED', /removed from cluster "forest"/))
  })

  it('is refused where the file is damaged or of another version', async () => {
    const file = join(dir, 'cluster.json')
    for (const text of ['', '{"format":1,"record":{}}', '{"format":1}', 'null']) {
      writeFileSync(file, text)
      await expect(start(configOf())).rejects.toEqual(refused('CLUSTER_FILE', /is damaged/))
    }
    writeFileSync(file, '{"format":4,"record":{}}')
    await expect(start(configOf())).rejects.toEqual(refused('CLUSTER_FILE', /format 4; this one reads 1, 2, 3/))
  })
})

describe('the secret', () => {
  it('is refused where others may read it, and where it is none', async () => {
    const file = join(dir, 'secret')
    await writeSecret(file, new Uint8Array(32).fill(5))
    expect(mode(file)).toBe(0o600)
    expect(await readSecret(file)).toEqual(new Uint8Array(32).fill(5))
    for (const exposed of [0o640, 0o604]) {
      chmodSync(file, exposed)
      await expect(readSecret(file)).rejects.toEqual(refused('SECRET_EXPOSED', /chmod 600/))
    }
    chmodSync(file, 0o600)
    writeFileSync(file, 'swordfish')
    await expect(readSecret(file)).rejects.toEqual(refused('SECRET_INVALID', /openssl rand -hex 32/))
    mkdirSync(join(dir, 'folder'), { mode: 0o700 })
    await expect(readSecret(join(dir, 'folder'))).rejects.toEqual(refused('SECRET_UNREADABLE', /folder/))
  })
})

describe('keys', () => {
  it('of invitations follow from the seed, and signatures tell who made them', async () => {
    const seed = new Uint8Array(32).fill(9)
    const invite = await identityFromSeed(seed)
    expect((await identityFromSeed(seed)).peerId).toBe(invite.peerId)
    const bytes = new TextEncoder().encode('join')
    const signature = await invite.privateKey.sign(bytes)
    expect(await signedBy(invite.peerId, bytes, signature)).toBe(true)
    const other = await identityFromSeed(new Uint8Array(32).fill(8))
    expect(await signedBy(other.peerId, bytes, signature)).toBe(false)
    expect(await signedBy(invite.peerId, bytes.subarray(1), signature)).toBe(false)
    expect(await signedBy(invite.peerId, bytes, signature.subarray(1))).toBe(false)
    expect(await signedBy('nobody', bytes, signature)).toBe(false)
  })
})
