import { describe, expect, it } from 'vitest'
import type { ClusterMember, ClusterStatus } from '../../node/edge/cluster-view.ts'
import { statusText } from '../../node/edge/format.ts'
import type { PeerStatus } from '../../node/edge/view.ts'
import { aGroup, aVm } from './group-records.ts'
import { aStatus } from './status-support.ts'
import { membersText, progressText } from '../../node/edge/format-members.ts'

const member = (name: string, fields: Partial<ClusterMember> = {}): ClusterMember => ({
  name,
  id: `id${name}`,
  address: `/ip4/10.0.0.1/tcp/${name.charCodeAt(0)}`,
  role: 'storage',
  self: name === 'oak',
  votes: true,
  wantsVote: true,
  leaving: false,
  liveness: 'alive',
  connected: true,
  ...fields
})

const status: ClusterStatus = {
  id: '0'.repeat(32),
  name: 'forest',
  version: 12,
  voters: { version: 4, settled: false, count: 3, tolerates: 1 },
  code: { k: 3, m: 2, storage: 2, tolerates: 0, domains: [] },
  members: [
    member('oak'),
    member('elm', { wantsVote: false, leaving: true }),
    member('ash', { role: 'witness', votes: false, liveness: 'dead', connected: false }),
    member('fir', { votes: false, wantsVote: false })
  ],
  invites: [
    { id: 'xYz123', role: 'witness', votes: true, replaces: 'ash', expiresMs: 0 },
    { role: 'storage', votes: false, expiresMs: 1, usedBy: 'fir' }
  ],
  waits: [{ member: 'elm', why: 'it owns VMs' }]
}

describe('the status of a peer', () => {
  const two = member('two')
  const dead = { ...two, liveness: 'dead' as const }
  const record = aGroup({ id: 'bank', vms: [aVm('a'), aVm('b')], owners: { a: 'id-one', b: 'id-two' } })
  const groups = [{ record, running: [], captures: {}, leaseRemainingMs: 0 }]
  const first = (more: Partial<PeerStatus>): string[] =>
    statusText({ ...aStatus, groups, ...more })
      .split('\n')
      .slice(0, 2)

  it('begins with what is wrong: no majority, and groups that are down', () => {
    const [one, , witness] = aStatus.members
    const members = [one, { ...dead, id: 'id-two' }, { ...witness, liveness: 'dead' }] as PeerStatus['members']
    expect(first({ members })).toEqual([
      'NO MAJORITY: of 3 voters 1 lives, so nothing is decided and no VM runs here until more do',
      'DOWN: group bank: hosts of VMs are dead: b (two)'
    ])
    expect(first({ members: members.with(2, witness as ClusterMember) })[0]).toMatch(/^DOWN: group bank/)
    const resting = [{ ...groups[0], record: { ...record, resting: true } }] as PeerStatus['groups']
    expect(first({ members, groups: resting })[1]).toMatch(/^peer one/)
    expect(first({})[0]).toMatch(/^peer one/)
  })
})

describe('the members for people', () => {
  it('are a table, what may be lost, open invitations, and what the cluster waits for', () => {
    expect(membersText(status).split('\n')).toEqual([
      'cluster forest: 4 members, voter set version 4 (being settled)',
      '  member  role     vote         liveness        connected    address',
      '  oak     storage  yes          alive           (this peer)  /ip4/10.0.0.1/tcp/111',
      '  elm     storage  yes, to go   alive, leaving  yes          /ip4/10.0.0.1/tcp/101',
      '  ash     witness  no, to come  dead            no           /ip4/10.0.0.1/tcp/97',
      '  fir     storage  no           alive           yes          /ip4/10.0.0.1/tcp/102',
      'votes: 3, of which any 1 may fail and the others still decide',
      'new snapshots (k = 3, m = 2): none of 2 storage members may vanish',
      'invited xYz123: a witness with a vote for ash, until 1970-01-01T00:00:00.000Z',
      'waiting: elm: it owns VMs'
    ])
  })

  it('count those who live where some are dead: what may still be lost is less, or nothing is decided any more', () => {
    const line = (voters: Partial<ClusterStatus['voters']>, live: number): string[] =>
      membersText({
        ...status,
        voters: { ...status.voters, ...voters },
        code: { ...status.code, storage: 3, live, tolerates: 0 }
      })
        .split('\n')
        .filter(text => /^(?:votes|new)/.test(text))
    expect(line({ live: 2, tolerates: 0 }, 2)).toEqual([
      'votes: 3, of which 2 live: none more may fail',
      'new snapshots (k = 3, m = 2): 3 storage members, of which 2 live: none more may vanish'
    ])
    expect(line({ live: 1, tolerates: 0 }, 1)).toEqual([
      'votes: 3, of which 1 lives: NO MAJORITY, nothing is decided',
      'new snapshots (k = 3, m = 2): 3 storage members, of which 1 lives: none more may vanish'
    ])
    expect(line({ count: 5, live: 4, tolerates: 1 }, 3)[0]).toBe(
      'votes: 5, of which 4 live: any 1 more may fail and the others still decide'
    )
    expect(line({ live: 3 }, 3)).toEqual([
      'votes: 3, of which any 1 may fail and the others still decide',
      'new snapshots (k = 3, m = 2): none of 3 storage members may vanish'
    ])
  })

  it('say where they stand and what may be lost there, as soon as somebody has said so', () => {
    const placed = {
      ...status,
      members: [member('oak', { labels: { site: 's', rack: 'r1', host: 'h' } }), member('elm', { freeBytes: 0 })]
    }
    const lines = membersText(placed).split('\n')
    expect(lines[1]).toMatch(/ {2}place$/)
    expect(lines[2]).toMatch(/ {2}s\/r1\/h$/)
    expect(lines[3]).toMatch(/ {2}full$/)
    const bears = (...domains: ClusterStatus['code']['domains']): string | undefined =>
      membersText({ ...status, code: { k: 3, m: 2, storage: 6, tolerates: 2, domains } })
        .split('\n')
        .find(line => line.startsWith('new snapshots'))
    expect(bears({ level: 'rack', tolerates: 1, alone: ['r1', 'r2'] })).toBe(
      'new snapshots (k = 3, m = 2): any 2 of 6 storage members may vanish, or any rack'
    )
    expect(
      bears(
        { level: 'site', tolerates: 0, alone: [] },
        { level: 'rack', tolerates: 0, alone: ['s/r1', 's/r2'] },
        { level: 'host', tolerates: 2, alone: [] }
      )
    ).toBe(
      'new snapshots (k = 3, m = 2): any 2 of 6 storage members may vanish, or rack s/r1 or s/r2 alone, or any 2 hosts, but no whole site'
    )
  })

  it('have a progress: what this member waits for, else what is being done', () => {
    expect(progressText(status, 'elm')).toBe('waiting: elm: it owns VMs')
    expect(progressText(status, 'idelm')).toBe('waiting: elm: it owns VMs')
    expect(progressText(status, 'ash')).toBe('version 4 of the voters is settled')
    expect(progressText({ ...status, voters: { ...status.voters, settled: true } }, 'ash')).toBe('the cluster is told')
  })
})
