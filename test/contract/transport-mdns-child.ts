/**
 * Peers with mDNS, each with its own list of members, until those that should be linked are; then prints their counters
 * and warnings. Arguments: JSON in argv[2].
 */
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import { setTimeout as sleep } from 'node:timers/promises'
import { createTransport, type Libp2pTransport, type Member, type TransportStats } from '../../protocols/transport.ts'
import { clock, memoryLog } from './real-clock.ts'

export interface MdnsPeer {
  /** Private key, hex. */
  readonly key: string
  readonly listen: string
  readonly cluster: string
  readonly members: readonly Member[]
  /** Ids that must be linked before the end. */
  readonly links: readonly string[]
  /** At least so many words of others must have been ignored before the end. */
  readonly ignores: number
  /** How long to go on after that. */
  readonly lingerMs: number
}

export interface MdnsResult {
  readonly stats: TransportStats
  readonly warnings: readonly string[]
}

const peers = JSON.parse(process.argv[2] ?? '[]') as MdnsPeer[]
const logs = peers.map(() => memoryLog())
const nodes: Libp2pTransport[] = []
for (const [i, { key, listen, cluster, members }] of peers.entries()) {
  const privateKey = privateKeyFromRaw(Buffer.from(key, 'hex'))
  const log = logs[i] ?? memoryLog()
  const node = await createTransport({ privateKey, listen, cluster, members, mdns: true, log, clock })
  await node.start()
  nodes.push(node)
}
const isDone = (): boolean =>
  peers.every(
    ({ links, ignores }, i) =>
      links.every(id => nodes[i]?.connected(id)) && (nodes[i]?.stats().mdnsIgnored ?? 0) >= ignores
  )
while (!isDone()) await sleep(20)
await sleep(Math.max(...peers.map(({ lingerMs }) => lingerMs)))
const results = nodes.map((node, i) => ({
  stats: node.stats(),
  warnings: logs[i]?.lines.filter(({ level }) => level === 'warn').map(({ message }) => message) ?? []
}))
await Promise.all(nodes.map(node => node.stop()))
process.stdout.write(JSON.stringify(results satisfies MdnsResult[]))
