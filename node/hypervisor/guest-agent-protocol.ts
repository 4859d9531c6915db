/**
 * What the QEMU guest agent says, without a socket (docs/interop/qemu-ga-ref of QEMU). Requests and replies are JSON, one a
 * line, and a reply does not say to which request it belongs: whoever was there before may have left some unread, and a
 * guest that went back to an image goes on in the middle of one. So a talk begins with `guest-sync-delimited`: 0xff, which
 * no UTF-8 has in it, empties the agent's reader; its answer comes behind a 0xff, too, and has the number that was asked for.
 *
 * The guest is not trusted: what it says is bounded first, then checked.
 */
import { DiapauseError } from '../errors.ts'
import { isRecord } from './qmp-protocol.ts'

/** Longest line taken. What is asked for is answered in below 1 KiB; a guess that bounds memory. */
const LINE_LIMIT_BYTES = 1 << 16
const SENTINEL = 0xff
const NEWLINE = 10

export interface AgentLine {
  /** Right behind a 0xff. */
  readonly fresh: boolean
  readonly text: string
}

export const syncRequest = (id: number): Buffer =>
  Buffer.concat([Buffer.of(SENTINEL), request('guest-sync-delimited', { id })])

export const request = (command: string, args: Readonly<Record<string, unknown>>): Buffer =>
  Buffer.from(`${JSON.stringify({ execute: command, arguments: args })}\n`)

/** Cuts what comes into lines. One that is too long is left out. */
export class AgentLines {
  #parts: Uint8Array[] = []
  #heldBytes = 0
  #fresh = false

  push(chunk: Uint8Array): AgentLine[] {
    const lines: AgentLine[] = []
    let from = 0
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at]
      if (byte !== NEWLINE && byte !== SENTINEL) continue
      this.#hold(chunk.subarray(from, at))
      if (byte === NEWLINE && this.#heldBytes > 0 && this.#heldBytes <= LINE_LIMIT_BYTES) {
        lines.push({ fresh: this.#fresh, text: Buffer.concat(this.#parts).toString() })
      }
      this.#parts = []
      this.#heldBytes = 0
      this.#fresh = byte === SENTINEL
      from = at + 1
    }
    // A copy: the socket may use the chunk's memory again.
    this.#hold(new Uint8Array(chunk.subarray(from)))
    return lines
  }

  #hold(part: Uint8Array): void {
    this.#heldBytes = Math.min(this.#heldBytes + part.length, LINE_LIMIT_BYTES + 1)
    if (this.#heldBytes > LINE_LIMIT_BYTES) this.#parts = []
    else if (part.length > 0) this.#parts.push(part)
  }
}

/** Whether this is the answer to `syncRequest(id)`. */
export function isSynced({ fresh, text }: AgentLine, id: number): boolean {
  if (!fresh) return false
  const reply = json(text)
  return isRecord(reply) && reply.return === id
}

/** What `command` was answered. GUEST_AGENT_REFUSED with the agent's words; GUEST_AGENT_MALFORMED where it is no reply. */
export function replyOf({ text }: AgentLine, command: string): unknown {
  const reply = json(text)
  if (isRecord(reply) && 'return' in reply) return reply.return
  if (isRecord(reply) && isRecord(reply.error)) {
    const { class: errorClass, desc } = reply.error
    const why = `The guest agent refused ${command}: ${String(desc).slice(0, 300)}`
    throw new DiapauseError('GUEST_AGENT_REFUSED', why, { details: { command, errorClass: String(errorClass) } })
  }
  throw new DiapauseError('GUEST_AGENT_MALFORMED', `The guest agent's answer to ${command} is none`, {
    details: { command, answer: text.slice(0, 100) }
  })
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
