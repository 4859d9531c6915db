/**
 * QMP on the wire, without a socket: JSON objects, one a line, from a QEMU that is not trusted (its guest may have
 * broken out of it). Limits come first (a line has at most `limitBytes`), then UTF-8 and JSON, then shape. Source:
 * docs/interop/qmp-spec.rst of QEMU.
 */
import { DiapauseError } from '../errors.ts'

/** Longest line taken. What the driver asks for is answered in below 4 KiB; 1 MiB is a guess that bounds memory. */
export const QMP_LINE_LIMIT_BYTES = 1 << 20

export type QmpMessage =
  | { readonly kind: 'greeting' }
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'refusal'; readonly id: number; readonly errorClass: string; readonly description: string }
  | ({ readonly kind: 'event' } & QmpEvent)

/** Something that QEMU says unasked, e.g. RESUME, or MIGRATION with data.status. */
export interface QmpEvent {
  readonly name: string
  readonly data: Readonly<Record<string, unknown>>
}

/** Cuts a byte stream into lines, keeping at most one unfinished line of `limitBytes`. */
export class LineSplitter {
  readonly #limitBytes: number
  #parts: Uint8Array[] = []
  #heldBytes = 0

  constructor(limitBytes: number = QMP_LINE_LIMIT_BYTES) {
    this.#limitBytes = limitBytes
  }

  /** The lines that `chunk` completes, without their ends (\n or \r\n). Throws QMP_LINE_TOO_LONG; the stream is over then. */
  push(chunk: Uint8Array): Uint8Array[] {
    const lines: Uint8Array[] = []
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      this.#hold(chunk.subarray(from, end))
      lines.push(this.#take())
      from = end + 1
    }
    // A copy (Buffer's own slice is a view): the socket may use the chunk's memory again.
    this.#hold(new Uint8Array(chunk.subarray(from)))
    return lines
  }

  #hold(part: Uint8Array): void {
    if (part.length === 0) return
    this.#heldBytes += part.length
    if (this.#heldBytes > this.#limitBytes) {
      throw new DiapauseError('QMP_LINE_TOO_LONG', `QEMU sent a QMP line of more than ${this.#limitBytes} bytes`)
    }
    this.#parts.push(part)
  }

  #take(): Uint8Array {
    const line = this.#parts.length === 1 && this.#parts[0] ? this.#parts[0] : Buffer.concat(this.#parts)
    this.#parts = []
    this.#heldBytes = 0
    return line.at(-1) === 13 ? line.subarray(0, -1) : line
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** One line as a message. Throws QMP_MALFORMED on anything that is not one. */
export function parseQmpLine(line: Uint8Array): QmpMessage {
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(line))
  } catch (cause) {
    throw new DiapauseError('QMP_MALFORMED', 'QEMU sent a QMP line that is not JSON', { cause })
  }
  if (!isRecord(value)) throw malformed('not an object')
  if (isRecord(value.QMP)) return { kind: 'greeting' }
  if (typeof value.event === 'string') {
    if (value.data !== undefined && !isRecord(value.data)) throw malformed('an event whose data is not an object')
    return { kind: 'event', name: value.event, data: value.data ?? {} }
  }
  if (isRecord(value.error)) {
    const { class: errorClass, desc } = value.error
    if (typeof errorClass !== 'string' || typeof desc !== 'string') throw malformed('an error without class and desc')
    return { kind: 'refusal', id: idOf(value), errorClass, description: desc }
  }
  if ('return' in value) return { kind: 'reply', id: idOf(value), value: value.return }
  throw malformed('neither greeting, reply, error nor event')
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function idOf(message: Record<string, unknown>): number {
  if (typeof message.id === 'number' && Number.isSafeInteger(message.id)) return message.id
  throw malformed('a reply without the id of a command')
}

function malformed(what: string): DiapauseError {
  return new DiapauseError('QMP_MALFORMED', `QEMU sent a QMP message that cannot be understood: ${what}`)
}
