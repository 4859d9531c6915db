/** libp2p on this machine's loopback: for tests, and for the peers that they start as processes of their own. */
import { type AddressInfo, createServer } from 'node:net'
import { privateKeyFromRaw } from '@libp2p/crypto/keys'
import { createTransport, type Libp2pTransport, type Member } from '../../protocols/transport.ts'
import { clock, quietLog } from './real-clock.ts'

/** A TCP port that nobody listens on, as of now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

/** What a child's test tells it: JSON in argv[2]. */
export interface ChildOptions {
  /** Private key, hex. */
  readonly key: string
  readonly listen: string
  readonly members: readonly Member[]
}

/** The transport of a child, not started yet. */
export function childTransport({ key, listen, members }: ChildOptions): Promise<Libp2pTransport> {
  const privateKey = privateKeyFromRaw(Buffer.from(key, 'hex'))
  return createTransport({ privateKey, listen, cluster: 'test', members, log: quietLog, clock })
}
