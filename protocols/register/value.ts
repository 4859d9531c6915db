/**
 * Values of registers as bytes: msgpack of plain data (objects, arrays, strings, finite numbers, booleans, null, bytes).
 * They are encoded once by the proposer and decoded anew for each reader, so nobody can change a value under another.
 */
import { DiapauseError } from '../../node/errors.ts'
import { checkMsgpack, type MsgpackLimits, packMessage, unpackMessage } from '../msgpack.ts'
import { type Accepted, MAX_VALUE_BYTES } from './messages.ts'

/**
 * Acceptors never look inside of a value, so what another member wrote is bounded only here. The deepest value, a group's record,
 * has 6 levels; no value has more parts than bytes.
 */
const LIMITS: MsgpackLimits = { depth: 24, tokens: MAX_VALUE_BYTES }

/** The value of a register that was deleted. No encoding is empty. */
export const TOMBSTONE: Uint8Array = new Uint8Array(0)

export const isTombstone = ({ value }: Accepted): boolean => value.byteLength === 0

/** What a register that holds `accepted` is read as: null before the first change and after a deletion. REGISTER_VALUE. */
export function valueOf(accepted: Accepted | null): unknown {
  return accepted === null || isTombstone(accepted) ? null : decodeValue(accepted.value)
}

/** How long it is encoded. REGISTER_VALUE where it cannot be. */
export const encodedBytes = (value: unknown): number => packed(value).byteLength

/** REGISTER_VALUE where it cannot be encoded, is longer than MAX_VALUE_BYTES, or could not be decoded again. */
export function encodeValue(value: unknown): Uint8Array {
  const bytes = packed(value)
  if (bytes.byteLength > MAX_VALUE_BYTES) {
    throw new DiapauseError(
      'REGISTER_VALUE',
      `a register holds at most ${MAX_VALUE_BYTES} bytes, this value has ${bytes.byteLength}: store a hash of it instead`,
      { details: { bytes: bytes.byteLength, limit: MAX_VALUE_BYTES } }
    )
  }
  plainOnly(() => checkMsgpack(bytes, LIMITS))
  // A copy, because msgpackr's results share one pooled buffer.
  return new Uint8Array(bytes)
}

const packed = (value: unknown): Uint8Array => plainOnly(() => packMessage(value))

function plainOnly<T>(encode: () => T): T {
  try {
    return encode()
  } catch (cause) {
    throw new DiapauseError('REGISTER_VALUE', 'a register holds plain data only', { cause })
  }
}

/** The inverse. REGISTER_VALUE where the bytes are not msgpack of plain data, or nested more deeply than any value of ours. */
export function decodeValue(bytes: Uint8Array): unknown {
  try {
    return unpackMessage(bytes, LIMITS)
  } catch (cause) {
    throw new DiapauseError('REGISTER_VALUE', 'the bytes of this register cannot be decoded', { cause })
  }
}
