/**
 * What an invited stranger may do: come in on one connection at a time, open one stream (`/diapause/join/1`), send one
 * request, take one answer. Each of its two parts has JOIN_DEADLINE_MS, and everything else ends the connection: however
 * it behaves, it holds one socket and some 64 KiB of this peer for 20 s and what our own handler takes.
 */
import { messageOf } from '../node/errors.ts'
import type { Clock, Log } from '../node/ports.ts'
import type { PeerId } from './core.ts'
import { JOIN_PROTOCOL, MAX_JOIN_BYTES, receiveOne, sendOne } from './join-channel.ts'
import type { Connection, MultiaddrConnection, Stream } from './stream.ts'

/** From the handshake to the whole request, and from the answer to the stranger's leaving: a guess. */
export const JOIN_DEADLINE_MS = 10_000

export type JoinHandler = (invite: PeerId, request: Uint8Array) => Promise<Uint8Array>

interface Visit {
  readonly socket: MultiaddrConnection
  asked: boolean
  /** The whole request is here: a change of the invitations no longer ends the visit (it may be the visit's own doing). */
  heard: boolean
  cancelDeadline: () => void
}

export class InvitedStrangers {
  readonly #clock: Clock
  readonly #log: Log
  readonly #visits = new Map<PeerId, Visit>()
  #ids: ReadonlySet<PeerId> = new Set()
  #handler: JoinHandler | undefined
  /** `joins`: requests answered. `invitedRefused`: visits that we ended otherwise. */
  readonly counts = { joins: 0, invitedRefused: 0 }

  constructor({ clock, log }: { clock: Clock; log: Log }) {
    this.#clock = clock
    this.#log = log
  }

  onJoin(handler: JoinHandler): void {
    if (this.#handler !== undefined) throw new TypeError('join has a handler already')
    this.#handler = handler
  }

  set(ids: ReadonlySet<PeerId>): void {
    this.#ids = new Set(ids)
    for (const [id, visit] of this.#visits) {
      if (!this.#ids.has(id) && !visit.heard) visit.socket.abort(new Error('no longer invited'))
    }
  }

  has(id: PeerId): boolean {
    return this.#ids.has(id)
  }

  isVisiting(id: PeerId): boolean {
    return this.#visits.has(id)
  }

  /** The gater's question, after the handshake. */
  admit(id: PeerId, socket: MultiaddrConnection): boolean {
    if (this.#visits.has(id)) {
      this.#count(id, 'a second connection')
      return false
    }
    const visit: Visit = { socket, asked: false, heard: false, cancelDeadline: () => {} }
    this.#visits.set(id, visit)
    socket.addEventListener('close', () => {
      visit.cancelDeadline()
      this.#visits.delete(id)
    })
    this.#setDeadline(id, visit)
    return true
  }

  /** Ends a visit, and counts that. */
  refuse(connection: Connection, why: string): void {
    this.#count(connection.remotePeer.toString(), why)
    connection.abort(new Error(why))
  }

  async receive(stream: Stream, connection: Connection): Promise<void> {
    const id = connection.remotePeer.toString()
    const visit = this.#visits.get(id)
    const handler = this.#handler
    if (visit === undefined) return connection.abort(new Error('a member need not join'))
    if (visit.asked || handler === undefined) return this.refuse(connection, `one more ${JOIN_PROTOCOL}`)
    visit.asked = true
    try {
      const request = await receiveOne(stream)
      visit.heard = true
      visit.cancelDeadline()
      const answer = await handler(id, request)
      if (this.#visits.get(id) !== visit) return // it did not wait
      this.#setDeadline(id, visit)
      await sendOne(stream, answer)
      this.counts.joins++
      await stream.close() // the stranger goes when it has read it, or at the deadline
    } catch (error) {
      const isOver = this.#visits.get(id) !== visit // it left, or was sent away and counted then
      if (isOver) connection.abort(new Error('over'))
      else if (visit.heard) this.refuse(connection, `no answer: ${messageOf(error)}`)
      else this.refuse(connection, `no request of 1 to ${MAX_JOIN_BYTES} bytes: ${messageOf(error)}`)
    }
  }

  #setDeadline(id: PeerId, visit: Visit): void {
    visit.cancelDeadline = this.#clock.after(JOIN_DEADLINE_MS, () => {
      if (!visit.heard) this.#count(id, 'no request in time')
      visit.socket.abort(new Error('the deadline'))
    })
  }

  /** Logs the 1st, 2nd, 4th, 8th …, so that a stranger cannot fill the log. */
  #count(invite: PeerId, why: string): void {
    const count = ++this.counts.invitedRefused
    if ((count & (count - 1)) === 0) this.#log.warn({ invite, why, count }, 'refused an invited stranger')
  }
}
