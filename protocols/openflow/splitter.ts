/** Cuts a byte stream into OpenFlow messages. */
import { malformed } from './bytes.ts'
import { HEADER_BYTES } from './decode.ts'

/** Holds at most one unfinished message, of at most 64 KiB: its length is a u16. */
export class MessageSplitter {
  #rest: Buffer = Buffer.alloc(0)

  /** The messages that `chunk` completes, each whole. They may be views of `chunk`. OPENFLOW_MALFORMED: the stream is over. */
  push(chunk: Uint8Array): Uint8Array[] {
    const bytes = this.#rest.length === 0 ? view(chunk) : Buffer.concat([this.#rest, chunk])
    const messages: Uint8Array[] = []
    let at = 0
    while (bytes.length - at >= HEADER_BYTES) {
      const length = bytes.readUInt16BE(at + 2)
      if (length < HEADER_BYTES) throw malformed(`its header says ${length} bytes`)
      if (bytes.length - at < length) break
      messages.push(bytes.subarray(at, at + length))
      at += length
    }
    // A copy: the socket may use the chunk's memory again.
    this.#rest = Buffer.from(bytes.subarray(at))
    return messages
  }
}

const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
