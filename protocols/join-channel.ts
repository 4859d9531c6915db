/**
 * How a host that is no member yet asks to be one: with the key of its invitation as its libp2p identity it opens one
 * stream, `/diapause/join/1`, to a member that it knows by id and address, sends one request and reads one answer. What
 * the bytes say is the business of membership. The member's side is `transport-invited.ts`.
 */
import { multiaddr } from '@multiformats/multiaddr'
import { messageOf, UsageError } from '../node/errors.ts'
import type { PeerId } from './core.ts'
import { type Connection, frameHeader, messages, type PrivateKey, type Stream, write } from './stream.ts'
import { createNode } from './transport-node.ts'

export const JOIN_PROTOCOL = '/diapause/join/1'

/** Of a request, and of an answer: a cluster's record with 100 members has a third of it. */
export const MAX_JOIN_BYTES = 64 * 1024

export interface JoinRequest {
  /** Its public half is what the invitation names. */
  readonly inviteKey: PrivateKey
  /** The member to ask; `address` is a multiaddr without the peer id. */
  readonly peer: { readonly id: PeerId; readonly address: string }
  readonly request: Uint8Array
  /** For all of it. */
  readonly timeoutMs: number
}

/**
 * Rejects with a UsageError: JOIN_UNREACHABLE where nobody with this id answers at this address in time, JOIN_REFUSED
 * where the member itself breaks off. After either the member may have carried out the request all the same.
 */
export async function requestJoin({ inviteKey, peer, request, timeoutMs }: JoinRequest): Promise<Uint8Array> {
  checkLength(request)
  const timeout = AbortSignal.timeout(timeoutMs)
  let met = false
  const isOther = (id: { toString(): string }): boolean => id.toString() !== peer.id
  const node = await createNode({
    privateKey: inviteKey,
    listen: [],
    gater: {
      denyDialPeer: isOther,
      denyDialMultiaddr: () => false,
      denyInboundEncryptedConnection: () => true,
      denyOutboundEncryptedConnection: id => {
        met = !isOther(id) // Noise has proven it
        return !met
      }
    }
  })
  let connection: Connection | undefined
  try {
    await node.start()
    connection = await node.dial(multiaddr(`${peer.address}/p2p/${peer.id}`), { force: true, signal: timeout })
    const stream = await connection.newStream(JOIN_PROTOCOL, { signal: timeout })
    return await exchange(stream, connection, request, timeout)
  } catch (cause) {
    throw failure(peer.address, met, timeout.aborted, cause)
  } finally {
    connection?.abort(new Error('the answer is here'))
    await node.stop()
  }
}

async function exchange(stream: Stream, connection: Connection, request: Uint8Array, timeout: AbortSignal) {
  const giveUp = (): void => connection.abort(new Error('no answer in time'))
  timeout.addEventListener('abort', giveUp)
  try {
    timeout.throwIfAborted()
    await sendOne(stream, request)
    return await receiveOne(stream)
  } finally {
    timeout.removeEventListener('abort', giveUp)
  }
}

function failure(address: string, met: boolean, late: boolean, cause: unknown): UsageError {
  if (met && !late) {
    const message =
      `the peer at ${address} refused the invitation: it may be used, withdrawn or expired, or the peer does not know of ` +
      'it yet; try again, and if that does not help ask for a new invitation'
    return new UsageError('JOIN_REFUSED', message, { cause })
  }
  const message = met
    ? `the peer at ${address} did not answer in time; try again`
    : `cannot reach the inviting peer at ${address} (${messageOf(cause)}); check that it runs there and that this host may connect to it`
  return new UsageError('JOIN_UNREACHABLE', message, { cause })
}

/** One request or answer; the writing end stays open. */
export async function sendOne(stream: Stream, bytes: Uint8Array): Promise<void> {
  checkLength(bytes)
  await write(stream, Buffer.concat([frameHeader(bytes.length), bytes]))
}

/** Throws FRAME_OVERSIZE, FRAME_TRUNCATED, STREAM_CLOSED or an Error where nothing comes. Whatever follows stays unread. */
export async function receiveOne(stream: Stream): Promise<Uint8Array> {
  for await (const message of messages(stream, MAX_JOIN_BYTES)) {
    if (message.length === 0) throw new Error('an empty message')
    return message
  }
  throw new Error('no message')
}

function checkLength(bytes: Uint8Array): void {
  if (bytes.length === 0 || bytes.length > MAX_JOIN_BYTES) {
    throw new TypeError(`${bytes.length} bytes; a join request or answer has 1 to ${MAX_JOIN_BYTES}`)
  }
}
