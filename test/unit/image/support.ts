/** What the image tests share: QEMU's streams written and read plainly (whole buffers, no care for speed), a cluster in memory. */
import { hash } from 'node:crypto'
import { createCodec } from '../../../node/erasure/codec.ts'
import { decodeDiagonal } from '../../../node/erasure/decode.ts'
import { dataSymbolAt, diagonalMembers, gridShapeOf, locate, symbolHashOffset } from '../../../node/erasure/grid.ts'
import { DiapauseError } from '../../../node/errors.ts'
import type { VmFacts } from '../../../node/image/facts.ts'
import { encodeManifest, readManifest } from '../../../node/image/manifest.ts'
import { encodeStreamManifest } from '../../../node/image/stream-manifest.ts'
import type { ImageManifest, ShardCluster, StreamManifest } from '../../../node/ports.ts'

export const PAGE = 4096

/** A VM of 1 MiB without disks; what a test is about it names itself. */
export const factsOf = (over: Partial<VmFacts> = {}): VmFacts => ({
  group: 'g',
  vm: 'v',
  memoryMiB: 1,
  accel: 'tcg',
  key: new Uint8Array(32).fill(7),
  shape: { k: 3, m: 2, symbolBytes: 4096 },
  disks: [],
  ...over
})

export interface FakeMachine {
  blocks: { name: string; length: number }[]
  /** Block name → page number → 4096 bytes; missing pages are zero. */
  pages: Map<string, Map<number, Buffer>>
  devices: Buffer
}

export const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}
export const u64 = (value: number): Buffer => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64BE(BigInt(value))
  return out
}
export const str = (text: string): Buffer => Buffer.concat([Buffer.of(text.length), Buffer.from(text)])

const CONFIG = Buffer.concat([Buffer.of(7), u32(14), Buffer.from('pc-i440fx-test')])
const RAM_HEADER = Buffer.concat([Buffer.of(1), u32(2), str('ram'), u32(0), u32(4)])
const FOOTER = Buffer.concat([Buffer.of(0x7e), u32(2)])
const EOS = u64(0x10)

const section = (id: number, name: string, state: string): Buffer =>
  Buffer.concat([Buffer.of(4), u32(id), str(name), u32(0), u32(1), Buffer.from(state), Buffer.of(0x7e), u32(id)])

/** What QEMU says of the devices below. */
const VMDESC = Buffer.from(
  JSON.stringify({ page_size: PAGE, devices: ['cpu', 'nic'].map(name => ({ name, instance_id: 0, fields: [] })) })
)

/** A machine with a ROM beside its RAM, and two devices. */
export function fakeMachine(ram: ReadonlyMap<number, Buffer>, memoryMiB: number): FakeMachine {
  const rom = new Map([[1, Buffer.alloc(PAGE, 'rom')]])
  return {
    blocks: [
      { name: 'pc.ram', length: memoryMiB << 20 },
      { name: 'pc.bios', length: 4 * PAGE }
    ],
    pages: new Map([
      ['pc.ram', new Map(ram)],
      ['pc.bios', rom]
    ]),
    devices: Buffer.concat([section(7, 'cpu', 'registers\0\x06 and more'), section(9, 'nic', 'rings')])
  }
}

/** What QEMU sends of a machine whose RAM is shared: as of one without RAM, and marked so. */
export function deviceStream(machine: FakeMachine): Buffer {
  const others = new Map([...machine.pages].filter(([name]) => name !== 'pc.ram'))
  const whole = snapshotStream({ ...machine, pages: others }, 50, ['pc.ram'])
  const at = 8 + CONFIG.length
  const capability = Buffer.concat([str('configuration/capabilities'), u32(1), u32(1), str('x-ignore-shared')])
  return Buffer.concat([whole.subarray(0, at), Buffer.of(5), capability, whole.subarray(at)])
}

/**
 * The background snapshot that QEMU would send of it: `pagesPerSection` pages to a section. Blocks of `shared` have no
 * pages, and where there are any, addresses stand in the list.
 */
export function snapshotStream(machine: FakeMachine, pagesPerSection = 50, shared: readonly string[] = []): Buffer {
  const total = machine.blocks.reduce((sum, block) => sum + block.length, 0)
  const parts: Buffer[] = [Buffer.from('QEVM'), u32(3), CONFIG, RAM_HEADER, u64(total + 4)]
  for (const block of machine.blocks) {
    parts.push(str(block.name), u64(block.length))
    if (shared.length > 0) parts.push(u64(0xfffc0000))
  }
  parts.push(EOS, FOOTER)
  let last = ''
  let inSection = 0
  for (const { name, length } of machine.blocks) {
    if (shared.includes(name)) continue
    for (let page = 0; page < length / PAGE; page++) {
      if (inSection === 0) parts.push(Buffer.of(2), u32(2))
      const bytes = machine.pages.get(name)?.get(page)
      parts.push(u64(page * PAGE + (bytes ? 8 : 2) + (name === last ? 0x20 : 0)))
      if (name !== last) parts.push(str(name))
      parts.push(bytes ?? Buffer.of(0))
      last = name
      if (++inSection === pagesPerSection) {
        parts.push(EOS, FOOTER)
        inSection = 0
      }
    }
  }
  if (inSection > 0) parts.push(EOS, FOOTER)
  parts.push(Buffer.of(3), u32(2), EOS, FOOTER, machine.devices)
  parts.push(Buffer.of(0, 6), u32(VMDESC.length), VMDESC)
  return Buffer.concat(parts)
}

/** The whole-buffer reading of a snapshot: the slow version that the parser is checked against. */
export function readWholeSnapshot(bytes: Buffer) {
  const pages = new Map<string, Map<number, Buffer | undefined>>()
  const blocks: { name: string; length: number }[] = []
  let at = 8
  const config = bytes.subarray(at, at + 5 + bytes.readUInt32BE(at + 1))
  at += config.length
  let block = ''
  for (;;) {
    const type = bytes.readUInt8(at)
    if (type === 0x7e) {
      at += 5
      continue
    }
    if (type === 1 || type === 4) {
      const n = bytes.readUInt8(at + 5)
      if (bytes.toString('latin1', at + 6, at + 6 + n) !== 'ram') break
      at += 6 + n + 8
    } else at += 5
    for (;;) {
      const record = Number(bytes.readBigUInt64BE(at))
      const flags = record % PAGE
      const offset = record - flags
      at += 8
      if (flags === 0x10) break
      if (flags === 4) {
        for (let left = offset; left > 0; ) {
          const n = bytes.readUInt8(at)
          const name = bytes.toString('latin1', at + 1, at + 1 + n)
          const length = Number(bytes.readBigUInt64BE(at + 1 + n))
          blocks.push({ name, length })
          pages.set(name, new Map())
          left -= length
          at += 9 + n
        }
        continue
      }
      if ((flags & 0x20) === 0) {
        const n = bytes.readUInt8(at)
        block = bytes.toString('latin1', at + 1, at + 1 + n)
        at += 1 + n
      }
      const zero = (flags & 2) !== 0
      pages.get(block)?.set(offset, zero ? undefined : bytes.subarray(at, at + PAGE))
      at += zero ? 1 : PAGE
    }
  }
  for (let end = bytes.length - 6; end > at; end--) {
    if (bytes[end] === 0 && bytes[end + 1] === 6 && bytes.readUInt32BE(end + 2) === bytes.length - end - 6) {
      return { config, blocks, pages, devices: bytes.subarray(at, end) }
    }
  }
  throw new Error('no vmdesc')
}

/** Reads the whole stream of a post-copy source, to its EOF; throws RangeError where it is not whole. What is discarded is not there. */
export function readPostcopy(bytes: Buffer) {
  const ram = new Map<string, Map<number, Buffer>>()
  const commands: string[] = []
  let [at, block, sentTwice, before] = [13 + bytes.readUInt32BE(9), '', 0, 0]
  let devices: Buffer | undefined
  const text = (): string => {
    const name = bytes.toString('latin1', at + 1, at + 1 + bytes.readUInt8(at))
    at += 1 + name.length
    return name
  }
  for (;;) {
    const type = bytes.readUInt8(at)
    if (type === 0) return { ram, commands, devices, sentTwice, before }
    if (type === 8) {
      const id = bytes.readUInt16BE(at + 1)
      commands.push(`command ${id}`)
      const end = at + 5 + bytes.readUInt16BE(at + 3)
      if (id === 6) discard(ram.get('pc.ram'), bytes, end)
      at = end
      if (id !== 7) continue
      before = ram.get('pc.ram')?.size ?? 0
      const size = bytes.readUInt32BE(at - 4)
      devices = bytes.subarray(at + 5, at + size - 5) // between 'listen' and 'run'
      at += size
      continue
    }
    at += type === 1 ? 6 + bytes.readUInt8(at + 5) + 8 : 5
    for (;;) {
      const record = Number(bytes.readBigUInt64BE(at))
      const flags = record % PAGE
      at += 8
      if (flags === 0x10) break
      if (flags === 4) {
        for (let left = record - flags; left > 0; at += 8) {
          ram.set(text(), new Map())
          left -= Number(bytes.readBigUInt64BE(at))
        }
        continue
      }
      if ((flags & 0x20) === 0) block = text()
      const page = (record - flags) / PAGE
      if (ram.get(block)?.has(page)) sentTwice++
      ram.get(block)?.set(page, flags & 2 ? Buffer.alloc(PAGE) : bytes.subarray(at, at + PAGE))
      at += flags & 2 ? 1 : PAGE
    }
    at += 5
  }
}

function discard(ram: Map<number, Buffer> | undefined, command: Buffer, end: number): void {
  for (let at = command.lastIndexOf('pc.ram', end) + 7; at < end; at += 16) {
    const first = Number(command.readBigUInt64BE(at)) / PAGE
    const count = Number(command.readBigUInt64BE(at + 8)) / PAGE
    for (const page of ram?.keys() ?? []) if (page >= first && page < first + count) ram?.delete(page)
  }
}

/** The manifest as another host reads it: what its epochs have stored, put together. */
export function storedAndRead(manifest: ImageManifest): Promise<ImageManifest> {
  const { hash, objects } = encodeManifest(manifest)
  const stored = new Map(
    [...objects, ...manifest.streams.map(encodeStreamManifest)].map(each => [each.hash, each.bytes])
  )
  return readManifest(hash, async name => stored.get(name) ?? new Uint8Array())
}

/** All shards of a cluster in a map. `lose(c)` takes a column away everywhere, `findAll` brings all back, `tamper` flips a bit of one symbol. */
export class MemoryCluster implements ShardCluster {
  readonly #columns = new Map<string, Buffer>()
  readonly #lost = new Set<number>()
  readonly #codec = createCodec()
  reads = 0
  bytesPut = 0
  putsUnderway = 0
  putsUnderwayMax = 0
  /** Awaited before a put or a read counts. */
  beforePut: () => Promise<void> = async () => {}
  beforeRead: () => Promise<void> = async () => {}

  lose(column: number): void {
    this.#lost.add(column)
  }

  findAll(): void {
    this.#lost.clear()
  }

  tamper(stream: string, grid: number, column: number): void {
    const bytes = this.#columns.get(`${stream} ${grid} ${column}`)
    if (!bytes) throw new Error('no such column')
    bytes[0] = (bytes[0] ?? 0) ^ 1
  }

  async putColumn(manifest: { stream: string }, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    this.putsUnderway++
    this.putsUnderwayMax = Math.max(this.putsUnderwayMax, this.putsUnderway)
    try {
      await this.beforePut()
      this.bytesPut += bytes.length
      this.#columns.set(`${manifest.stream} ${grid} ${column}`, Buffer.from(bytes))
    } finally {
      this.putsUnderway--
    }
  }

  async readData(manifest: StreamManifest, offset: number, length: number): Promise<Uint8Array> {
    this.reads++
    await this.beforeRead()
    const out: Uint8Array[] = []
    for (const { grid, symbol, from, to } of locate(manifest, offset, length)) {
      const shape = gridShapeOf(manifest, grid)
      const { diagonal, row } = dataSymbolAt(shape, symbol)
      const symbols = diagonalMembers(shape, diagonal).map(place => {
        const all = this.#lost.has(place.column)
          ? undefined
          : this.#columns.get(`${manifest.stream} ${grid} ${place.column}`)
        const bytes = all?.subarray(place.row * shape.symbolBytes, (place.row + 1) * shape.symbolBytes)
        const at = symbolHashOffset(shape, place)
        const expected = Buffer.from(manifest.grids[grid]?.hashes.subarray(at, at + 16) ?? [])
        return bytes && expected.equals(hash('sha256', bytes, 'buffer').subarray(0, 16)) ? bytes : undefined
      })
      if (symbols.filter(Boolean).length < shape.k) {
        throw new DiapauseError('SHARD_LOST', `fewer than ${shape.k} symbols are left`)
      }
      const data = await decodeDiagonal(this.#codec, shape, symbols)
      out.push(data.subarray(row * shape.symbolBytes + from, row * shape.symbolBytes + to))
    }
    const copy = new Uint8Array(length)
    copy.set(Buffer.concat(out))
    return copy
  }

  async putManifest(): Promise<void> {}

  async getManifest(hash: string): Promise<Uint8Array> {
    throw new DiapauseError('MANIFEST_MISSING', hash)
  }
}

export const quietLog = { debug() {}, info() {}, warn() {}, error() {} }

/** The same bytes for the same seed. */
export function pageOf(seed: number): Buffer {
  const bytes = Buffer.alloc(PAGE)
  let x = (seed * 2654435761) >>> 0 || 1
  for (let i = 0; i < PAGE; i += 4) {
    x ^= (x << 13) >>> 0
    x ^= x >>> 17
    x = (x ^ (x << 5)) >>> 0
    // Half of it compresses, as RAM does.
    bytes.writeUInt32BE(i % 8 === 0 ? x : seed >>> 0, i)
  }
  return bytes
}
