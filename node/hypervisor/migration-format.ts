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

export const RAM_VERSION = 4

/** Bounds of what a stream may make us keep or send: several times what a `pc` machine needs. */
export const STREAM_LIMITS = Object.freeze({
  configBytes: 2048,
  blocks: 256,
  /** All blocks but pc.ram together, which are sent whole before a VM runs. Video memory would have 16 MB. */
  otherBlocksBytes: 256 << 20,
  deviceBytes: 64 << 20
})

/**
 * What is wrong with a machine that QEMU did not just send: out of a stream, or out of the shards. Undefined: it may be sent
 * to QEMU. Devices have no lengths and are QEMU's to judge.
 */
export function machineProblem({ config, ramHeader, ramId, blocks }: MachineState): string | undefined {
  const [configView, ramView] = [viewOf(config), viewOf(ramHeader)]
  if (config.length < 5 || config[0] !== SECTION.configuration || configView.getUint32(1) !== config.length - 5) {
    return 'its configuration is no section'
  }
  const isRam = ramHeader.length === 17 && ramHeader[0] === SECTION.start && latin1(ramHeader, 5, 4) === '\u0003ram'
  if (!isRam || ramView.getUint32(1) !== ramId || ramView.getUint32(13) !== RAM_VERSION) {
    return `its RAM begins with no section of version ${RAM_VERSION}`
  }
  for (const { name, length } of blocks) {
    const fits = name.length > 0 && name.length < NAME_BYTES && Buffer.from(name, 'latin1').toString('latin1') === name
    if (!fits) return `a RAM block has the name ${JSON.stringify(name)}`
    if (length === 0 || length % PAGE_BYTES !== 0) return `RAM block ${JSON.stringify(name)} has ${length} bytes`
  }
  if (blocks.length > STREAM_LIMITS.blocks) return `it has ${blocks.length} RAM blocks`
  if (new Set(blocks.map(({ name }) => name)).size !== blocks.length) return 'two of its RAM blocks have one name'
  const main = blocks.find(({ name }) => name === MAIN_BLOCK)
  const total = blocks.reduce((sum, { length }) => sum + length, 0)
  if (main === undefined || !Number.isSafeInteger(total))
    return `${total} bytes of RAM, ${MAIN_BLOCK} among them or not`
  const others = total - main.length
  if (others > STREAM_LIMITS.otherBlocksBytes) return `its blocks besides ${MAIN_BLOCK} have ${others} bytes`
  return undefined
}

/**
 * The machine type that a stream names in its configuration, of its first bytes; '' where they are no stream's; undefined where
 * they are too few.
 */
export function machineTypeOf(head: Uint8Array): string | undefined {
  if (head.length < 13) return undefined
  const view = viewOf(head)
  const length = view.getUint32(9)
  const begins = view.getUint32(0) === MAGIC && head[8] === SECTION.configuration && length <= STREAM_LIMITS.configBytes
  if (!begins) return ''
  if (head.length < 13 + length) return undefined
  return latin1(head, 13, length)
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export function latin1(bytes: Uint8Array, at: number, length: number): string {
  let text = ''
  for (let i = at; i < at + length; i++) text += String.fromCharCode(bytes[i] ?? 0)
  return text
}
