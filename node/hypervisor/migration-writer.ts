/**
 * QEMU's migration stream as `migrate` to a file writes it, which a stock QEMU loads with `-incoming`:
 *
 *     head: 'QEVM' version | configuration | section ram START: block list
 *     pages: sections ram PART, each of pages of one block, in any order; the last to come of a page counts
 *     end: section ram END | devices | EOF | vmdesc
 *
 * Against QEMU's own (7.2.22): that packs pages of several blocks in a section, in the order of addresses, and its vmdesc
 * also has each device's fields. What is written here has every page of a stream, or QEMU keeps what it has itself there
 * (zeros in RAM, ROMs as they are installed). Pure.
 */
import { describeDevices } from './device-sections.ts'
import { MAGIC, type MachineState, PAGE, PAGE_BYTES, SECTION, STREAM_VERSION } from './migration-format.ts'

export interface PageToSend {
  readonly offset: number
  /** 4096 bytes; undefined: zeros. */
  readonly bytes: Uint8Array | undefined
}

/** Everything before the first page. */
export function migrationHead(machine: MachineState): Uint8Array {
  return Buffer.concat([streamHead(machine), ramSetup(machine)])
}

/** Everything behind the last page. MIGRATION_STREAM_INVALID where the devices are no sections. */
export function migrationTail(ramId: number, devices: Uint8Array): Uint8Array {
  const description = Buffer.from(JSON.stringify(describeDevices(devices)))
  const vmdesc = Buffer.concat([Buffer.of(SECTION.eof, SECTION.vmdesc), u32(description.length), description])
  return Buffer.concat([ramEnd(ramId), devices, vmdesc])
}

/** What every migration begins with, post-copy, too. */
export const streamHead = ({ config }: MachineState): Uint8Array =>
  Buffer.concat([u32(MAGIC), u32(STREAM_VERSION), config])

/** The section with the list of RAM blocks. */
export function ramSetup({ ramHeader, ramId, blocks }: MachineState): Uint8Array {
  const total = blocks.reduce((sum, block) => sum + block.length, 0)
  return Buffer.concat([
    ramHeader,
    u64(total + PAGE.memSize),
    ...blocks.flatMap(block => [nameOf(block.name), u64(block.length)]),
    u64(PAGE.eos),
    footer(ramId)
  ])
}

/** One section with pages of one block. The bytes are copied. */
export function ramPages(ramId: number, block: string, pages: readonly PageToSend[]): Uint8Array {
  const blockName = nameOf(block)
  let size = 5 + 8 + 5 + (pages.length > 0 ? blockName.length : 0)
  for (const page of pages) size += 8 + (page.bytes ? PAGE_BYTES : 1)
  const out = Buffer.allocUnsafeSlow(size)
  let at = out.writeUInt8(SECTION.part, 0)
  at = out.writeUInt32BE(ramId, at)
  let same = 0
  for (const page of pages) {
    at = putU64(out, page.offset + (page.bytes ? PAGE.data : PAGE.zero) + same, at)
    if (same === 0) at += blockName.copy(out, at)
    same = PAGE.sameBlock
    if (page.bytes) {
      out.set(page.bytes, at)
      at += PAGE_BYTES
    } else at = out.writeUInt8(0, at)
  }
  at = putU64(out, PAGE.eos, at)
  at = out.writeUInt8(SECTION.footer, at)
  out.writeUInt32BE(ramId, at)
  return out
}

/** The section that says that every page has been sent. */
export const ramEnd = (ramId: number): Uint8Array =>
  Buffer.concat([Buffer.of(SECTION.end), u32(ramId), u64(PAGE.eos), footer(ramId)])

/** A block's name with its length before it. */
export const nameOf = (text: string): Buffer => Buffer.concat([Buffer.of(text.length), Buffer.from(text, 'latin1')])

export const footer = (ramId: number): Buffer => Buffer.concat([Buffer.of(SECTION.footer), u32(ramId)])

export function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}

export function u64(value: number): Buffer {
  const out = Buffer.alloc(8)
  putU64(out, value, 0)
  return out
}

function putU64(out: Buffer, value: number, at: number): number {
  out.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at)
  return out.writeUInt32BE(value % 0x1_0000_0000, at + 4)
}
