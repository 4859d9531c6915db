import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type BootPart, decodeBootPart, encodeBootPart } from '../../../node/image/boot-part.ts'
import { pack } from '../../../node/image/seal.ts'
import { BOOT_RAM_PAGES, BOOT_STREAMS, bootFixture } from './boot-fixture.ts'

const extents = (count: number, length: number): BootPart['extents'] =>
  Array.from({ length: count }, (_, extent) => ({ ordinal: 1, kind: 'extent', extent, offset: 16, length }))
const decode = (bytes: Uint8Array): BootPart => {
  const { salts, extents, pages } = decodeBootPart(bytes, BOOT_RAM_PAGES, BOOT_STREAMS)
  return { salts, extents, pages }
}

describe('a boot part', () => {
  test('of format 1 is read as it was written then, and comes back as it was', () => {
    expect(decode(readFileSync(join(import.meta.dirname, 'fixtures/boot-part-1.bin')))).toEqual(bootFixture())
    expect(decode(encodeBootPart(bootFixture()))).toEqual(bootFixture())
  })

  test('of the first builds is read, which knew of another way to touch a page', () => {
    expect(decode(readFileSync(join(import.meta.dirname, 'fixtures/boot-part-1-first.bin')))).toEqual(bootFixture())
  })

  const [first, second] = bootFixture().pages
  test.each<[string, Partial<BootPart>]>([
    [
      'an extent outside of its stream',
      { extents: [{ ordinal: 0, kind: 'extent', extent: 0, offset: 49_000, length: 1_001 }] }
    ],
    ['an extent in no stream', { extents: [{ ordinal: 2, kind: 'extent', extent: 0, offset: 16, length: 100 }] }],
    ['so many extents that a restore cannot hold them', { extents: extents(2049, 100) }],
    ['extents that are too long in all', { extents: [...bootFixture().extents, ...extents(1700, 80_000)] }],
    ['a page twice', { pages: [first, first] as BootPart['pages'] }],
    ['a page beyond RAM', { pages: [{ ...first, page: BOOT_RAM_PAGES }] as BootPart['pages'] }],
    ['a page in an extent of deltas', { pages: [{ ...first, extent: 2 }] as BootPart['pages'] }],
    ['a delta in an extent of pages', { pages: [{ ...first, delta: 0 }] as BootPart['pages'] }],
    ['a delta of a page that is zero', { pages: [{ ...second, extent: undefined, place: 0 }] as BootPart['pages'] }],
    [
      'a page that is cold and has a delta',
      { pages: [{ ...second, extent: undefined, place: 0, cold: true }] as BootPart['pages'] }
    ],
    ['a stream too few', { salts: bootFixture().salts.slice(1) }]
  ])('is refused with %s', (_, wrong) => {
    const bytes = encodeBootPart({ ...bootFixture(), ...wrong })
    expect(() => decode(bytes)).toThrow(expect.objectContaining({ code: 'IMAGE_INVALID' }))
  })

  test('may list as many extents as a working set can lie in', () => {
    const part = { ...bootFixture(), extents: [...bootFixture().extents, ...extents(2000, 60_000)] }
    expect(decode(encodeBootPart(part))).toEqual(part)
  })

  test('answers any bytes with IMAGE_INVALID', () => {
    const property = fc.property(fc.uint8Array(), fc.boolean(), (bytes, packs) => {
      try {
        decode(packs ? Buffer.concat([Buffer.of(1), pack(bytes)]) : bytes)
      } catch (error) {
        expect(error).toMatchObject({ code: 'IMAGE_INVALID' })
      }
    })
    fc.assert(property, { numRuns: 300 })
  })
})

test('the first pages of a boot part are those that all of it begins with', () => {
  const part = decodeBootPart(encodeBootPart(bootFixture()), BOOT_RAM_PAGES, BOOT_STREAMS)
  expect(part.first(2)).toEqual(bootFixture().pages.slice(0, 2))
  expect(part.first(100)).toEqual(bootFixture().pages)
})
