import { describe, expect, it } from 'vitest'
import { Keepers } from '../../node/agents/keepers.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { keeperOf, type Seen } from '../../protocols/keeper.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { generator } from '../sim/kernel.ts'

const PEERS = ['p1', 'p2', 'p3', 'p4', 'p5', 'p6']
const groupOf = (id: string, owners: readonly string[], resting?: true): GroupRecord =>
  ({
    id,
    vms: owners.map((_, i) => ({ id: `vm${i}` })),
    owners: Object.fromEntries(owners.map((owner, i) => [`vm${i}`, owner])),
    ...(resting && { resting })
  }) as unknown as GroupRecord

/** As it is written down in README: one after the other is asked, and nothing is computed. */
function plainly(group: GroupRecord, { alive, hosts }: Seen, order: readonly string[]): string | undefined {
  for (const { id } of group.vms) if (alive.includes(group.owners[id] ?? '')) return group.owners[id]
  if (!group.resting) return undefined
  for (const peer of order) if (alive.includes(peer) && hosts.includes(peer)) return peer
  return undefined
}

/** The order in which hosts take a group over that rests, found by letting one after the other die. */
function orderOf(group: GroupRecord): string[] {
  const order: string[] = []
  for (const _ of PEERS) {
    const alive = PEERS.filter(peer => !order.includes(peer))
    order.push(keeperOf({ ...group, owners: {} }, { alive, hosts: PEERS }) ?? 'nobody')
  }
  return order
}

const someOf = (random: () => number): string[] => PEERS.filter(() => random() < 0.5)
const shuffled = (peers: readonly string[], random: () => number): string[] =>
  peers
    .map(peer => ({ peer, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ peer }) => peer)

describe('the keeper of a group', () => {
  it('is as the plain version has it, whoever lives, whoever stores, and in whichever order they are named', () => {
    for (let seed = 1; seed <= 500; seed++) {
      const random = generator(seed)
      const owners = Array.from({ length: Math.floor(random() * 4) }, () => PEERS[Math.floor(random() * 6)] ?? '')
      const group = groupOf(`g${seed % 7}`, owners, random() < 0.5 ? true : undefined)
      const seen = { alive: someOf(random), hosts: someOf(random) }
      const expected = plainly(group, seen, orderOf(group))
      expect([seed, keeperOf(group, seen)]).toEqual([seed, expected])
      const otherwise = { alive: shuffled(seen.alive, random), hosts: shuffled(seen.hosts, random) }
      expect([seed, keeperOf(group, otherwise)]).toEqual([seed, expected])
    }
  })

  it('is another for few groups when a host dies that none of them ran on, and groups are spread over all', () => {
    const groups = Array.from({ length: 300 }, (_, i) => groupOf(`g${i}`, ['gone'], true))
    const kept = (hosts: readonly string[]) => groups.map(group => keeperOf(group, { alive: hosts, hosts }))
    const before = kept(PEERS)
    const after = kept(PEERS.filter(peer => peer !== 'p3'))
    expect(after.filter((peer, i) => peer !== before[i]).length).toBe(before.filter(peer => peer === 'p3').length)
    for (const peer of PEERS) expect(before.filter(each => each === peer).length).toBeGreaterThan(20)
  })
})

describe('who keeps what, as a peer sees it', () => {
  const founders = PEERS.slice(0, 3).map(
    id => ({ id, name: id, address: '/ip4/127.0.0.1/tcp/1', role: 'storage' }) as const
  )

  function world(self: string, group: GroupRecord) {
    const state = { alive: ['p1', 'p2', 'p3'], cluster: foundersRecord('forest', founders) }
    const asked: { again(): void }[] = []
    const keepers = new Keepers({
      self,
      directory: { all: () => [group], onRecord: handler => void asked.push({ again: () => handler(group) }) },
      detector: {
        alive: () => state.alive,
        onChange: handler => void asked.push({ again: () => handler('p1', 'dead', '') })
      },
      membership: {
        record: () => state.cluster,
        onChange: handler => void asked.push({ again: () => handler(state.cluster, state.cluster) })
      }
    })
    return { state, keepers, asked }
  }

  it('moves on when the owner dies, and back when it is back', () => {
    const group = groupOf('shop', ['p1', 'p2'], true)
    const { state, keepers } = world('p2', group)
    expect([keepers.of(group), keepers.isOurs(group)]).toEqual(['p1', false])
    state.alive = ['p2', 'p3']
    expect([keepers.of(group), keepers.isOurs(group)]).toEqual(['p2', true])
    state.alive = ['p1', 'p2', 'p3']
    expect(keepers.isOurs(group)).toBe(false)
  })

  it('is no member that was removed or is a witness, but one that leaves while it lives', () => {
    const group = groupOf('shop', ['p1'], true)
    const { state, keepers } = world('p2', group)
    const { cluster } = state
    const change = (id: string, more: object) => ({
      ...cluster,
      members: cluster.members.map(member => (member.id === id ? { ...member, ...more } : member))
    })
    state.cluster = change('p1', { leaving: true })
    expect(keepers.of(group)).toBe('p1')
    state.cluster = { ...cluster, members: cluster.members.filter(({ id }) => id !== 'p1') }
    expect(['p2', 'p3']).toContain(keepers.of(group))
    state.alive = ['p2', 'p3']
    for (const more of [{ role: 'witness' }, { leaving: true }]) {
      state.cluster = change('p2', more)
      expect(keepers.of(group)).toBe('p3')
    }
  })

  it('is nobody else for a peer that reaches no majority: the others are not dead because it does not hear them', () => {
    const group = groupOf('shop', ['p1', 'p2'], true)
    const { state, keepers } = world('p2', group)
    state.alive = ['p2']
    expect(keepers.of(group)).toBe('p1')
  })

  it('is asked for again at each record, and when members die or come', () => {
    const group = groupOf('shop', ['p1'])
    const { keepers, asked } = world('p2', group)
    let times = 0
    keepers.follow(() => times++)
    expect([times, asked.length]).toEqual([1, 3])
    for (const { again } of asked) again()
    expect(times).toBe(4)
  })
})
