/**
 * The addresses behind a VM's NICs as a record of its image: they are heard again at once where it is restored. It stands
 * before the frames, as a packet for a NIC that no VM has. Pure.
 *
 *     u8 0xff, u24 length, u8 format = 1, and for each address u8 NIC, u48 address
 */
import { DiapauseError } from '../errors.ts'
import { PREFIX_BYTES } from './ethernet.ts'

export interface HeardAddress {
  readonly nic: number
  readonly mac: number
}

const NO_NIC = 0xff
const FORMAT = 1
const ENTRY_BYTES = 7

/** Nothing where there are none. */
export function encodeAddresses(addresses: readonly HeardAddress[]): Uint8Array {
  if (addresses.length === 0) return new Uint8Array(0)
  const length = 1 + ENTRY_BYTES * addresses.length
  const out = Buffer.allocUnsafeSlow(PREFIX_BYTES + length)
  out[0] = NO_NIC
  out.writeUIntBE(length, 1, 3)
  let at = out.writeUInt8(FORMAT, PREFIX_BYTES)
  for (const { nic, mac } of addresses) at = out.writeUIntBE(mac, out.writeUInt8(nic, at), 6)
  return out
}

/** Takes the record off the beginning of `piece`, where there is one. FRAMES_MALFORMED. */
export function takeAddresses(piece: Uint8Array): { readonly addresses: HeardAddress[]; readonly rest: Uint8Array } {
  if (piece[0] !== NO_NIC) return { addresses: [], rest: piece }
  const bytes = Buffer.from(piece.buffer, piece.byteOffset, piece.length)
  const end = PREFIX_BYTES + (bytes.length < PREFIX_BYTES ? 0 : bytes.readUIntBE(1, 3))
  const entries = (end - PREFIX_BYTES - 1) / ENTRY_BYTES
  if (end > bytes.length || !Number.isInteger(entries) || bytes[PREFIX_BYTES] !== FORMAT) {
    throw new DiapauseError('FRAMES_MALFORMED', 'the image holds addresses of its VM in no format that is known here')
  }
  const addresses = Array.from({ length: entries }, (_, entry) => {
    const at = PREFIX_BYTES + 1 + entry * ENTRY_BYTES
    return { nic: bytes[at] as number, mac: bytes.readUIntBE(at + 1, 6) }
  })
  return { addresses, rest: piece.slice(end) }
}
