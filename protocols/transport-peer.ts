/**
 * All that concerns one other member: the link on which we write, the streams on which it writes, and its silence.
 *
 * When a member is gone. A killed process is noticed at once (its kernel resets the connections). A host that vanishes
 * sends nothing: an idle control stream therefore carries an empty message each KEEPALIVE_MS, and a member that was
 * silent for SILENT_TICKS of our own ticks is dialled anew (TCP itself would take minutes to see a healed partition).
 * Ticks and not times are counted, so that a peer that was itself stopped does not blame the others on waking.
 */
import { hasCode, messageOf } from '../node/errors.ts'
import type { Channel, Clock, Log, MessageHandler } from '../node/ports.ts'
import { readDirect } from './direct.ts'
import { Link, type LinkOptions, type Member } from './link.ts'
import { sparingly } from './sparingly.ts'
import { type Connection, messages, nextTurn, type Stream } from './stream.ts'
import { grantLazily } from './transport-lean.ts'

/** The largest message of each channel. */
export const MAX_MESSAGE_BYTES: Readonly<Record<Channel, number>> = {
  control: 256 * 1024,
  bulk: 8 << 20,
  frames: 1 << 20
}
export const KEEPALIVE_MS = 1_000
const SILENT_TICKS = 5
/** A reader that has handled messages for this long lets the rest of the process have a turn. */
const READER_TURN_MS = 5

export interface PeerOptions {
  open(member: Member, ...dial: Parameters<LinkOptions['open']>): ReturnType<LinkOptions['open']>
  announce(member: Member, connected: boolean): void
  readonly handlers: Readonly<Partial<Record<Channel, MessageHandler>>>
  /** Counted here for all members together. */
  readonly counts: { received: Record<Channel, number>; oversize: number; silent: number; mdnsLinks: number }
  readonly clock: Clock
  readonly log: Log
}

export class MemberPeer {
  readonly link: Link
  readonly #options: PeerOptions
  /** Streams that the member writes and we read; the newest of each channel. */
  readonly #inbound: Partial<Record<Channel, { stream: Stream; connection: Connection }>> = {}
  /** Streams that were closed for what they said: the member may open ever more. */
  readonly #tellClosed: (about: object) => void
  #heard = false
  #silentTicks = 0
  #gone = false

  constructor(member: Member, options: PeerOptions) {
    this.#options = options
    this.#tellClosed = sparingly<object>((about, count) =>
      options.log.warn({ peer: this.link.member.name, ...about, count }, 'closed a stream')
    )
    this.link = new Link(member, {
      open: (...dial) => options.open(this.link.member, ...dial),
      clock: options.clock,
      log: options.log,
      onChange: connected => {
        this.#silentTicks = 0
        if (connected && this.link.isFound) options.counts.mdnsLinks++
        options.announce(this.link.member, connected)
      }
    })
  }

  /** Nothing that the member sent is handled any more, nothing is sent to it, and the link's end has been announced. */
  cutOff(why: string): void {
    this.#gone = true
    for (const { connection } of Object.values(this.#inbound)) connection.abort(new Error(why))
    this.link.stop()
  }

  async receive(channel: Channel, stream: Stream, connection: Connection): Promise<void> {
    const { counts } = this.#options
    grantLazily(stream)
    // A member writes on one stream a channel: a newer one means that it has given up the older.
    this.#inbound[channel]?.connection.abort(new Error('replaced by a newer stream'))
    const mine = { stream, connection }
    this.#inbound[channel] = mine
    this.#heard = true
    if (channel === 'control') {
      this.#silentTicks = 0
      this.link.hurry() // it lives: no reason to wait
    }
    try {
      const maxBytes = MAX_MESSAGE_BYTES[channel]
      if (channel === 'frames') {
        await readDirect(connection, stream, { maxBytes, message: message => this.#take(channel, message) })
      } else await this.#consume(channel, messages(stream, maxBytes))
      connection.abort(new Error('the other side closed the stream'))
    } catch (error) {
      if (hasCode(error, 'FRAME_OVERSIZE')) counts.oversize++
      if (!hasCode(error, 'STREAM_CLOSED')) this.#tellClosed({ channel, error: messageOf(error) })
      connection.abort(new Error('the stream is given up'))
    } finally {
      if (this.#inbound[channel] === mine) delete this.#inbound[channel]
    }
  }

  async #consume(channel: Channel, source: AsyncIterable<Uint8Array>): Promise<void> {
    const { clock } = this.#options
    let turnMs = clock.now()
    for await (const message of source) {
      if (this.#gone) return
      const held = this.#take(channel, message)
      if (held !== undefined) await held
      if (clock.now() - turnMs >= READER_TURN_MS) {
        await nextTurn()
        turnMs = clock.now()
      }
    }
  }

  #take(channel: Channel, message: Uint8Array): void | Promise<void> {
    if (this.#gone) return
    this.#heard = true
    if (message.length === 0) return // keep-alive
    this.#options.counts.received[channel]++
    return this.#options.handlers[channel]?.(this.link.member.id, message)
  }

  /** To be called each KEEPALIVE_MS. */
  tick(): void {
    const lane = this.link.lanes?.control
    if (lane !== undefined && lane.outbox.bytes === 0) {
      lane.outbox.push([], 0)
      lane.flush()
    }
    const inbound = this.#inbound.control
    if (inbound === undefined || this.#heard) this.#silentTicks = 0
    else if (++this.#silentTicks >= SILENT_TICKS) {
      this.#options.counts.silent++
      this.#silentTicks = 0
      inbound.connection.abort(new Error('silent'))
      this.link.break()
    }
    this.#heard = false
  }
}
