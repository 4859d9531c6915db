/**
 * Which pages a VM stands on when its devices were saved: what its processors need for their next instructions, and the rings of its
 * virtio devices. It touches them as soon as it goes on. Guesses all of them: whatever is not understood is passed over, and the VM,
 * which runs on meanwhile, may have changed its tables. Pure.
 *
 * The state of a processor is found by the description that QEMU sends behind all devices (`device-sections.ts`), which names its fields
 * and their bytes; that of a virtio device it does not describe, so what looks like a ring is taken for one: u32 entries, u64 address
 * (hw/virtio/virtio.c, virtio_save). Tables as in the processor's manual (Intel SDM, volume 3A, 4.5).
 */
import { endOf, sectionAt, sectionOf, VMDESC_HEADER_BYTES } from './device-sections.ts'
import { PAGE_BYTES } from './migration-format.ts'

/** RAM of i440fx beyond this lies above 4 GiB, where there is so much that it does not fit below 3.5 GiB (hw/i386/pc_piix.c). */
const LOW_BYTES = 3 * 2 ** 30
const HIGHEST_LOW_BYTES = 3.5 * 2 ** 30
const HIGH_BYTES = 4 * 2 ** 30
/** Looked at; of more processors the first. Guesses. */
const MOST_CPUS = 64
const MOST_RINGS = 64
/** From the stack pointer upwards: what is returned to. A guess. */
const STACK_PAGES = 4
const SEGMENT_BYTES = 20
/** Of a segment: u32 selector, u64 base, u32 limit, u32 flags. */
const BASE_AT = 4
const PAGING = 1n << 31n
const LONG_MODE = 1n << 10n
const FIVE_LEVELS = 1n << 12n
const PRESENT = 1n
const LARGE = 1n << 7n
const FRAME = 0x000f_ffff_ffff_f000n

/** What of a physical address is there; empty where it is not RAM. */
export type ReadRam = (offset: number, length: number) => Uint8Array

/** Pages of RAM, each once. `stream`: of QEMU's, from its devices or sooner to its end. */
export function contextPages(stream: Uint8Array, memoryMiB: number, read: ReadRam): number[] {
  const all = Buffer.from(stream.buffer, stream.byteOffset, stream.length)
  const ramBytes = memoryMiB * 2 ** 20
  const pages = new Set<number>()
  const touch = (address: bigint): number | undefined => {
    const offset = offsetOf(address, ramBytes)
    if (offset !== undefined) pages.add(Math.floor(offset / PAGE_BYTES))
    return offset
  }
  for (const cpu of cpusOf(all)) for (const address of cpu.addresses) walk(cpu, address, touch, read)
  for (const { address, bytes } of ringsOf(all)) {
    for (let at = 0; at < bytes; at += PAGE_BYTES) touch(address + BigInt(at))
  }
  return [...pages]
}

interface Cpu {
  readonly table: bigint
  readonly levels: number
  /** Virtual. */
  readonly addresses: readonly bigint[]
}

/** Of the processors that are in 64-bit mode. */
function cpusOf(all: Buffer): Cpu[] {
  const end = endOf(all)
  if (end === undefined) return []
  const found: Cpu[] = []
  let from = 0
  for (const { name, instance, fields } of described(all.subarray(end + VMDESC_HEADER_BYTES))) {
    if (name !== 'cpu' || found.length >= MOST_CPUS) continue
    const at = sectionOf(all, { name, instance }, from)
    const header = at === undefined ? undefined : sectionAt(all, at)?.length
    if (at === undefined || header === undefined) continue
    from = at + header
    const cpu = cpuOf(all.subarray(from, end), fields)
    if (cpu !== undefined) found.push(cpu)
  }
  return found
}

function cpuOf(state: Buffer, fields: ReadonlyMap<string, number>): Cpu | undefined {
  const word = (name: string, plus = 0): bigint | undefined => {
    const at = fields.get(name)
    return at === undefined || at + plus + 8 > state.length ? undefined : state.readBigUInt64BE(at + plus)
  }
  const [cr0 = 0n, cr3, cr4 = 0n, efer = 0n] = [
    word('env.cr[0]'),
    word('env.cr[3]'),
    word('env.cr[4]'),
    word('env.efer')
  ]
  if (cr3 === undefined || (cr0 & PAGING) === 0n || (efer & LONG_MODE) === 0n) return undefined
  const stack = word('env.regs', 4 * 8) // RSP is the fifth
  const bases = ['env.tr', 'env.gdt', 'env.idt'].map(name => word(name, BASE_AT))
  const [fs, gs] = [4, 5].map(segment => word('env.segs', segment * SEGMENT_BYTES + BASE_AT))
  const stackPages = Array.from({ length: STACK_PAGES }, (_, i) => stack && stack + BigInt(i * PAGE_BYTES))
  const addresses = [word('env.eip'), ...stackPages, ...bases, gs, fs, word('env.kernelgsbase')]
  const known = addresses.filter(address => address !== undefined && address !== 0n)
  return { table: cr3 & FRAME, levels: (cr4 & FIVE_LEVELS) === 0n ? 4 : 5, addresses: known as bigint[] }
}

/** The tables on the way to an address, and its page. */
function walk(cpu: Cpu, address: bigint, touch: (address: bigint) => number | undefined, read: ReadRam): void {
  let table = cpu.table
  for (let level = cpu.levels; level > 0; level--) {
    const shift = BigInt(12 + 9 * (level - 1))
    const offset = touch(table)
    if (offset === undefined) return
    const bytes = read(offset + Number((address >> shift) & 511n) * 8, 8)
    const entry = bytes.length === 8 ? new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true) : 0n
    if ((entry & PRESENT) === 0n) return
    table = entry & FRAME
    const isLarge = level > 1 && level < 4 && (entry & LARGE) !== 0n
    if (isLarge) {
      const inside = (1n << shift) - 1n
      touch((table & ~inside) + (address & inside))
      return
    }
  }
  touch(table)
}

/** What looks like a ring in the state of a virtio device. Descriptors, then two rings: 26 bytes an entry, and up to a page between. */
function ringsOf(all: Buffer): { address: bigint; bytes: number }[] {
  const rings: { address: bigint; bytes: number }[] = []
  for (let name = all.indexOf('/virtio-'); name >= 0; name = all.indexOf('/virtio-', name + 1)) {
    const next = all.indexOf('/virtio-', name + 1)
    const end = Math.min(next < 0 ? all.length : next, name + 65_536)
    for (let at = name; at + 12 <= end && rings.length < MOST_RINGS; at++) {
      if (all[at] !== 0 || all[at + 1] !== 0) continue
      const entries = all.readUInt32BE(at)
      if (entries < 8 || entries > 1_024 || (entries & (entries - 1)) !== 0) continue
      const address = all.readBigUInt64BE(at + 4)
      if (address === 0n || address % 4_096n !== 0n || address >= 1n << 40n) continue
      rings.push({ address, bytes: 26 * entries + PAGE_BYTES })
    }
  }
  return rings
}

/** In pc.ram. */
function offsetOf(address: bigint, ramBytes: number): number | undefined {
  if (address >= BigInt(HIGH_BYTES + ramBytes)) return undefined
  const at = Number(address)
  if (ramBytes < HIGHEST_LOW_BYTES) return at < ramBytes ? at : undefined
  if (at < LOW_BYTES) return at
  const offset = at - HIGH_BYTES + LOW_BYTES
  return at >= HIGH_BYTES && offset < ramBytes ? offset : undefined
}

interface Described {
  readonly name: string
  readonly instance: number
  /** Field → where it begins in the state. */
  readonly fields: ReadonlyMap<string, number>
}

/** Empty where it is not as it should be. */
function described(json: Buffer): Described[] {
  let devices: unknown
  try {
    devices = (JSON.parse(json.toString()) as { devices?: unknown } | null)?.devices
  } catch {
    return []
  }
  if (!Array.isArray(devices)) return []
  return (devices as readonly unknown[]).flatMap(device => {
    const { name, instance_id: instance, fields } = (device ?? {}) as Record<string, unknown>
    if (typeof name !== 'string' || typeof instance !== 'number' || !Array.isArray(fields)) return []
    const starts = new Map<string, number>()
    let at = 0
    for (const field of fields as readonly unknown[]) {
      const { name: of, size, array_len: count = 1 } = (field ?? {}) as Record<string, unknown>
      if (typeof of !== 'string' || typeof size !== 'number' || typeof count !== 'number') return []
      if (!starts.has(of)) starts.set(of, at)
      at += size * count
    }
    return [{ name, instance, fields: starts }]
  })
}
