import { mkdtempSync, renameSync, rmSync, statSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { apiSocketPath, serveApi } from '../../node/edge/api.ts'
import type { ApiServer } from '../../node/edge/api.ts'
import { ApiClient } from '../../node/edge/client.ts'
import type { ClusterStatus, ClusterView } from '../../node/edge/cluster-view.ts'
import { EventFeed, type PeerEvent } from '../../node/edge/events.ts'
import { MAX_BODY_BYTES } from '../../node/edge/routing.ts'
import { Metrics } from '../../node/edge/metrics.ts'
import type { GroupRequest, PeerStatus, PeerView } from '../../node/edge/view.ts'
import { DiapauseError, UsageError } from '../../node/errors.ts'
import type { Log } from '../../node/ports.ts'
import { MAX_AGO_MS, type Story, type WhyQuestion } from '../../protocols/decisions/merge.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aStatus, member } from './status-support.ts'

const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} }
const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }

const clusterStatus: ClusterStatus = {
  id: '0'.repeat(32),
  name: 'c',
  version: 3,
  voters: { version: 2, settled: true, count: 1, tolerates: 0 },
  code: { k: 3, m: 2, storage: 2, tolerates: 0, domains: [] },
  members: [{ ...member('one'), self: true, wantsVote: true, leaving: false }],
  invites: [{ role: 'witness', votes: true, expiresMs: 1 }],
  waits: [{ member: 'one', why: 'it is late' }]
}

const keysStatus = { cluster: 'c', opens: true, keys: [{ id: 0 }], holders: ['one'], lacking: [] }

/** A peer of which only the edge is real. */
class FakePeer implements PeerView {
  now = 0
  readonly events = new EventFeed(() => this.now++ + 0.5)
  readonly made = new Map<string, GroupRecord>()
  readonly typed: string[] = []
  readonly asked: WhyQuestion[] = []
  readonly wishes: unknown[] = []
  readonly images = {} as PeerView['images']
  readonly home = {} as PeerView['home']
  readonly redundancy = {} as PeerView['redundancy']
  readonly epochs = {} as PeerView['epochs']
  readonly rest = {} as PeerView['rest']
  readonly drills = {} as PeerView['drills']
  readonly plans = {} as PeerView['plans']
  readonly policies = {} as PeerView['policies']
  readonly tokens = {} as PeerView['tokens']
  readonly notifications = {} as PeerView['notifications']
  readonly logging = {} as PeerView['logging']
  readonly metrics = new Metrics(() => true)
  readonly reads = {} as PeerView['reads']
  readonly cluster: ClusterView = {
    status: async () => clusterStatus,
    invite: async request => {
      this.wishes.push(request)
      return { token: 'token', expiresMs: 1 }
    },
    withdrawInvite: async id => {
      if (id !== 'xYz123') throw new UsageError('INVITE_UNKNOWN', 'there is none')
      this.wishes.push(['withdraw', id])
    },
    setMember: async (member, wish) => void this.wishes.push([member, wish]),
    removeMember: async (member, force) => {
      if (member === 'one') throw new UsageError('LAST_VOTER', 'it has the only vote')
      this.wishes.push([member, force])
    },
    leave: async force => void this.wishes.push(force),
    keys: async () => keysStatus,
    rotateKeys: async () => {
      this.wishes.push('rotate')
      return keysStatus
    }
  }
  failure: Error | undefined

  async status(): Promise<PeerStatus> {
    if (this.failure !== undefined) throw this.failure
    return aStatus
  }

  groups(): GroupRecord[] {
    return [...this.made.values()]
  }

  async createGroup({ id, vms, owners }: GroupRequest): Promise<GroupRecord> {
    if (this.made.has(id)) throw new DiapauseError('GROUP_EXISTS', `there is a group ${id}`)
    const numbers = { version: 1, generation: 1, lastEpoch: 0 }
    const record = { id, vms, owners, ...numbers, open: null, committed: null, removed: false }
    this.made.set(id, record)
    return record
  }

  async removeGroup(id: string): Promise<void> {
    if (!this.made.delete(id)) throw new DiapauseError('GROUP_UNKNOWN', `there is no group ${id}`, { details: { id } })
  }

  async takeEpoch(group: string) {
    if (!this.made.has(group)) throw new DiapauseError('GROUP_UNKNOWN', `there is no group ${group}`)
    return { epoch: 1, outcome: 'aborted', reason: 'too slow' } as const
  }

  readonly consoles: PeerView['consoles'] = {
    type: async (group, name, text) => void this.typed.push(`${group}/${name}: ${text}`),
    read: async function* ({ group, vm, history }) {
      if (group !== 'g') throw new DiapauseError('GROUP_UNKNOWN', `there is no group ${group}`)
      yield { host: 'one' }
      yield { data: Buffer.from(`${vm} ${history}`).toString('base64') }
    }
  }

  async why(question: WhyQuestion): Promise<Story> {
    const { group, vm: id } = question
    if (!this.made.has(group)) throw new DiapauseError('GROUP_UNKNOWN', `there is no group ${group}`)
    this.asked.push(question)
    const about = { group, vm: id, by: 'id-one', nowMs: 1, names: {}, record: null }
    return { ...about, told: [], tellers: [], silent: [] }
  }
}

let runDir: string
let peer: FakePeer
let server: ApiServer
let client: ApiClient

beforeEach(async () => {
  runDir = mkdtempSync(join(tmpdir(), 'diapause-api-'))
  peer = new FakePeer()
  server = await serveApi({ view: peer, runDir, log: quiet })
  client = new ApiClient(server.socketPath)
})

afterEach(async () => {
  await server.close()
  rmSync(runDir, { recursive: true })
})

/** A request that the client would never send. */
function raw(method: string, path: string, body?: string): Promise<{ status: number; error: unknown }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath: server.socketPath, method, path, agent: false }, response => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => (text += part))
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, ...(JSON.parse(text) as { error: unknown }) })
      )
    })
    request.on('error', reject)
    request.end(body)
  })
}

describe('the local API', () => {
  it('can be opened by its own user only', () => {
    expect(statSync(server.socketPath).mode & 0o777).toBe(0o600)
  })

  it('tells the status of the peer', async () => {
    expect(await client.status()).toEqual(aStatus)
  })

  it('tells metrics in the format of Prometheus', async () => {
    const text = await new Promise<string>((resolve, reject) => {
      const request = httpRequest({ socketPath: server.socketPath, path: '/metrics', agent: false }, response => {
        expect(response.headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/)
        let all = ''
        response.setEncoding('utf8').on('data', (part: string) => (all += part))
        response.on('end', () => resolve(all))
      })
      request.on('error', reject)
      request.end()
    })
    expect(text).toContain('\ndiapause_members{liveness="alive"} 3\n')
  })

  it('makes a group whose owners are named by name or id, lists it, and removes it', async () => {
    const vm2 = { ...vm, id: 'vm2', mac: '52:54:00:00:00:02' }
    const record = await client.createGroup({ id: 'g', vms: [vm, vm2], owners: { vm1: 'two', vm2: 'id-one' } })
    expect(record.owners).toEqual({ vm1: 'id-two', vm2: 'id-one' })
    expect(await client.groups()).toEqual([record])
    await expect(client.createGroup({ id: 'g', vms: [vm] })).rejects.toMatchObject({ code: 'GROUP_EXISTS' })
    await client.removeGroup('g')
    expect(await client.groups()).toEqual([])
  })

  it('names every error of a wrong group at once', async () => {
    const wrong = { ...vm, memoryMiB: '64', mac: 'no' }
    await expect(client.createGroup({ id: 'g', vms: [wrong], owner: {} })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'GROUP_INVALID',
      details: {
        problems: [
          {
            key: 'vms[0].mac',
            expected: 'a unicast MAC address, lower case with colons, such as "52:54:00:00:00:01"',
            found: '"no"'
          },
          { key: 'vms[0].memoryMiB', expected: 'a whole number from 16 to 1048576', found: '"64"' },
          { key: 'owner', expected: 'a known key; did you mean owners?', found: 'an unknown key' }
        ]
      }
    })
    const { mac, ...rest } = vm
    const nic = { mac, network: 'lan' }
    const cards = { id: 'g', vms: [vm, { ...rest, id: 'vm2', nics: [nic, nic] }, { ...vm, id: 'vm3', nics: [nic] }] }
    await expect(client.createGroup(cards)).rejects.toMatchObject({
      details: {
        problems: [
          {
            key: 'vms[1].nics[1].network',
            expected: 'a network of its own: two NICs are on "lan"',
            found: '"lan"'
          },
          { key: 'vms[2]', expected: 'a VM with either mac or nics', found: 'a table' }
        ]
      }
    })
    const shared = { id: 'g', vms: [vm, { ...rest, id: 'vm2', nics: [nic] }] }
    await expect(client.createGroup(shared)).rejects.toThrow(`vms[1].nics[0].mac: expected one that no other VM has`)
    const twice = { id: 'g', vms: [vm, vm], owners: { vm1: 'wit', vm3: 'three' } }
    const refused = client.createGroup(twice)
    await expect(refused).rejects.toThrow('vms[1].mac: expected one that no other VM has, found "52:54:00:00:00:01"')
    await expect(refused).rejects.toThrow('owners.vm1: expected a storage member (one, two), found the witness "wit"')
    await expect(refused).rejects.toThrow('owners.vm3: expected the id of a VM of the group, found "vm3"')
  })

  it('takes an epoch and tells what became of it', async () => {
    await client.createGroup({ id: 'g', vms: [vm] })
    expect(await client.takeEpoch('g')).toEqual({ epoch: 1, outcome: 'aborted', reason: 'too slow' })
    await expect(client.takeEpoch('h')).rejects.toMatchObject({ name: 'UsageError', code: 'GROUP_UNKNOWN' })
  })

  it('types on the console of a VM, whatever characters its name has', async () => {
    await client.typeConsole('g/1', 'vm ä', 'hello\n')
    expect(peer.typed).toEqual(['g/1/vm ä: hello\n'])
    expect(await raw('POST', '/v1/groups/g/vms/v/console', '{"text": 3}')).toMatchObject({ status: 400 })
    const lines: unknown[] = []
    const wish = { group: 'g', vm: 'v', history: 7, follow: false }
    for await (const line of client.console(wish, new AbortController().signal)) lines.push(line)
    expect(lines).toEqual([{ host: 'one' }, { data: Buffer.from('v 7').toString('base64') }])
    expect(await raw('GET', '/v1/groups/h/vms/v/console')).toMatchObject({ status: 404 })
    expect(await raw('GET', '/v1/groups/g/vms/v/console?history=-1')).toMatchObject({ status: 400 })
    expect(await raw('POST', '/v1/groups/%zz/vms/v/console', '{}')).toMatchObject({ status: 400 })
  })

  it('tells why a VM is where it is, as far back as asked, and of this peer only where asked', async () => {
    await client.createGroup({ id: 'g', vms: [vm] })
    const all = { group: 'g', vm: 'vm1', agoMs: MAX_AGO_MS, here: false }
    const little = { group: 'g', vm: 'vm1', agoMs: 600_000, here: true }
    expect(await client.why(all)).toMatchObject({ group: 'g', vm: 'vm1', told: [] })
    await client.why(little)
    await raw('GET', '/v1/groups/g/vms/vm1/why')
    expect(peer.asked).toEqual([all, little, all])
    for (const wrong of ['/v1/groups/g/vms/vm1/why?agoMs=soon', '/v1/groups/g%2F/vms/vm1/why']) {
      expect(await raw('GET', wrong)).toMatchObject({ status: 400, error: { code: 'API_BAD_REQUEST' } })
    }
    await expect(client.why({ ...all, group: 'h' })).rejects.toMatchObject({ code: 'GROUP_UNKNOWN' })
  })

  it('answers errors with a code and a status that fits', async () => {
    expect(await raw('GET', '/v2/status')).toMatchObject({ status: 404, error: { code: 'API_NOT_FOUND' } })
    expect(await raw('PUT', '/v1/groups')).toMatchObject({ status: 405, error: { code: 'API_METHOD' } })
    expect(await raw('POST', '/v1/groups', '{')).toMatchObject({ status: 400, error: { code: 'API_BAD_REQUEST' } })
    expect(await raw('DELETE', '/v1/groups/x')).toMatchObject({ status: 404, error: { details: { id: 'x' } } })
    peer.failure = new DiapauseError('REGISTER_UNAVAILABLE', 'no majority')
    expect(await raw('GET', '/v1/status')).toMatchObject({ status: 503 })
    peer.failure = new TypeError('a mistake of ours')
    expect(await raw('GET', '/v1/status')).toMatchObject({
      status: 500,
      error: { code: 'INTERNAL', todo: expect.stringContaining('report it') as string }
    })
    await expect(client.status()).rejects.toMatchObject({ name: 'DiapauseError', message: 'a mistake of ours' })
  })

  it('refuses a body that is too large, and goes on', async () => {
    const reply = await raw('POST', '/v1/groups', ' '.repeat(MAX_BODY_BYTES + 1))
    expect(reply).toMatchObject({ status: 413, error: { code: 'API_BODY_TOO_LARGE' } })
    expect(await raw('POST', '/v1/groups', ' '.repeat(MAX_BODY_BYTES))).toMatchObject({ status: 400 })
    expect((await client.status()).name).toBe('one')
  })

  it('goes on after a client that speaks no HTTP or leaves in the middle', async () => {
    await new Promise<void>(resolve => {
      const socket = connect(server.socketPath, () => socket.end('\u0000\u0001 no HTTP\r\n\r\n'))
      socket.resume().on('close', () => resolve())
    })
    const leaving = new AbortController()
    const events = client.events({ follow: true, signal: leaving.signal })
    peer.events.emit('a')
    await events.next()
    leaving.abort()
    peer.events.emit('b')
    expect((await client.status()).name).toBe('one')
  })
})

describe('the members over the API', () => {
  it('are shown, invited with what was left out, set, removed and left', async () => {
    expect(await client.members()).toEqual(clusterStatus)
    expect(await client.invite({ role: 'witness', replaces: 'two' })).toEqual({ token: 'token', expiresMs: 1 })
    await client.withdrawInvite('xYz123')
    await client.setMember('t w/o', { votes: false })
    await client.removeMember('two', true)
    await client.removeMember('two', false)
    await client.leave(false)
    expect(peer.wishes).toEqual([
      { role: 'witness', votes: true, replaces: 'two', expiresMinutes: 60 },
      ['withdraw', 'xYz123'],
      ['t w/o', { votes: false }],
      ['two', true],
      ['two', false],
      false
    ])
  })

  it('are not touched by requests that are wrong, and refusals keep their codes', async () => {
    await expect(client.invite({ role: 'king', expiresMinutes: 0 })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'MEMBER_REQUEST',
      message:
        'role: expected one of "storage", "witness", found "king"\nexpiresMinutes: expected a whole number from 1 to 10080, found 0'
    })
    expect(await raw('PATCH', '/v1/members/two', '{"votes": "yes"}')).toMatchObject({ status: 400 })
    expect(await raw('POST', '/v1/leave', '[]')).toMatchObject({ status: 400 })
    expect(peer.wishes).toEqual([])
    expect(await raw('DELETE', '/v1/invites/other')).toMatchObject({ status: 404, error: { code: 'INVITE_UNKNOWN' } })
    expect(await raw('DELETE', '/v1/members/one')).toMatchObject({ status: 409, error: { code: 'LAST_VOTER' } })
  })
})

describe('the event stream', () => {
  it('gives what was kept, oldest first, and ends', async () => {
    for (let at = 0; at < 1_003; at++) peer.events.emit('tick', { at })
    const seen: PeerEvent[] = []
    for await (const event of client.events()) seen.push(event)
    expect(seen).toHaveLength(1_000)
    expect(seen[0]).toEqual({ atMs: 3.5, kind: 'tick', at: 3 })
    expect(seen.at(-1)).toEqual({ atMs: 1_002.5, kind: 'tick', at: 1_002 })
  })

  it('goes on with follow until the server closes', async () => {
    peer.events.emit('before')
    const kinds: string[] = []
    for await (const event of client.events({ follow: true })) {
      kinds.push(event.kind)
      if (event.kind === 'before') peer.events.emit('after')
      if (event.kind === 'after') void server.close()
    }
    expect(kinds).toEqual(['before', 'after'])
  })

  it('sends away a reader that is too slow, instead of keeping what it has not read', async () => {
    const socket = connect(server.socketPath)
    socket.write('GET /v1/events?follow=1 HTTP/1.1\r\nhost: peer\r\nconnection: close\r\n\r\n')
    await new Promise(resolve => socket.once('data', resolve))
    socket.pause()
    const big = 'x'.repeat(100_000)
    for (let at = 0; at < 100; at++) {
      peer.events.emit('big', { big })
      await new Promise(resolve => setImmediate(resolve))
    }
    let text = ''
    socket.setEncoding('utf8').on('data', (part: string) => (text += part))
    socket.resume()
    await new Promise(resolve => socket.on('end', resolve))
    socket.destroy()
    expect(text).toContain('"kind":"events.overrun"')
    expect(text.length).toBeLessThan(5_000_000)
  })
})

describe('the socket of the API', () => {
  it('is taken over from a peer that was killed', async () => {
    renameSync(server.socketPath, join(runDir, 'left'))
    await server.close()
    renameSync(join(runDir, 'left'), server.socketPath)
    await expect(client.status()).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' })
    server = await serveApi({ view: peer, runDir, log: quiet })
    expect((await client.status()).name).toBe('one')
  })

  it('is never taken from a peer that lives', async () => {
    const again = serveApi({ view: peer, runDir, log: quiet })
    await expect(again).rejects.toMatchObject({ name: 'UsageError', code: 'API_SOCKET_IN_USE' })
    expect((await client.status()).name).toBe('one')
  })

  it('is gone after close, and the client says so', async () => {
    await server.close()
    await expect(client.status()).rejects.toMatchObject({ name: 'UsageError', code: 'PEER_UNREACHABLE' })
    expect(server.socketPath).toBe(apiSocketPath(runDir))
    server = await serveApi({ view: peer, runDir, log: quiet })
  })
})
