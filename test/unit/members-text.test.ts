import { describe, expect, it } from 'vitest'
import type { ClusterMember, ClusterStatus } from '../../node/edge/cluster-view.ts'
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
    { role: 'witness', votes: true, replaces: 'ash', expiresMs: 0 },
    { role: 'storage', votes: false, expiresMs: 1, usedBy: 'fir' }
  ],
  waits: [{ member: 'elm', why: 'it owns VMs' }]
}

describe('the members for people', () => {
  it('are a table, what may be lost, open invitations, and what the cluster waits for', () => {
    expect(membersText(status).split('\n')).toEqual([
      'cluster forest: 4 members, record 12, voters 4 (being settled)',
      '  member  role     vote         liveness        connected    address',
      '  oak     storage  yes          alive           (this peer)  /ip4/10.0.0.1/tcp/111',
      '  elm     storage  yes, to go   alive, leaving  yes          /ip4/10.0.0.1/tcp/101',
      '  ash     witness  no, to come  dead            no           /ip4/10.0.0.1/tcp/97',
      '  fir     storage  no           alive           yes          /ip4/10.0.0.1/tcp/102',
      'votes: 3, of which any 1 may fail and the others still decide',
      'new snapshots (k = 3, m = 2): none of 2 storage members may vanish',
      'invited: a witness with a vote for ash, until 1970-01-01T00:00:00.000Z',
      'waiting: elm: it owns VMs'
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
