import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { contextPages } from '../../node/hypervisor/running-context.ts'

const PAGE = 4096
const MIB = 2 ** 20

/** As QEMU sends them: sections of devices, end, and the description of them all. */
function stream(devices: readonly { name: string; state: Buffer; fields: readonly object[] }[]): Buffer {
  const sections = devices.map(({ name, state }, id) => {
    const head = Buffer.alloc(6 + name.length + 8)
    head.writeUInt8(4, 0)
    head.writeUInt32BE(id, 1)
    head.writeUInt8(name.length, 5)
    head.write(name, 6, 'latin1')
    head.writeUInt32BE(12, 6 + name.length + 4)
    const footer = Buffer.alloc(5)
    footer.writeUInt8(0x7e, 0)
    footer.writeUInt32BE(id, 1)
    return Buffer.concat([head, state, footer])
  })
  const described = devices.map(({ name, fields }) => ({ name, instance_id: 0, vmsd_name: name, version: 12, fields }))
  const json = Buffer.from(JSON.stringify({ page_size: PAGE, devices: described }))
  const end = Buffer.alloc(6)
  end.writeUInt8(0, 0)
  end.writeUInt8(6, 1)
  end.writeUInt32BE(json.length, 2)
  return Buffer.concat([...sections, end, json])
}

const FIELDS = [
  { name: 'env.regs', array_len: 16, type: 'uint64', size: 8 },
  { name: 'env.eip', type: 'uint64', size: 8 },
  { name: 'env.segs', array_len: 6, type: 'struct', size: 20 },
  { name: 'env.cr[0]', type: 'uint64', size: 8 },
  { name: 'env.cr[3]', type: 'uint64', size: 8 },
  { name: 'env.cr[4]', type: 'uint64', size: 8 },
  { name: 'env.efer', type: 'uint64', size: 8 }
]

/** A processor that executes at `eip`, with its stack at `rsp`, by the table at `cr3`. */
function cpu({ rsp = 0n, eip = 0n, cr0 = 1n << 31n, cr3 = 0n, efer = 1n << 10n } = {}) {
  const words = (...all: readonly bigint[]): Buffer => {
    const out = Buffer.alloc(8 * all.length)
    for (const [i, word] of all.entries()) out.writeBigUInt64BE(word, 8 * i)
    return out
  }
  const regs = Array.from({ length: 16 }, (_, i) => (i === 4 ? rsp : 0n))
  return {
    name: 'cpu',
    fields: FIELDS,
    state: Buffer.concat([words(...regs, eip), Buffer.alloc(120), words(cr0, cr3, 0n, efer)])
  }
}

/** RAM with the tables that lead from page 1 to what is mapped. */
function mapped(pages: Readonly<Record<string, number>>) {
  const ram = Buffer.alloc(MIB)
  let next = 2
  const entry = (table: number, index: number): number => {
    const at = table * PAGE + 8 * index
    if ((ram.readBigUInt64LE(at) & 1n) === 0n) ram.writeBigUInt64LE((BigInt(next++) << 12n) | 3n, at)
    return Number((ram.readBigUInt64LE(at) & ~0xfffn) >> 12n)
  }
  for (const [virtual, page] of Object.entries(pages)) {
    const address = BigInt(virtual)
    let table = 1
    for (const level of [4, 3, 2]) table = entry(table, Number((address >> BigInt(12 + 9 * (level - 1))) & 511n))
    ram.writeBigUInt64LE((BigInt(page) << 12n) | 3n, table * PAGE + 8 * Number((address >> 12n) & 511n))
  }
  return {
    tables: Array.from({ length: next - 1 }, (_, i) => i + 1),
    read: (at: number, length: number) => ram.subarray(at, at + length)
  }
}

const sorted = (pages: readonly number[]) => pages.toSorted((a, b) => a - b)

describe('the context of a VM that stood still', () => {
  test('is its code, its stack and the tables that lead there', () => {
    const { tables, read } = mapped({ '0xffffffff81000000': 100, '0x7ffff000': 200 })
    const found = contextPages(stream([cpu({ eip: 0xffff_ffff_8100_0123n, rsp: 0x7fff_f800n, cr3: 0x1000n })]), 1, read)
    expect(sorted(found)).toEqual(sorted([...tables, 100, 200]))
  })

  test('is not looked for where no paging is, or nothing says what the fields are', () => {
    const { read } = mapped({ '0x1000': 100 })
    const bits = { eip: 0x1000n, cr3: 0x1000n }
    expect(contextPages(stream([cpu({ ...bits, cr0: 0n })]), 1, read)).toEqual([])
    expect(contextPages(stream([{ ...cpu(bits), fields: [] }]), 1, read)).toEqual([])
    const whole = stream([cpu(bits)])
    expect(contextPages(whole, 1, read)).not.toEqual([])
    expect(contextPages(whole.subarray(0, whole.length - 9), 1, read)).toEqual([])
  })

  test('has the rings of virtio devices', () => {
    const ring = Buffer.alloc(20)
    ring.writeUInt32BE(64, 4)
    ring.writeBigUInt64BE(0x9000n, 8)
    const nic = { name: '0000:00:02.0/virtio-net', state: ring, fields: [{ name: 'virtio', type: 'virtio', size: 20 }] }
    expect(contextPages(stream([nic]), 1, () => Buffer.alloc(8))).toEqual([9, 10])
  })

  test('of RAM on both sides of the gap below 4 GiB is found on both', () => {
    const at = (address: bigint) => {
      const found = contextPages(stream([cpu({ eip: 1n, cr3: address })]), 4096, () => Buffer.alloc(8))
      return found
    }
    expect(at(0x1_0000_0000n)).toEqual([(3 * 2 ** 30) / PAGE])
    expect(at(0xd000_0000n)).toEqual([])
    expect(at(0xb000_0000n)).toEqual([0xb0000])
    expect(at(0x1_4000_0000n)).toEqual([])
  })

  test('is pages of RAM whatever bytes come', () => {
    const whole = stream([cpu({ eip: 0x1000n, cr3: 0x1000n })])
    const change = fc.record({ at: fc.nat(whole.length - 1), byte: fc.nat(255) })
    fc.assert(
      fc.property(
        fc.array(change, { maxLength: 8 }),
        fc.uint8Array({ minLength: 8, maxLength: 8 }),
        (changes, entry) => {
          const bytes = Buffer.from(whole)
          for (const { at, byte } of changes) bytes[at] = byte
          const found = contextPages(bytes, 1, () => entry)
          for (const page of found)
            expect(page).toSatisfy((each: number) => Number.isInteger(each) && each >= 0 && each < 256)
        }
      )
    )
  })
})
