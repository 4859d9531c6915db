/** A stream in a second home: its bytes, sealed as they are in the cluster, as a list of chunks. Pure but for hashes. */
import { hash } from 'node:crypto'
import { z } from 'zod'
import { encodeFrame, invalid, openFrame, parseJson } from './frame.ts'

const HASH_BYTES = 32
/** 1 TiB and a little in chunks of 4 MiB. */
const MAX_CHUNKS = 1 << 19

export interface HomeStream {
  /** As images name it. */
  readonly stream: string
  readonly dataBytes: number
  /** Number of the data key under which it is sealed. */
  readonly key: number
  /** Of each chunk but the last, which has the rest. */
  readonly chunkBytes: number
  /** Hex SHA-256 of each. */
  readonly chunks: readonly string[]
}

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const headerSchema = z.strictObject({
  stream: z.string().max(300),
  dataBytes: count,
  key: count,
  chunkBytes: count.min(1).max(64 << 20)
})

/** Its name is the SHA-256 of its bytes. */
export function encodeStream({ chunks, ...header }: HomeStream): { readonly hash: string; readonly bytes: Uint8Array } {
  const bytes = encodeFrame('stream', Buffer.from(JSON.stringify(header)), Buffer.from(chunks.join(''), 'hex'))
  return { hash: hash('sha256', bytes), bytes }
}

/** HOME_INVALID. */
export function decodeStream(bytes: Uint8Array): HomeStream {
  const { header, more } = openFrame('stream', bytes)
  const facts = parseJson(headerSchema, header)
  const expected = Math.ceil(facts.dataBytes / facts.chunkBytes)
  if (expected > MAX_CHUNKS || more.length !== expected * HASH_BYTES)
    throw invalid(`${more.length} bytes of hashes for ${expected} chunks`)
  const hex = more.toString('hex')
  const chunks = Array.from({ length: expected }, (_, i) => hex.slice(i * 2 * HASH_BYTES, (i + 1) * 2 * HASH_BYTES))
  return { ...facts, chunks }
}
