/** Hosts that do not reach each other, both ways or one way; all links stay up, as with a broken switch beyond. */
import type { Host, Hosts } from '../../hosts/hosts.ts'
import { all, type Fault, type Heal, type Target } from '../fault.ts'

const LASTS = { leastMs: 1_000, mostMs: 20_000 } as const
const PARTITION = { as: 'partitions', of: () => 1 } as const

export const cutOff: Fault = {
  name: 'cut-off',
  about: 'it reaches nobody, and nobody it',
  lasts: LASTS,
  reach: 'one',
  links: true,
  counts: PARTITION,
  begin: async ({ host, hosts }) => hosts.cutOff(host)
}

/** It hears all others, who do not hear it. */
export const mute: Fault = {
  name: 'mute',
  about: 'what it sends is lost, what others send to it is not',
  lasts: LASTS,
  reach: 'one',
  links: true,
  counts: PARTITION,
  begin: target => blockAll(target.hosts, [[target.host]], [target.others.map(({ host }) => host)])
}

/** It is heard by all others, and hears none. */
export const deaf: Fault = {
  name: 'deaf',
  about: 'what others send to it is lost, what it sends is not',
  lasts: LASTS,
  reach: 'one',
  links: true,
  counts: PARTITION,
  begin: target => blockAll(target.hosts, [target.others.map(({ host }) => host)], [[target.host]])
}

/** The target and a random half of the others (rounded down) on one side: of an even number no side has a majority. */
export const partition: Fault = {
  name: 'partition',
  about: 'it and half of the others do not reach the rest',
  lasts: LASTS,
  reach: 'many',
  links: true,
  counts: PARTITION,
  begin(target) {
    const [left, right] = halves(target, Math.floor(target.others.length / 2))
    return blockAll(target.hosts, [left, right], [right, left])
  }
}

/** The target reaches everybody, and the two halves of the others only it (Jepsen's bridge). */
export const bridge: Fault = {
  name: 'bridge',
  about: 'all others are two halves that reach it and not each other',
  lasts: LASTS,
  reach: 'many',
  links: true,
  counts: PARTITION,
  begin(target) {
    const [, right] = halves(target, Math.floor(target.others.length / 2))
    const left = target.others.map(({ host }) => host).filter(host => !right.includes(host))
    return blockAll(target.hosts, [left, right], [right, left])
  }
}

/** Those with the target (`besides` others), and the rest: drawn. */
function halves(target: Target, besides: number): [Host[], Host[]] {
  const shuffled = target.others
    .map(({ host }) => ({ host, order: target.random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ host }) => host)
  return [[target.host, ...shuffled.slice(0, besides)], shuffled.slice(besides)]
}

/** What hosts of `from[i]` send to those of `to[i]` is lost. */
async function blockAll(hosts: Hosts, from: readonly Host[][], to: readonly Host[][]): Promise<Heal> {
  const heals: Heal[] = []
  for (const [i, senders] of from.entries())
    for (const one of senders) for (const other of to[i] ?? []) heals.push(await hosts.block(one, other))
  return all(heals)
}
