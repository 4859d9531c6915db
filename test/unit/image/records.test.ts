import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ByteReader, ByteWriter } from '../../../node/image/bytes.ts'
import { decodeMachine, encodeMachine } from '../../../node/image/machine.ts'
import { decodeManifest, encodeManifest, manifestHash } from '../../../node/image/manifest.ts'
import { pack, StreamSeal, unpack } from '../../../node/image/seal.ts'
import type { ImageManifest } from '../../../node/ports.ts'

const code = (name: string) => expect.objectContaining({ code: name })

describe('records of bytes', () => {
  test('grow in the middle of any value and come back', () => {
    const value = fc.oneof(fc.string({ unit: 'grapheme' }), fc.uint8Array(), fc.nat(0xffffffff))
    const property = fc.property(fc.array(value), values => {
      const out = new ByteWriter(1)
      for (const v of values) {
        if (typeof v === 'string') out.text(v)
        else if (typeof v === 'number') out.u53(v * 2 ** 20).u32(v)
        else out.blob(v)
      }
      const reader = new ByteReader(out.bytes(), what => new Error(what))
      for (const v of values) {
        if (typeof v === 'string') expect(reader.text(65_535)).toBe(v)
        else if (typeof v === 'number') expect([reader.u53(), reader.u32()]).toEqual([v * 2 ** 20, v])
        else expect(reader.blob(1 << 20)).toEqual(v)
      }
      reader.end()
    })
    fc.assert(property)
  })
})

describe('a seal', () => {
  const key = new Uint8Array(32).fill(1)
  const salt = new Uint8Array(16).fill(2)
  const seal = new StreamSeal(key, 'g/v/1/2', salt)
  const plain = Buffer.from('sixteen pages of RAM')

  test('opens what it sealed, at the place it was sealed for', () => {
    expect(Buffer.from(seal.open('extent', 7, seal.seal('extent', 7, plain)))).toEqual(plain)
  })

  test.each([
    ['another counter', seal, 'extent', 8],
    ['another kind', seal, 'frames', 7],
    ['another stream', new StreamSeal(key, 'g/v/1/3', salt), 'extent', 7],
    ['another salt', new StreamSeal(key, 'g/v/1/2', new Uint8Array(16)), 'extent', 7],
    ['another key', new StreamSeal(new Uint8Array(32), 'g/v/1/2', salt), 'extent', 7]
  ] as const)('does not open under %s', (_, other, kind, counter) => {
    expect(() => other.open(kind, counter, seal.seal('extent', 7, plain))).toThrow(code('IMAGE_SEAL'))
  })

  test('does not open where any byte was changed or is missing', () => {
    const sealed = Buffer.from(seal.seal('index', 0, plain))
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed)
      changed[at] = (changed[at] ?? 0) ^ 0x10
      expect(() => seal.open('index', 0, changed)).toThrow(code('IMAGE_SEAL'))
      expect(() => seal.open('index', 0, sealed.subarray(0, at))).toThrow(code('IMAGE_SEAL'))
    }
  })

  test('unpacks no more than it is told', () => {
    const packed = pack(new Uint8Array(100_000))
    expect(unpack(packed, 100_000).length).toBe(100_000)
    expect(() => unpack(packed, 99_999)).toThrow(code('IMAGE_INVALID'))
  })
})

const MANIFEST: ImageManifest = {
  format: 1,
  group: 'bank',
  vm: 'vm-1',
  generation: 3,
  epoch: 17,
  memoryMiB: 256,
  accel: 'kvm',
  streams: ['bank/vm-1/2/9', 'bank/vm-1/3/17'].map((stream, i) => ({
    stream,
    k: 2,
    m: 1,
    holders: ['p', 'q', 'r', 's'],
    dataBytes: 8 * 4096 + 8 * 64 - i,
    grids: [
      { symbolBytes: 4096, hashes: new Uint8Array(4 * 3 * 16).fill(i) },
      { symbolBytes: 64, hashes: new Uint8Array(4 * 3 * 16).fill(9) }
    ]
  })),
  machine: { offset: 1000, length: 10 },
  index: { offset: 1010, length: 20 },
  frames: { offset: 1030, length: 0 },
  stats: {
    pages: 65_536,
    pagesNonZero: 4,
    pagesChanged: 3,
    bytesRaw: 2 ** 40,
    bytesData: 5,
    bytesStored: 9,
    inFlightFrames: 1
  }
}

describe('a manifest', () => {
  test('comes back as it was, and its name depends on nothing but its content', () => {
    const bytes = encodeManifest(MANIFEST)
    expect(decodeManifest(bytes)).toEqual(MANIFEST)
    const reordered = Object.fromEntries(Object.entries(MANIFEST).reverse()) as unknown as ImageManifest
    expect(manifestHash(encodeManifest(reordered))).toBe(manifestHash(bytes))
    expect(manifestHash(bytes)).toBe('ae6cc38e27b1e4e9c3aef6c63f7647a76808fd76942cc2307af63e29fd830bb7')
  })

  test('is refused with MANIFEST_INVALID where it is changed, unless it is then another whole manifest', () => {
    const good = encodeManifest(MANIFEST)
    const property = fc.property(
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
      fc.nat(),
      (changes, cut) => {
        const bytes = good.slice(0, cut % 3 === 0 ? cut % good.length : good.length)
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        try {
          expect(Buffer.from(encodeManifest(decodeManifest(bytes)))).toEqual(Buffer.from(bytes))
        } catch (error) {
          expect(error).toMatchObject({ code: 'MANIFEST_INVALID' })
        }
      }
    )
    fc.assert(property, { numRuns: 1000 })
  })

  test('is refused where its parts contradict each other', () => {
    const [older, last] = MANIFEST.streams
    if (!older || !last) throw new Error('two streams')
    const wrong: Partial<ImageManifest>[] = [
      { streams: [] },
      { streams: [last, last] },
      { frames: { offset: last.dataBytes, length: 1 } },
      { streams: [{ ...older, dataBytes: 8 * 4096 }, last] },
      { streams: [{ ...older, dataBytes: 1 << 20 }, last] },
      { streams: [{ ...older, holders: ['p', 'q'] }, last] },
      { streams: [{ ...older, grids: [] }, last] }
    ]
    for (const part of wrong) {
      expect(() => decodeManifest(encodeManifest({ ...MANIFEST, ...part }))).toThrow(code('MANIFEST_INVALID'))
    }
  })
})

describe('the machine part and the frames', () => {
  const part = {
    machine: {
      config: Buffer.from('\u0007\0\0\0\u0006config', 'latin1'),
      ramHeader: Buffer.from('\u0001\0\0\0\u0002\u0003ram\0\0\0\0\0\0\0\u0004', 'latin1'),
      ramId: 2,
      blocks: [
        { name: 'pc.ram', length: 2 ** 33 },
        { name: 'rom', length: 8192 }
      ],
      devices: Buffer.alloc(1000, 3)
    },
    bootPages: [{ block: 1, offset: 4096, bytes: Buffer.alloc(4096, 5) }]
  }

  test('come back as they were', () => {
    const back = decodeMachine(encodeMachine(part))
    expect(back.machine.blocks).toEqual(part.machine.blocks)
    expect(Buffer.from(back.machine.devices)).toEqual(part.machine.devices)
    expect(Buffer.from(back.bootPages[0]?.bytes ?? [])).toEqual(part.bootPages[0]?.bytes)
  })

  test('are refused where a page lies outside of its block', () => {
    const outside = { ...part, bootPages: [{ block: 1, offset: 8192, bytes: Buffer.alloc(4096) }] }
    expect(() => decodeMachine(encodeMachine(outside))).toThrow(code('IMAGE_INVALID'))
  })

  test.each([
    ['sections that are none', { config: Buffer.from('config') }],
    ['the RAM section of another id', { ramId: 3 }],
    ['no pc.ram', { blocks: [{ name: 'rom', length: 8192 }] }],
    ['two blocks of one name', { blocks: ['pc.ram', 'rom', 'rom'].map(name => ({ name, length: 8192 })) }],
    ['a name that QEMU has no room for', { blocks: ['pc.ram', 'rom\u0100'].map(name => ({ name, length: 8192 })) }],
    ['a block of half a page', { blocks: ['pc.ram', 'rom'].map(name => ({ name, length: 2048 })) }],
    ['ROMs without end', { blocks: ['pc.ram', 'rom'].map(name => ({ name, length: 2 ** 40 })) }]
  ])('are refused with %s: QEMU would have to be sent that', (_, wrong) => {
    const bytes = encodeMachine({ machine: { ...part.machine, ...wrong }, bootPages: [] })
    expect(() => decodeMachine(bytes)).toThrow(code('IMAGE_INVALID'))
  })

  test('answer any bytes with IMAGE_INVALID', () => {
    const property = fc.property(fc.uint8Array(), fc.boolean(), (bytes, packs) => {
      try {
        decodeMachine(packs ? pack(bytes) : bytes)
      } catch (error) {
        expect(error).toMatchObject({ code: 'IMAGE_INVALID' })
      }
    })
    fc.assert(property, { numRuns: 300 })
  })
})
