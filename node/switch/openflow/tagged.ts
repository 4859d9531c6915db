/**
 * Frames as they travel between bridges: with a VLAN tag whose PCP is the colour and whose VID says group and generation.
 * And markers, the turn records of this path: a frame behind the last one of the old colour on the same way. Pure.
 *
 *     marker   destination broadcast, source the VM's first NIC, the tag of the new colour, EtherType 0x88b5 (IEEE 802,
 *              local experimental 1), u8 format = 1, u32 generation, u32 colour, zeros up to 60 bytes and the tag
 */
import { createHash } from 'node:crypto'
import { macAt } from '../ethernet.ts'

export const MARKER_TYPE = 0x88b5
const VLAN_TYPE = 0x8100
const ADDRESSES_BYTES = 12
const TAG_BYTES = 4
const MARKER_BYTES = 60 + TAG_BYTES
const FORMAT = 1
const BROADCAST = 0xffff_ffff_ffff

export interface TaggedFrame {
  readonly vid: number
  readonly pcp: number
  readonly source: number
  readonly destination: number
  readonly multicast: boolean
  /** EtherType behind the tag. */
  readonly type: number
}

/** Undefined: not a frame with a tag. */
export function readTagged(frame: Uint8Array): TaggedFrame | undefined {
  if (frame.length < ADDRESSES_BYTES + TAG_BYTES + 2) return undefined
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.length)
  if (bytes.readUInt16BE(ADDRESSES_BYTES) !== VLAN_TYPE) return undefined
  const control = bytes.readUInt16BE(ADDRESSES_BYTES + 2)
  return {
    vid: control & 0xfff,
    pcp: control >> 13,
    source: macAt(frame, 6),
    destination: macAt(frame, 0),
    multicast: ((frame[0] as number) & 1) === 1,
    type: bytes.readUInt16BE(ADDRESSES_BYTES + TAG_BYTES)
  }
}

/** As a packet of NIC `nic` (`ethernet.ts`): without the tag. */
export function untagged(frame: Uint8Array, nic: number): Uint8Array {
  const length = frame.length - TAG_BYTES
  const packet = Buffer.allocUnsafeSlow(4 + length)
  packet.writeUInt8(nic, 0)
  packet.writeUIntBE(length, 1, 3)
  packet.set(frame.subarray(0, ADDRESSES_BYTES), 4)
  packet.set(frame.subarray(ADDRESSES_BYTES + TAG_BYTES), 4 + ADDRESSES_BYTES)
  return packet
}

export interface Marker {
  readonly generation: number
  readonly colour: number
}

export function markerFrame(options: Marker & { readonly source: number; readonly vid: number }): Uint8Array {
  const { generation, colour, source, vid } = options
  const frame = Buffer.alloc(MARKER_BYTES)
  frame.writeUIntBE(BROADCAST, 0, 6)
  frame.writeUIntBE(source, 6, 6)
  frame.writeUInt16BE(VLAN_TYPE, 12)
  frame.writeUInt16BE(((colour % 8) << 13) | vid, 14)
  frame.writeUInt16BE(MARKER_TYPE, 16)
  frame.writeUInt8(FORMAT, 18)
  frame.writeUInt32BE(generation, 19)
  frame.writeUInt32BE(colour, 23)
  return frame
}

/** Undefined: not one, or of another format. */
export function readMarker(frame: Uint8Array): Marker | undefined {
  if (frame.length < 27 || readTagged(frame)?.type !== MARKER_TYPE || frame[18] !== FORMAT) return undefined
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.length)
  return { generation: bytes.readUInt32BE(19), colour: bytes.readUInt32BE(23) }
}

/** VIDs 0 and 4095 are reserved (IEEE 802.1Q). */
const VIDS = 4094

/**
 * The VID of a group in a generation: frames of one of the 4,093 before fit no entry. Groups that use the same address are
 * told apart by it, but for one pair in 4,094.
 */
export const tagOf = (group: string, generation: number): number =>
  1 + ((createHash('sha256').update(group).digest().readUInt32BE() + generation) % VIDS)
