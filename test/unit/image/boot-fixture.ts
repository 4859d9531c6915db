/** A boot part that is kept as bytes in `fixtures`: of an image with two streams and 512 pages of RAM. */
import type { BootPart } from '../../../node/image/boot-part.ts'

export const BOOT_RAM_PAGES = 512
export const BOOT_STREAMS = [{ dataBytes: 50_000 }, { dataBytes: 90_000 }] as const

export function bootFixture(): BootPart {
  return {
    salts: [new Uint8Array(16).fill(1), new Uint8Array(16).fill(2)],
    extents: [
      { ordinal: 0, kind: 'extent', extent: 3, offset: 4016, length: 2000 },
      { ordinal: 1, kind: 'extent', extent: 0, offset: 16, length: 66_000 },
      { ordinal: 1, kind: 'delta', extent: 1, offset: 66_016, length: 500 }
    ],
    pages: [
      { page: 7, how: 'asked', atMs: 0, age: 0, extent: 0, place: 5, delta: undefined, cold: false },
      { page: 300, how: 'asked', atMs: 70_000, age: 255, extent: 1, place: 15, delta: 2, cold: false },
      { page: 8, how: 'written', atMs: 1, age: 1, extent: undefined, place: 0, delta: undefined, cold: false },
      { page: 509, how: 'written', atMs: 2 ** 32 - 1, age: 3, extent: 0, place: 6, delta: undefined, cold: false },
      { page: 511, how: 'written', atMs: 3, age: 0, extent: undefined, place: 0, delta: undefined, cold: true }
    ]
  }
}
