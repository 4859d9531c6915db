/** Matches as OXM fields (TS-009, A.2.3): u32 of class, field, has-mask and length, then the value and its mask. */
import { type ByteReader, type ByteWriter, malformed } from './bytes.ts'
import type { Match } from './messages.ts'

const OXM_TYPE = 1
const OPENFLOW_BASIC = 0x8000

export const FIELD = { inPort: 0, metadata: 2, ethDst: 3, ethSrc: 4, ethType: 5, vlanVid: 6, vlanPcp: 7 } as const

/** OFPVID_PRESENT: the frame has a tag. */
const VID_PRESENT = 0x1000
/** The group bit of the first byte of an address (IEEE 802). */
const GROUP_BIT = 0x01_00_00_00_00_00

/** Length and has-mask are of this very form; other fields, and other forms, are passed over by readers. */
export function writeField(out: ByteWriter, field: number, bytes: number, masked = false): ByteWriter {
  const length = masked ? 2 * bytes : bytes
  return out
    .u16(OPENFLOW_BASIC)
    .u8((field << 1) | (masked ? 1 : 0))
    .u8(length)
}

export function writeVlanVid(out: ByteWriter, vid: number): void {
  writeField(out, FIELD.vlanVid, 2).u16(VID_PRESENT | vid)
}

export function writeVlanPcp(out: ByteWriter, pcp: number): void {
  writeField(out, FIELD.vlanPcp, 1).u8(pcp)
}

/** Throws RangeError on numbers that do not fit. */
export function writeMatch(out: ByteWriter, match: Match): void {
  const start = out.length
  out.u16(OXM_TYPE).u16(0)
  const { inPort, metadata, ethDst, multicast, ethSrc, ethType, vlanVid, vlanPcp } = match
  if (inPort !== undefined) writeField(out, FIELD.inPort, 4).u32(inPort)
  if (metadata !== undefined) writeField(out, FIELD.metadata, 8).u64(BigInt(metadata))
  if (ethDst !== undefined) writeField(out, FIELD.ethDst, 6).u48(ethDst)
  else if (multicast) writeField(out, FIELD.ethDst, 6, true).u48(GROUP_BIT).u48(GROUP_BIT)
  if (ethSrc !== undefined) writeField(out, FIELD.ethSrc, 6).u48(ethSrc)
  if (ethType !== undefined) writeField(out, FIELD.ethType, 2).u16(ethType)
  if (vlanVid !== undefined) writeVlanVid(out, vlanVid)
  if (vlanPcp !== undefined) writeVlanPcp(out, vlanPcp)
  out.lengthAt(start + 2, start)
  out.pad8(start)
}

/** A match with what diapause knows of it: fields that it never writes are left out. */
export function readMatch(from: ByteReader): Match {
  const start = from.read
  if (from.u16() !== OXM_TYPE) throw malformed('a match that is not of OXM fields')
  const length = from.u16()
  const fields = from.part(length - 4)
  from.skip((8 - ((from.read - start) % 8)) % 8)
  const match: { -readonly [K in keyof Match]: Match[K] } = {}
  while (fields.left > 0) {
    const { field, value } = readField(fields)
    if (field !== undefined) Object.assign(match, valueOf(field, value))
  }
  return match
}

export interface OxmField {
  /** Undefined: of another class, or masked in a way that diapause never writes. */
  readonly field: number | undefined
  readonly value: ByteReader
}

export function readField(from: ByteReader): OxmField {
  const oxmClass = from.u16()
  const head = from.u8()
  const length = from.u8()
  const value = from.part(length)
  if (oxmClass !== OPENFLOW_BASIC) return { field: undefined, value }
  if ((head & 1) === 0) return { field: head >> 1, value }
  const known = head >> 1 === FIELD.ethDst && length === 12
  return known ? { field: MASKED_DESTINATION, value } : { field: undefined, value }
}

/** Beyond the seven bits of a field's number. */
const MASKED_DESTINATION = 256

function valueOf(field: number, value: ByteReader): Match {
  switch (field) {
    case FIELD.inPort:
      return { inPort: value.u32() }
    case FIELD.metadata: {
      const metadata = value.u64()
      return metadata > 0xffff_ffffn ? {} : { metadata: Number(metadata) }
    }
    case FIELD.ethDst:
      return { ethDst: value.u48() }
    case MASKED_DESTINATION:
      return value.u48() === GROUP_BIT && value.u48() === GROUP_BIT ? { multicast: true } : {}
    case FIELD.ethSrc:
      return { ethSrc: value.u48() }
    case FIELD.ethType:
      return { ethType: value.u16() }
    case FIELD.vlanVid:
      return vidOf(value.u16())
    case FIELD.vlanPcp:
      return { vlanPcp: value.u8() }
    default:
      return {}
  }
}

const vidOf = (word: number): Match => ((word & VID_PRESENT) === 0 ? {} : { vlanVid: word & 0xfff })
