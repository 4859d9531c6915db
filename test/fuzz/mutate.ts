/**
 * Mutations of bytes and of values, all from one source of chance. They know no format, but what formats are made of:
 * lengths before what they measure, repeated parts, numbers near the edge of their width. Pure.
 */
import type { Random } from '../../protocols/core.ts'

const EDGES = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fff_ffffn,
  0xffff_ffffn,
  1n << 53n,
  (1n << 64n) - 1n
]
const WIDTHS = [1, 2, 4, 8] as const
/** Where length fields are looked for, in vain at most. */
const TRIES = 48
const MOST_MUTATIONS = 6
const MOST_COPIED = 4096
/** Where formats have their headers. */
const HEAD_BYTES = 512

export const below = (random: Random, count: number): number => Math.floor(random() * count)

const pick = <T>(random: Random, list: readonly T[]): T => list[below(random, list.length)] as T

/** `input` after one to six mutations; the caller's own. `others`: parts of them may come in. */
export function mutate(input: Uint8Array, random: Random, others: readonly Uint8Array[] = []): Uint8Array {
  let bytes: Buffer = Buffer.from(input)
  const times = 1 + Math.min(MOST_MUTATIONS - 1, Math.floor(-Math.log2(1 - random())))
  for (let i = 0; i < times; i++) bytes = pick(random, MUTATIONS)(bytes, random, others)
  return bytes
}

type Mutation = (bytes: Buffer, random: Random, others: readonly Uint8Array[]) => Buffer

const MUTATIONS: readonly Mutation[] = [
  flip,
  set,
  cut,
  remove,
  insert,
  repeat,
  splice,
  anyField,
  lengthField,
  lengthField
]

function flip(bytes: Buffer, random: Random): Buffer {
  const at = place(bytes, random)
  if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(random, 8))
  return bytes
}

function set(bytes: Buffer, random: Random): Buffer {
  const at = place(bytes, random)
  if (at < bytes.length) bytes[at] = below(random, 256)
  return bytes
}

function cut(bytes: Buffer, random: Random): Buffer {
  return bytes.subarray(0, place(bytes, random))
}

function remove(bytes: Buffer, random: Random): Buffer {
  const at = place(bytes, random)
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + extent(bytes.length - at, random))])
}

function insert(bytes: Buffer, random: Random): Buffer {
  const at = place(bytes, random)
  const fill = random() < 0.5 ? 0 : undefined
  const added = Uint8Array.from({ length: 1 + below(random, 16) }, () => fill ?? below(random, 256))
  return Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at)])
}

/** A part once more, behind itself or elsewhere. */
function repeat(bytes: Buffer, random: Random): Buffer {
  const from = place(bytes, random)
  const part = bytes.subarray(from, from + extent(bytes.length - from, random))
  const at = random() < 0.5 ? from + part.length : place(bytes, random)
  return Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at)])
}

/** A part of another input in the place of as many bytes here. */
function splice(bytes: Buffer, random: Random, others: readonly Uint8Array[]): Buffer {
  const other = others.length > 0 ? pick(random, others) : bytes
  const from = below(random, other.length)
  const part = other.subarray(from, from + extent(other.length - from, random))
  const at = place(bytes, random)
  return Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at + part.length)])
}

/** Some number, of any width and order of bytes, becomes another. */
function anyField(bytes: Buffer, random: Random): Buffer {
  const width = pick(random, WIDTHS)
  return putField(bytes, { at: place(bytes, random), width, big: random() < 0.5 }, random)
}

/** A number that could be the length of what comes behind it becomes another. */
function lengthField(bytes: Buffer, random: Random): Buffer {
  for (let i = 0; i < TRIES; i++) {
    const field = { at: place(bytes, random), width: pick(random, WIDTHS), big: random() < 0.5 }
    const value = getField(bytes, field)
    if (value > 0n && value <= BigInt(bytes.length - field.at)) return putField(bytes, field, random)
  }
  return bytes
}

interface Field {
  readonly at: number
  readonly width: (typeof WIDTHS)[number]
  readonly big: boolean
}

/** 0 where it is not there. */
function getField(bytes: Buffer, { at, width, big }: Field): bigint {
  if (at + width > bytes.length) return 0n
  if (width === 8) return big ? bytes.readBigUInt64BE(at) : bytes.readBigUInt64LE(at)
  return BigInt(big ? bytes.readUIntBE(at, width) : bytes.readUIntLE(at, width))
}

function putField(bytes: Buffer, field: Field, random: Random): Buffer {
  const { at, width, big } = field
  if (at + width > bytes.length) return bytes
  const before = getField(bytes, field)
  const near = [before + 1n, before - 1n, before * 2n, before / 2n, before + 0x1000n, BigInt(bytes.length - at)]
  const value = BigInt.asUintN(8 * width, random() < 0.6 ? pick(random, near) : pick(random, EDGES))
  for (let i = 0; i < width; i++) {
    bytes[at + i] = Number((value >> BigInt(8 * (big ? width - 1 - i : i))) & 0xffn)
  }
  return bytes
}

/** Half of all changes are near the beginning. */
const place = (bytes: Uint8Array, random: Random): number =>
  below(random, (random() < 0.5 ? Math.min(bytes.length, HEAD_BYTES) : bytes.length) + 1)

const extent = (left: number, random: Random): number =>
  Math.min(left, 1 + below(random, random() < 0.7 ? 16 : MOST_COPIED))

// ---------------------------------------------------------------------------------------------- values

const NUMBERS = [0, 1, -1, 0.5, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e308, NaN, -Infinity]
const TEXTS = ['', 'a', '__proto__', 'x'.repeat(3000), '\u0000', 'é😀']
const VALUES: readonly unknown[] = [null, true, [], [[]], {}, new Uint8Array(3), ...NUMBERS, ...TEXTS]

/** A copy of `value`, plain data, in which one part is gone, has come twice or is another. */
export function mutateValue(value: unknown, random: Random): unknown {
  const parts = typeof value === 'object' && value !== null && !(value instanceof Uint8Array) ? Object.keys(value) : []
  if (parts.length === 0 || random() < 0.1) return pick(random, VALUES)
  const key = pick(random, parts)
  if (Array.isArray(value)) {
    const [list, at, what] = [[...(value as unknown[])], Number(key), random()]
    if (what < 0.1) list.splice(at, 1)
    else if (what < 0.2) list.push(...Array.from({ length: 1 + below(random, 70) }, () => list[at]))
    else list[at] = mutateValue(list[at], random)
    return list
  }
  const entries = Object.entries(value as object)
  const at = parts.indexOf(key)
  const what = random()
  if (what < 0.1) entries.splice(at, 1)
  else if (what < 0.15) entries.push([pick(random, ['__proto__', 'constructor', 'extra', '']), pick(random, VALUES)])
  else entries[at] = [key, mutateValue(entries[at]?.[1], random)]
  return Object.fromEntries(entries)
}
