/** Peers on this machine's loopback, as the tests of the transport share them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { noise } from '@chainsafe/libp2p-noise'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Connection, Libp2p, PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import type { Channel, MessageHandler } from '../../node/ports.ts'
import { createTransport, type Libp2pTransport, type Member, type TransportOptions } from '../../protocols/transport.ts'
import { freePort } from './loopback.ts'
import { clock, quietLog as log } from './real-clock.ts'

export const CHANNELS: readonly Channel[] = ['control', 'bulk', 'frames']

/** Done after each test, the last first. */
export const cleanups: (() => Promise<unknown> | unknown)[] = []
export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
}

export interface Host extends Member {
  readonly key: PrivateKey
}

export async function hosts(count: number): Promise<Host[]> {
  const made: Host[] = []
  for (let i = 0; i < count; i++) {
    const key = await generateKeyPair('Ed25519')
    const address = `/ip4/127.0.0.1/tcp/${await freePort()}`
    made.push({ key, id: peerIdFromPrivateKey(key).toString(), name: `peer-${i}`, address })
  }
  return made
}

export const publicPart = ({ id, name, address }: Host): Member => ({ id, name, address })

export async function transportOf(
  host: Host,
  members: readonly Host[],
  parts: Partial<TransportOptions> = {}
): Promise<Libp2pTransport> {
  const transport = await createTransport({
    privateKey: host.key,
    listen: host.address,
    cluster: 'test',
    members: members.map(publicPart),
    log,
    clock,
    ...parts
  })
  cleanups.push(() => transport.stop())
  return transport
}

export async function until(what: () => boolean): Promise<void> {
  while (!what()) await sleep(5)
}

export type Handlers = Partial<Record<Channel, MessageHandler>>

export async function started(host: Host, members: readonly Host[], handlers: Handlers = {}): Promise<Libp2pTransport> {
  const transport = await transportOf(host, members)
  for (const [channel, handler] of Object.entries(handlers)) transport.handle(channel as Channel, handler)
  await transport.start()
  return transport
}

/** Two linked members; the handlers are the second one's. */
export async function pair(handlers: Handlers): Promise<[Libp2pTransport, Libp2pTransport]> {
  const both = await hosts(2)
  const [first, second] = both as [Host, Host]
  const a = await started(first, both)
  const b = await started(second, both, handlers)
  await until(() => a.connected(b.self) && b.connected(a.self))
  return [a, b]
}

/** A libp2p of its own that admits everybody: what a stranger, or a member gone bad, would run. */
export async function rawNode(key: PrivateKey, listen: readonly string[] = []): Promise<Libp2p> {
  const node = await createLibp2p({
    privateKey: key,
    addresses: { listen: [...listen] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false }
  })
  cleanups.push(() => node.stop())
  return node
}

export const dialRaw = (node: Libp2p, { address, id }: Member): Promise<Connection> =>
  node.dial(multiaddr(`${address}/p2p/${id}`), { force: true })
