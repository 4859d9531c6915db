/**
 * What this peer writes to one other member: three streams, one a channel, up or down together, and dialled again for as
 * long as it is a member. The wait between dials doubles from BACKOFF_MIN_MS to BACKOFF_MAX_MS; news that the member lives
 * ends it.
 */
import { DiapauseError, messageOf } from '../node/errors.ts'
import type { Channel, Clock, Log } from '../node/ports.ts'
import type { PeerId } from './core.ts'
import { type Leaves, Outbox } from './outbox.ts'
import type { ByteSink } from './direct.ts'
import type { Connection, Stream } from './stream.ts'
import { MemberAddresses } from './transport-addresses.ts'

export const CHANNELS: readonly Channel[] = ['control', 'bulk', 'frames']

/** What may wait for a stream before `send` refuses: some messages of the largest size, a guess. */
const QUEUE_BYTES: Readonly<Record<Channel, number>> = { control: 2 << 20, bulk: 16 << 20, frames: 4 << 20 }

/** One stream write: at 1 GB/s of Noise a quarter of a millisecond of the event loop. */
const BATCH_BYTES = 256 * 1024
const BACKOFF_MIN_MS = 50
const BACKOFF_MAX_MS = 1_000
/** A link that lasted this long was a good one: the next dial starts from the shortest backoff. */
const GOOD_LINK_MS = 1_000

export interface Member {
  readonly id: PeerId
  readonly name: string
  /** Multiaddr without the peer id, e.g. /ip4/10.0.0.7/tcp/7400 */
  readonly address: string
}

/** A wait before dial number `failures` + 1: doubling, with half of it jitter, so that peers do not dial in step. */
export function backoffMs(failures: number, random: number): number {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failures, 10)) * (0.5 + random / 2)
}

export const disconnected = (name: string): DiapauseError =>
  new DiapauseError('TRANSPORT_DISCONNECTED', `no link to ${name}; the message is lost`)

/** One channel of a link: an outbox and the stream that empties it. */
export class Lane {
  readonly connection: Connection
  readonly stream: Stream
  readonly outbox: Outbox
  readonly #sink: ByteSink
  readonly #isEager: boolean
  #pumping = false
  #broken = false

  constructor(channel: Channel, { connection, stream, sink }: OpenLane) {
    this.connection = connection
    this.stream = stream
    this.#sink = sink
    this.outbox = new Outbox(QUEUE_BYTES[channel])
    this.#isEager = channel === 'frames'
  }

  /** Queues a message; one that may not wait for others, and has none before it, leaves before this returns. */
  send(parts: readonly Uint8Array[], length: number, leaves?: Leaves): void {
    if (this.#isEager && !this.#pumping && this.outbox.bytes === 0 && length <= this.#sink.maxMessageBytes) {
      if (leaves === undefined || leaves()) this.#sendNow(parts, length)
      return
    }
    this.outbox.push(parts, length, leaves)
    this.flush()
  }

  #sendNow(parts: readonly Uint8Array[], length: number): void {
    try {
      const full = this.#sink.writeMessage(parts, length)
      if (full === undefined) return
      this.#pumping = true
      this.#pumpAfter(full)
    } catch {
      this.#fail()
    }
  }

  /**
   * To be called after something was queued. What is queued in one turn of the event loop leaves together, at its end; but
   * frames, which the switch has gathered so already, leave before this returns, unless earlier ones wait.
   */
  flush(): void {
    if (this.#pumping) return
    this.#pumping = true
    this.#pumpSoon()
  }

  #pumpSoon(): void {
    if (this.#isEager) this.#pump()
    else setImmediate(() => this.#pump())
  }

  /** Not an async function: each frame comes this way alone, and a promise costs a part of what it costs. */
  #pump(): void {
    try {
      while (this.outbox.bytes > 0 && !this.#broken) {
        const bytes = this.outbox.take(BATCH_BYTES)
        const full = bytes.length > 0 ? this.#sink.write(bytes) : undefined
        if (full === undefined) continue
        this.#pumpAfter(full)
        return
      }
      this.#pumping = false
    } catch {
      this.#fail()
    }
  }

  #pumpAfter(full: Promise<void>): void {
    full.then(
      () => this.#pumpSoon(),
      () => this.#fail()
    )
  }

  #fail(): void {
    this.#pumping = false
    this.stream.abort(new Error('cannot write')) // its close event takes the link down
  }

  /** `lost` is what writers see. */
  break(lost: DiapauseError): void {
    this.#broken = true
    this.outbox.close(lost)
    this.connection.abort(lost)
  }
}

/** One channel's connection, its only stream, and where the channel's bytes go. */
export interface OpenLane {
  readonly connection: Connection
  readonly stream: Stream
  readonly sink: ByteSink
}

export type Lanes = Readonly<Record<Channel, Lane>>

export interface LinkOptions {
  /** Dials one more connection to the member at `address` and opens the channel's stream on it. */
  open(channel: Channel, address: string, signal: AbortSignal): Promise<OpenLane>
  onChange(connected: boolean): void
  readonly clock: Clock
  readonly log: Log
}

export class Link {
  readonly #options: LinkOptions
  readonly #addresses: MemberAddresses
  readonly #stopped = new AbortController()
  #member: Member
  #lanes: Lanes | undefined
  #dialling: AbortController | undefined
  #address = ''
  #failures = 0
  #endWait = (): void => {}

  constructor(member: Member, options: LinkOptions) {
    this.#member = member
    this.#addresses = new MemberAddresses(member.address)
    this.#options = options
  }

  get member(): Member {
    return this.#member
  }

  /** Defined while the link is up. */
  get lanes(): Lanes | undefined {
    return this.#lanes
  }

  /** mDNS told of the address at which the link is up, or was last. */
  get isFound(): boolean {
    return this.#addresses.isFound(this.#address)
  }

  /** A changed address is dialled now, or next where the link is up. */
  update(member: Member): void {
    this.#member = member
    if (!this.#addresses.configure(member.address) || this.#lanes !== undefined) return
    this.#failures = 0
    this.#dialling?.abort()
    this.hurry()
  }

  /** mDNS says that the member is at `address`. */
  found(address: string): void {
    this.#addresses.found(address)
  }

  /** Dials now instead of waiting on. */
  hurry(): void {
    this.#endWait()
  }

  /** Takes the link down; it is dialled again. */
  break(): void {
    if (this.#lanes !== undefined) breakLanes(this.#lanes, this.#member.name)
  }

  /** Takes the link down for good; this is announced before the call returns. */
  stop(): void {
    this.#stopped.abort()
    if (this.#lanes !== undefined) this.#down(this.#lanes)
    this.hurry()
  }

  /** Dials, holds the link, dials again, until `stop`. */
  async keep(): Promise<void> {
    const { log, clock } = this.#options
    const stopped = this.#stopped.signal
    while (!stopped.aborted) {
      const peer = this.#member.name
      const dialling = new AbortController()
      this.#dialling = dialling
      try {
        const lanes = await this.#dial(AbortSignal.any([stopped, dialling.signal]))
        this.#dialling = undefined
        if (stopped.aborted) return breakLanes(lanes, peer)
        const upMs = clock.now()
        const why = await this.#hold(lanes)
        this.#failures = clock.now() - upMs >= GOOD_LINK_MS ? 0 : this.#failures + 1
        if (!stopped.aborted) log.info({ peer, why }, 'link down')
      } catch (error) {
        this.#dialling = undefined
        if (dialling.signal.aborted) continue // there is another address
        this.#addresses.failed()
        this.#failures++
        log.debug({ peer, error: messageOf(error) }, 'cannot dial')
      }
      if (!stopped.aborted) await this.#wait()
    }
  }

  async #dial(signal: AbortSignal): Promise<Lanes> {
    const lanes: Partial<Record<Channel, Lane>> = {}
    this.#address = this.#addresses.next
    try {
      // One after the other: libp2p joins dials to one peer that run at the same time into one connection.
      for (const channel of CHANNELS) {
        lanes[channel] = new Lane(channel, await this.#options.open(channel, this.#address, signal))
      }
      return lanes as Lanes
    } catch (error) {
      breakLanes(lanes, this.#member.name)
      throw error
    }
  }

  /** Announces the link, waits for its end, announces that. Resolves with the reason. */
  async #hold(lanes: Lanes): Promise<string> {
    const why = await new Promise<string>(resolve => {
      for (const channel of CHANNELS) {
        const { stream } = lanes[channel]
        stream.addEventListener('close', event => resolve(`${channel}: ${event.error?.message ?? 'closed'}`))
        if (stream.status !== 'open') resolve(`${channel}: ${stream.status}`)
      }
      this.#lanes = lanes
      this.#options.log.info({ peer: this.#member.name }, 'link up')
      this.#options.onChange(true)
    })
    this.#down(lanes)
    return why
  }

  #down(lanes: Lanes): void {
    if (this.#lanes !== lanes) return
    this.#lanes = undefined
    breakLanes(lanes, this.#member.name)
    this.#options.onChange(false)
  }

  #wait(): Promise<void> {
    return new Promise(resolve => {
      const cancel = this.#options.clock.after(backoffMs(this.#failures, Math.random()), resolve)
      this.#endWait = () => {
        cancel()
        resolve()
      }
    })
  }
}

function breakLanes(lanes: Partial<Lanes>, name: string): void {
  for (const lane of Object.values(lanes)) lane.break(disconnected(name))
}
