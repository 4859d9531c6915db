import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ByteReader, ByteWriter } from '../../../node/image/bytes.ts'
import { decodeExtentLengths } from '../../../node/image/extent-lengths.ts'
import { decodeMachine, encodeMachine } from '../../../node/image/machine.ts'
import {
  decodeManifest,
  describeManifest,
  encodeManifest,
  type ImageHead,
  manifestHash,
  readManifest
} from '../../../node/image/manifest.ts'
import { decodeDirectory } from '../../../node/image/page-directory.ts'
import { decodePageIndex1 } from '../../../node/image/page-index-1.ts'
import { PageTable } from '../../../node/image/page-table.ts'
import { pack, StreamSeal, unpack } from '../../../node/image/seal.ts'
import { decodeSegments } from '../../../node/image/segment-records.ts'
import { decodeStreamManifest, encodeStreamManifest } from '../../../node/image/stream-manifest.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { BLOCKS, indexFixture, RAM_PAGES } from './index-fixture.ts'
import { storedAndRead } from './support.ts'

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

/** As its epoch has stored it: the manifest of its own stream, and its own. */
const [STREAM, IMAGE] = encodeManifest(MANIFEST).objects.map(({ bytes }) => Buffer.from(bytes)) as [Buffer, Buffer]

/** With another header, everything else right. Headers begin behind 16 bytes of magic, the format and a length. */
function rewritten(bytes: Buffer, change: (text: string) => string): Buffer {
  const at = bytes.indexOf('\n') + 2
  const end = at + 4 + bytes.readUInt32LE(at)
  const header = Buffer.from(change(bytes.toString('latin1', at + 4, end)), 'latin1')
  const length = Buffer.alloc(4)
  length.writeUInt32LE(header.length)
  const body = Buffer.concat([bytes.subarray(0, at), length, header, bytes.subarray(end, -32)])
  return Buffer.concat([body, createHash('sha256').update(body).digest()])
}

const fixture = (name: string): Buffer => readFileSync(join(import.meta.dirname, `fixtures/${name}.bin`))
const WITH_DISKS = { ...MANIFEST, disks: [{ blocks: 2560 }, { blocks: 256 }] }
const WITH_BOOT = { ...WITH_DISKS, boot: { offset: 900, length: 100 } }

describe('a manifest', () => {
  test('comes back as it was, and its name depends on nothing but its content', async () => {
    const { hash } = encodeManifest(MANIFEST)
    expect(await storedAndRead(MANIFEST)).toEqual(MANIFEST)
    expect(await storedAndRead(WITH_DISKS)).toEqual(WITH_DISKS)
    expect(await storedAndRead(WITH_BOOT)).toEqual(WITH_BOOT)
    const keyed = { ...MANIFEST, streams: MANIFEST.streams.map((stream, i) => ({ ...stream, key: i + 1 })) }
    expect(await storedAndRead(keyed)).toEqual(keyed)
    const reordered = Object.fromEntries(Object.entries(MANIFEST).reverse()) as unknown as ImageManifest
    expect(encodeManifest(reordered).hash).toBe(hash)
  })

  test('is as large as its own stream and what it is of: older streams it only names', () => {
    const grids = Array.from({ length: 1000 }, () => ({ symbolBytes: 4096, hashes: new Uint8Array(4 * 3 * 16) }))
    const large = { stream: 'bank/vm-1/2/8', k: 2, m: 1, holders: ['p', 'q', 'r', 's'], dataBytes: 8000 * 4096, grids }
    const { objects } = encodeManifest({ ...MANIFEST, streams: [large, ...MANIFEST.streams] })
    expect(objects.map(({ bytes }) => bytes.length < 2000)).toEqual([true, true])
  })

  test.each([
    ['1', 'ae6cc38e27b1e4e9c3aef6c63f7647a76808fd76942cc2307af63e29fd830bb7'],
    ['2', '6b5eaad265f507a179ba17a652159f64ed0ea518e634d0761e8446bc0b553214']
  ])('of format %s is read as it was written then', (format, name) => {
    const bytes = fixture(`manifest-${format}`)
    expect(manifestHash(bytes)).toBe(name)
    expect(decodeManifest(bytes)).toEqual(MANIFEST)
  })

  test.each([
    ['3', WITH_DISKS],
    ['4', WITH_BOOT]
  ])('of format %s is read as it was written then, with those of its streams', async (format, manifest) => {
    const older = encodeStreamManifest(MANIFEST.streams[0] as ImageManifest['streams'][number])
    const image = fixture(`manifest-${format}`)
    const all = [image, fixture('stream-manifest-1'), older.bytes]
    const get = async (name: string) => all.find(bytes => manifestHash(bytes) === name) ?? Buffer.alloc(0)
    expect(await readManifest(manifestHash(image), get)).toEqual(manifest)
  })

  test('is written in format 4, byte for byte as ever', () => {
    const stored = [fixture('stream-manifest-1'), fixture('manifest-4')]
    expect(encodeManifest(WITH_BOOT).objects.map(({ bytes }) => Buffer.from(bytes))).toEqual(stored)
  })

  test('of a stream that is not the one that was named, or not there, is refused', async () => {
    const { hash, objects } = encodeManifest(MANIFEST)
    const [own, image] = objects.map(({ bytes }) => bytes)
    const wrong = [own, new Uint8Array(), Buffer.from('x'.repeat(200))]
    for (const other of wrong) {
      const get = async (name: string) => (name === hash ? image : other) as Uint8Array
      await expect(readManifest(hash, get)).rejects.toMatchObject({ code: 'MANIFEST_INVALID' })
    }
  })

  test('says what it is of and what it leads to', () => {
    const streams = (decodeManifest(IMAGE) as ImageHead).streams
    expect(describeManifest(IMAGE)).toEqual({ about: 'bank/vm-1/3/17', streams })
    expect(streams.map(({ manifest }) => manifest)).toContain(manifestHash(STREAM))
    expect(describeManifest(STREAM)).toEqual({ about: 'bank/vm-1/3/17', streams: [] })
    expect(describeManifest(fixture('manifest-2'))).toMatchObject({ streams: [{ stream: 'bank/vm-1/2/9' }, {}] })
  })

  test.each([
    ['an image', IMAGE],
    ['a stream', STREAM]
  ])(
    'of %s is told to be damaged by itself, without its name, wherever a bit of it has changed or it ends',
    (_, good) => {
      for (let at = 0; at < good.length; at += 3) {
        const bytes = Buffer.from(good)
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8))
        expect(() => describeManifest(bytes), `byte ${at}`).toThrow(code('MANIFEST_INVALID'))
        expect(() => describeManifest(bytes.subarray(0, at))).toThrow(code('MANIFEST_INVALID'))
      }
    }
  )

  test('says in words what it is and how its bytes are made', () => {
    expect(IMAGE.toString('latin1')).toMatch(/^diapause image\n/)
    for (const word of ['"vm":"vm-1"', '"epoch":17', 'bank/vm-1/3/17']) expect(IMAGE.toString('latin1')).toContain(word)
    expect(STREAM.toString('latin1')).toMatch(/^diapause stream\n/)
    for (const word of ['AES-256-GCM', 'zstd', 'Reed-Solomon', 'bank/vm-1/3/17']) {
      expect(STREAM.toString('latin1')).toContain(word)
    }
  })

  test('of a format to come, or made otherwise, is refused by that name', () => {
    const later = Buffer.from(IMAGE)
    later[15] = 5
    expect(() => decodeManifest(later)).toThrow('format 5, and this version reads 1 to 4')
    expect(() => decodeStreamManifest(rewritten(STREAM, text => text.replace('"zstd', '"lz4')))).toThrow(/zstd/)
    expect(() => decodeManifest(rewritten(fixture('manifest-2'), text => text.replace('"zstd"', '"lz4"')))).toThrow(
      /zstd/
    )
  })

  test.each([
    ['a field that nobody knows', (text: string) => text.replace('{', '{"disk":[],')],
    ['a field missing', (text: string) => text.replace('"epoch":17,', '').replace('"k":2,', '')],
    ['a number written otherwise', (text: string) => text.replace(/"(epoch|k)":([0-9]+)/, '"$1":$2e0')],
    ['a name that is not UTF-8', (text: string) => text.replace('vm-1', 'vm\u00ff1')],
    ['spaces', (text: string) => text.replace('{', '{ ')],
    ['no JSON', () => '[{']
  ])('is refused with %s, though its checksum fits', (_, change) => {
    for (const bytes of [IMAGE, STREAM, fixture('manifest-2')]) {
      expect(() => describeManifest(rewritten(bytes, change))).toThrow(code('MANIFEST_INVALID'))
    }
  })

  test.each([
    ['grids of one size counted in two runs', (text: string) => text.replace('[4096,1]', '[4096,1],[4096,0]')],
    ['more grids than it has hashes of', (text: string) => text.replace('[4096,1]', '[4096,9007199254740991]')]
  ])('is refused with %s', (_, change) => {
    for (const bytes of [STREAM, fixture('manifest-2')]) {
      expect(() => describeManifest(rewritten(bytes, change))).toThrow(code('MANIFEST_INVALID'))
    }
  })

  test('is refused with MANIFEST_INVALID where it is changed', () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 })
    const property = fc.property(fc.constantFrom(IMAGE, STREAM), changes, fc.nat(), (good, each, cut) => {
      const bytes = Buffer.from(good.subarray(0, cut % 3 === 0 ? cut % good.length : good.length))
      for (const [at, value] of each) if (bytes.length > 0) bytes[at % bytes.length] = value
      try {
        describeManifest(bytes)
        expect(bytes.equals(good)).toBe(true)
      } catch (error) {
        expect(error).toMatchObject({ code: 'MANIFEST_INVALID' })
      }
    })
    fc.assert(property, { numRuns: 1000 })
  })

  test('is refused where its parts contradict each other', async () => {
    const [older, last] = MANIFEST.streams
    if (!older || !last) throw new Error('two streams')
    const wrong: Partial<ImageManifest>[] = [
      { streams: [] },
      { streams: [last, last] },
      { frames: { offset: last.dataBytes, length: 1 } },
      { boot: { offset: last.dataBytes, length: 1 } },
      { streams: [{ ...older, dataBytes: 8 * 4096 }, last] },
      { streams: [{ ...older, dataBytes: 1 << 20 }, last] },
      { streams: [{ ...older, holders: ['p', 'q'] }, last] },
      { streams: [{ ...older, grids: [] }, last] }
    ]
    for (const part of wrong) {
      const reading = async () => storedAndRead({ ...MANIFEST, ...part })
      await expect(reading()).rejects.toMatchObject({ code: 'MANIFEST_INVALID' })
    }
  })
})

/** As `JSON.stringify` hands it on, bytes of any class as hex. */
const bytesOrSame = (value: unknown): unknown => {
  const { type, data } = (value ?? {}) as { type?: unknown; data?: number[] }
  if (type === 'Buffer' && data) return Buffer.from(data).toString('hex')
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value
}

describe('the page index of format 1', () => {
  test('is read as it was written then', () => {
    const bytes = fixture('page-index-1')
    const table = decodePageIndex1(bytes, 300, 0, MANIFEST.streams)
    for (let page = 0; page < 300; page++) {
      const place = page % 5 === 0 ? undefined : { slot: page % 2, locator: (page * 7) % 160 }
      expect(table.placeOf(page), `page ${page}`).toEqual(place)
    }
    expect(table.streams.map(stream => [stream?.pages, [...(stream?.extentLengths ?? [])]])).toEqual([
      [160, Array.from({ length: 10 }, () => 700)],
      [161, Array.from({ length: 10 }, () => 701)]
    ])
  })
})

describe('the page index of format 2', () => {
  test('is read as it was written then', () => {
    const { table, order, streams } = indexFixture()
    const manifests = [{ dataBytes: 10_000 }, { dataBytes: 30_000 }]
    const directory = decodeDirectory(fixture('page-directory-2'), RAM_PAGES, BLOCKS, manifests)
    expect(directory.streams).toEqual(
      streams.map(({ extentLengths, ...stream }, i) => ({ ...stream, slot: order[i], extents: extentLengths.length }))
    )
    expect(directory.segments).toEqual([0, 1, 2].map(number => table.recordOf(number)))
    const back = new PageTable(RAM_PAGES, BLOCKS)
    decodeSegments(fixture('segments-1'), back, new Set([0, 2]), [undefined, undefined, 160, undefined, undefined, 480])
    for (let page = 0; page < RAM_PAGES + BLOCKS; page++) {
      expect([back.placeOf(page), back.deltaOf(page)]).toEqual([table.placeOf(page), table.deltaOf(page)])
    }
    expect([...decodeExtentLengths(fixture('extent-lengths-1'), 3, 100_000)]).toEqual([16, 700, 66_000])
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

  test('of format 1 are read as they were written then', () => {
    const bytes = readFileSync(join(import.meta.dirname, 'fixtures/machine-1.bin'))
    const { machine, bootPages } = decodeMachine(bytes)
    const plain = (value: unknown) => JSON.parse(JSON.stringify(value, (_, each) => bytesOrSame(each))) as unknown
    expect(plain({ machine, bootPages })).toEqual(plain(part))
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
