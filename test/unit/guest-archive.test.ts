import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cpioArchive, kernelElf, lz4Block, unsigned } from '../guest/archive.ts'

describe('an initramfs', () => {
  it('is a newc archive: headers of hex fields, names and data padded to four bytes, a trailer', () => {
    const bytes = cpioArchive([
      { path: 'bin', mode: 0o040755, data: new Uint8Array() },
      { path: 'bin/x', mode: 0o100755, data: Buffer.from('hello') }
    ])
    const found: [string, number, string][] = []
    for (let at = 0; at < bytes.length; ) {
      const field = (i: number) => Number.parseInt(bytes.toString('latin1', at + 6 + 8 * i, at + 14 + 8 * i), 16)
      expect(bytes.toString('latin1', at, at + 6)).toBe('070701')
      const [mode, size, nameSize] = [field(1), field(6), field(11)]
      const data = (at + 110 + nameSize + 3) & ~3
      found.push([
        bytes.toString('latin1', at + 110, at + 109 + nameSize),
        mode,
        bytes.toString('latin1', data, data + size)
      ])
      at = (data + size + 3) & ~3
    }
    expect(found).toEqual([
      ['bin', 0o040755, ''],
      ['bin/x', 0o100755, 'hello'],
      ['TRAILER!!!', 0, '']
    ])
  })
})

describe('a kernel module', () => {
  /** As scripts/sign-file of the kernel appends it. */
  const signed = (module: Buffer, signature: Buffer, signatureBytes = signature.length): Buffer => {
    const facts = Buffer.from([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    facts.writeUInt32BE(signatureBytes, 8)
    return Buffer.concat([module, signature, facts, Buffer.from('~Module signature appended~\n')])
  }

  it('is what it was before it was signed', () => {
    const bytes = fc.uint8Array({ maxLength: 300 }).map(each => Buffer.from(each))
    fc.assert(
      fc.property(bytes, bytes, (module, signature) => {
        expect(unsigned(signed(module, signature))).toEqual(module)
        expect(unsigned(module)).toEqual(module)
      })
    )
  })

  it('is empty where its signature claims more than there is', () => {
    expect(unsigned(signed(Buffer.from('module'), Buffer.alloc(4), 1_000))).toHaveLength(0)
  })
})

/** A plain LZ4 block compressor: the longest match at the nearest distance, found by trying all. */
function compress(data: Uint8Array): Uint8Array {
  const out: number[] = []
  const more = (rest: number) => {
    for (; rest >= 255; rest -= 255) out.push(255)
    out.push(rest)
  }
  let literals = 0
  const sequence = (at: number, distance: number, match: number) => {
    const count = at - literals
    out.push((Math.min(count, 15) << 4) | (distance === 0 ? 0 : Math.min(match - 4, 15)))
    if (count >= 15) more(count - 15)
    for (let i = literals; i < at; i++) out.push(data[i] ?? 0)
    if (distance === 0) return
    out.push(distance & 255, distance >> 8)
    if (match - 4 >= 15) more(match - 19)
  }
  for (let at = 0; at < data.length - 5; ) {
    let best = { distance: 0, length: 0 }
    for (let distance = 1; distance <= at; distance++) {
      let length = 0
      while (at + length < data.length - 5 && data[at + length] === data[at + length - distance]) length++
      if (length > best.length) best = { distance, length }
    }
    if (best.length < 4) at++
    else {
      sequence(at, best.distance, best.length)
      at += best.length
      literals = at
    }
  }
  sequence(data.length, 0, 0)
  return Uint8Array.from(out)
}

const repetitive = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.tuple(fc.nat(3), fc.nat(300)).map(([byte, n]) => new Uint8Array(n).fill(byte))
    ),
    { maxLength: 5 }
  )
  .map(parts => Uint8Array.from(Buffer.concat(parts)))

/** As the kernel's build lays it out: boot sector with header, setup code, LZ4 legacy payload, its size. */
function bzImage(payload: Uint8Array): Buffer {
  const block = compress(payload)
  const image = Buffer.alloc(1024 + 16 + 8 + block.length + 4)
  image[0x1f1] = 1
  image.write('HdrS', 0x202)
  image.writeUInt32LE(16, 0x248)
  image.writeUInt32LE(8 + block.length + 4, 0x24c)
  image.writeUInt32LE(0x184c2102, 1040)
  image.writeUInt32LE(block.length, 1044)
  image.set(block, 1048)
  image.writeUInt32LE(payload.length, 1048 + block.length)
  return image
}

describe('the kernel inside a bzImage', () => {
  it('is what was compressed', () => {
    fc.assert(
      fc.property(repetitive, data => {
        const out = new Uint8Array(data.length)
        expect(lz4Block(compress(data), out)).toBe(data.length)
        expect(out).toEqual(data)
      })
    )
    const elf = Buffer.concat([Buffer.from('\x7fELF', 'latin1'), Buffer.alloc(500, 'kernel')])
    expect(kernelElf(bzImage(elf))?.equals(elf)).toBe(true)
  })

  it('is not taken from an image that is no ELF, cut off, or compressed in another way', () => {
    expect(kernelElf(bzImage(Buffer.alloc(300, 'x')))).toBeUndefined()
    expect(kernelElf(bzImage(Buffer.from('\x7fELFxyz', 'latin1')).subarray(0, 1045))).toBeUndefined()
    expect(kernelElf(Buffer.alloc(4096))).toBeUndefined()
  })

  it('never reads or writes outside of its buffers on a block of garbage', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(400), (block, size) => {
        expect(() => {
          const written = lz4Block(block, new Uint8Array(size))
          // The one error it may throw also stands for a result that cannot be.
          if (written <= size) throw new RangeError('not an LZ4 block: or one that fits')
        }).toThrow(/^not an LZ4 block/)
      })
    )
  })
})
