/** What reader and writer of QEMU's migration stream share: its numbers, and a machine without its pages. Pure. */
export const PAGE_BYTES = 4096
/** The block that holds the guest's RAM; all others (ROMs, video memory, tables) are small. */
export const MAIN_BLOCK = 'pc.ram'

export const MAGIC = 0x5145564d
export const STREAM_VERSION = 3
export const SECTION = {
  eof: 0,
  start: 1,
  part: 2,
  end: 3,
  full: 4,
  subsection: 5,
  vmdesc: 6,
  configuration: 7,
  command: 8,
  footer: 0x7e
}
export const PAGE = { zero: 0x02, memSize: 0x04, data: 0x08, eos: 0x10, sameBlock: 0x20 }
/** Of a name with its length byte, at most. */
export const NAME_BYTES = 256

export interface RamBlock {
  readonly name: string
  /** A multiple of 4096. */
  readonly length: number
}

/** All of a machine but its pages. `config` and `ramHeader` are sections as QEMU wrote them. */
export interface MachineState {
  readonly config: Uint8Array
  readonly ramHeader: Uint8Array
  readonly ramId: number
  readonly blocks: readonly RamBlock[]
  readonly devices: Uint8Array
}

export function latin1(bytes: Uint8Array, at: number, length: number): string {
  let text = ''
  for (let i = at; i < at + length; i++) text += String.fromCharCode(bytes[i] ?? 0)
  return text
}
