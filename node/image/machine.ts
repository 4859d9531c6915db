/**
 * The machine of an image: QEMU's own sections and the pages of its small RAM blocks, ROMs and tables, which the target
 * needs before it runs. Pure but for zstd.
 */
import { DiapauseError } from '../errors.ts'
import {
  machineProblem,
  MAIN_BLOCK,
  type MachineState,
  PAGE_BYTES,
  type RamBlock,
  STREAM_LIMITS
} from '../hypervisor/migration-stream.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { pack, unpack } from './seal.ts'

const FORMAT = 1
/** Bounds: a `pc` machine has 0.6 MB of ROMs; video memory is 16 MB and mostly zero. */
export const MAX_BOOT_BYTES = 64 << 20
export const MAX_MACHINE_BYTES = MAX_BOOT_BYTES + STREAM_LIMITS.deviceBytes + (8 << 20)

/** A page, not zero, of a block other than pc.ram. */
export interface BootPage {
  readonly block: number
  readonly offset: number
  readonly bytes: Uint8Array
}

export interface MachinePart {
  readonly machine: MachineState
  readonly bootPages: readonly BootPage[]
}

export function encodeMachine({ machine, bootPages }: MachinePart): Uint8Array {
  const out = new ByteWriter(machine.devices.length + bootPages.length * (PAGE_BYTES + 16) + 4096).u8(FORMAT)
  out.blob(machine.config).blob(machine.ramHeader).u32(machine.ramId).u32(machine.blocks.length)
  for (const block of machine.blocks) out.text(block.name).u53(block.length)
  out.blob(machine.devices).u32(bootPages.length)
  for (const page of bootPages) out.u32(page.block).u53(page.offset).raw(page.bytes)
  return pack(out.bytes())
}

/** IMAGE_INVALID. */
export function decodeMachine(bytes: Uint8Array): MachinePart {
  const reader = new ByteReader(unpack(bytes, MAX_MACHINE_BYTES), invalid)
  const format = reader.u8()
  if (format !== FORMAT) throw invalid(`format ${format}, and this version reads ${FORMAT}`)
  const config = reader.blob(STREAM_LIMITS.configBytes + 5)
  const ramHeader = reader.blob(512)
  const ramId = reader.u32()
  const blocks: RamBlock[] = []
  for (let left = reader.count(STREAM_LIMITS.blocks, 10); left > 0; left--) {
    blocks.push({ name: reader.text(510), length: reader.u53() })
  }
  const machine = { config, ramHeader, ramId, blocks, devices: reader.blob(STREAM_LIMITS.deviceBytes) }
  const problem = machineProblem(machine)
  if (problem !== undefined) throw invalid(problem)
  const bootPages: BootPage[] = []
  for (let left = reader.count(MAX_BOOT_BYTES / PAGE_BYTES, PAGE_BYTES); left > 0; left--) {
    const page = { block: reader.u32(), offset: reader.u53(), bytes: reader.raw(PAGE_BYTES) }
    const block = blocks[page.block]
    if (!block || block.name === MAIN_BLOCK || page.offset % PAGE_BYTES !== 0 || page.offset >= block.length) {
      throw invalid('a page outside of its block')
    }
    bootPages.push(page)
  }
  reader.end()
  return { machine, bootPages }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the machine part of the image is not valid: ${what}; restore another epoch`)
