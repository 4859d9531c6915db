/**
 * An image on its way between a peer and the command line, as one stream of records:
 *
 *     u8 kind | u32 length, big-endian | payload
 *
 * First what it is of (`about`), then for each file `file` with its name and its bytes in `data`, at last `end`, or `error`
 * with a code and a message: whoever reads knows by it that nothing is missing. Payloads but data are JSON. Pure.
 */
import { DiapauseError } from '../errors.ts'

export type ImageRecord =
  | { readonly kind: 'about'; readonly value: unknown }
  | { readonly kind: 'file'; readonly value: unknown }
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | { readonly kind: 'end' }
  | { readonly kind: 'error'; readonly value: unknown }

const KINDS = ['about', 'file', 'data', 'end', 'error'] as const
const HEADER_BYTES = 5
/** Of JSON: a specification has a few kilobytes. */
const MAX_JSON_BYTES = 1 << 20
/** Pieces of files are as sockets give them, or a cluster of a disk. */
export const MAX_DATA_BYTES = 4 << 20

/** Header and payload, to be written one after the other; the payload of `data` is not copied. */
export function encodeRecord(record: ImageRecord): Uint8Array[] {
  const payload =
    record.kind === 'data' ? record.bytes : Buffer.from('value' in record ? JSON.stringify(record.value) : '')
  if (payload.length > MAX_DATA_BYTES) throw new TypeError(`a record of ${payload.length} bytes`)
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(KINDS.indexOf(record.kind), 0)
  header.writeUInt32BE(payload.length, 1)
  return [header, payload]
}

/** Reads records in any chunks; keeps at most one. IMAGE_RECORDS for anything else. */
export class RecordReader {
  #rest: Uint8Array = new Uint8Array(0)

  /** What is whole by now. Bytes are views of `chunk` or of what was kept. */
  push(chunk: Uint8Array): ImageRecord[] {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const records: ImageRecord[] = []
    let at = 0
    while (bytes.length - at >= HEADER_BYTES) {
      const kind = KINDS[view.getUint8(at)]
      const length = view.getUint32(at + 1)
      if (kind === undefined || length > (kind === 'data' ? MAX_DATA_BYTES : MAX_JSON_BYTES)) {
        throw invalid(`a record of kind ${view.getUint8(at)} with ${length} bytes`)
      }
      const end = at + HEADER_BYTES + length
      if (bytes.length < end) break
      records.push(recordOf(kind, bytes.subarray(at + HEADER_BYTES, end)))
      at = end
    }
    this.#rest = bytes.slice(at)
    return records
  }
}

function recordOf(kind: ImageRecord['kind'], payload: Uint8Array): ImageRecord {
  if (kind === 'data') return { kind, bytes: payload }
  if (kind === 'end') return { kind }
  try {
    return { kind, value: JSON.parse(Buffer.from(payload).toString()) as unknown }
  } catch (cause) {
    throw invalid(`a record of kind ${kind} that is no JSON`, cause)
  }
}

const invalid = (what: string, cause?: unknown) =>
  new DiapauseError('IMAGE_RECORDS', `the stream of an image is wrong: ${what}`, { cause })
