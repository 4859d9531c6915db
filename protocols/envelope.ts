/**
 * What is around every control message:
 *
 *     u8 version | 8 bytes of SHA-256(cluster name) | u8 length of the protocol's name | name (ASCII) | MessagePack
 *
 * The cluster's hash is no secret and no protection (the Noise identity is): it catches a peer that an operator put
 * into two clusters by mistake before its messages are believed.
 */
import { createHash } from 'node:crypto'
import { DiapauseError } from '../node/errors.ts'
import { type MsgpackLimits, packMessage, unpackMessage } from './msgpack.ts'

export const ENVELOPE_VERSION = 1
const CLUSTER_BYTES = 8
const NAME_AT = 1 + CLUSTER_BYTES + 1
const MAX_NAME_BYTES = 32

/** The deepest message today is a register's group record, 6 levels; the largest lists are 100 members or some hundred VMs. */
export const CONTROL_LIMITS: MsgpackLimits = { depth: 24, tokens: 65_536 }

export const clusterHash = (name: string): Uint8Array =>
  createHash('sha256').update(name).digest().subarray(0, CLUSTER_BYTES)

/** The bytes before the MessagePack; the same for every message of a protocol. Throws TypeError for a bad name. */
export function envelopeHeader(cluster: Uint8Array, protocol: string): Uint8Array {
  if (!/^[a-z0-9-]{1,32}$/.test(protocol)) throw new TypeError(`"${protocol}" is no protocol name`)
  return Buffer.concat([
    Buffer.from([ENVELOPE_VERSION]),
    cluster,
    Buffer.from([protocol.length]),
    Buffer.from(protocol, 'latin1')
  ])
}

export const encodeMessage = (message: object): Uint8Array => packMessage(message)

/** Takes an envelope apart. Throws ENVELOPE_SHAPE, ENVELOPE_VERSION, ENVELOPE_CLUSTER or a MSGPACK_ error. */
export function decodeEnvelope(
  bytes: Uint8Array,
  cluster: Uint8Array,
  knows: (protocol: string) => boolean
): { protocol: string; message: unknown } {
  if (bytes.length < NAME_AT) throw new DiapauseError('ENVELOPE_SHAPE', `an envelope of ${bytes.length} bytes`)
  if (bytes[0] !== ENVELOPE_VERSION) {
    throw new DiapauseError('ENVELOPE_VERSION', `envelope version ${bytes[0]}; this peer speaks ${ENVELOPE_VERSION}`)
  }
  if (Buffer.compare(bytes.subarray(1, 1 + CLUSTER_BYTES), cluster) !== 0) {
    throw new DiapauseError('ENVELOPE_CLUSTER', 'a message of another cluster; check cluster.name on both peers')
  }
  const nameBytes = bytes[NAME_AT - 1] as number
  const payloadAt = NAME_AT + nameBytes
  if (nameBytes === 0 || nameBytes > MAX_NAME_BYTES || payloadAt >= bytes.length) {
    throw new DiapauseError('ENVELOPE_SHAPE', 'an envelope without a protocol or a message')
  }
  const protocol = Buffer.from(bytes.buffer, bytes.byteOffset + NAME_AT, nameBytes).toString('latin1')
  if (!knows(protocol)) throw new DiapauseError('ENVELOPE_PROTOCOL', `the unknown protocol ${JSON.stringify(protocol)}`)
  return { protocol, message: unpackMessage(bytes.subarray(payloadAt), CONTROL_LIMITS) }
}
