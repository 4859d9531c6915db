/**
 * The record of a base: the value of register `base/BASE`. A base is a file that disks begin with; BASE is the hex SHA-256 of
 * its format and bytes. Its content is stored once in the cluster, as a stream `.base/BASE/0/NONCE` that belongs to no group,
 * and images of any VM refer to that. The register says which stream it is, or who is just storing one. What it has said
 * before counts no more: whoever cannot read the stream stores another.
 */
import { z } from 'zod'
import type { PeerId } from './core.ts'

export interface BaseRecord {
  /** Who stores or stored it; '': who wanted to has given up. */
  readonly by: PeerId
  /** Of the stream: no two have the same. */
  readonly nonce: number
  /** Null: it is not stored yet. */
  readonly stored: StoredBase | null
}

export interface StoredBase {
  /** Hash of the stream's manifest. */
  readonly manifest: string
  /** Extents of the stream, and blocks that lie in them: all of the base that are not zero, in their order. */
  readonly extents: number
  readonly blocks: number
  /** Bytes of the stream that hold its extents' lengths. */
  readonly lengths: { readonly offset: number; readonly length: number }
}

/** What stands in a stream's name where others have a group: no group's name begins with a dot. */
export const BASES = '.base'
/** Nonces are below: a stream's name has 15 digits for one (protocols/shards/generations.ts). */
export const NONCES = 1e15

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const recordSchema = z.strictObject({
  by: z.string().max(100),
  nonce: count.max(NONCES - 1),
  stored: z
    .strictObject({
      manifest: z.string().regex(/^[0-9a-f]{64}$/),
      extents: count.max(2 ** 28),
      blocks: count.max(2 ** 32),
      lengths: z.strictObject({ offset: count, length: count })
    })
    .nullable()
})

export const baseKey = (base: string): string => `base/${base}`

export const baseStream = (base: string, nonce: number): string => `${BASES}/${base}/0/${nonce}`

export const isBaseStream = (stream: string): boolean => stream.startsWith(`${BASES}/`)

/** Undefined for anything that is not the value of such a register: also where there is none. */
export function parseBaseRecord(value: unknown): BaseRecord | undefined {
  return recordSchema.safeParse(value).data
}
