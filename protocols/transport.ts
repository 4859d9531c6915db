/**
 * Messages between members over libp2p.
 *
 * The shape. For every other member a peer keeps one *link*: three libp2p connections that it dialled itself, one a
 * channel, each with one long-lived stream on which it only writes. What it reads comes on the connections that the
 * others dialled. So:
 *   - there is nothing to agree on when two peers dial each other at the same moment, and nothing flaps;
 *   - a control message never waits behind megabytes of shards in a socket that both share: the channels are separate
 *     TCP connections, at the price of three handshakes a link;
 *   - a link is up or down as a whole: any of its streams ending takes it down, and it is dialled anew.
 *
 * Who may come in. A connection gater compares the Noise identity with the members, both ways, before a muxer is
 * spoken; no identify, no ping, no discovery runs here. A stranger learns this peer's public key, which Noise XX shows
 * to any initiator, and nothing else.
 *
 * When a member is gone. A killed process is noticed at once (its kernel resets the connections). A host that vanishes
 * sends nothing: an idle control stream therefore carries an empty message each KEEPALIVE_MS, and a member that was
 * silent for SILENT_TICKS of our own ticks is dialled anew (TCP itself would take minutes to see a healed partition).
 * Ticks and not times are counted, so that a peer that was itself stopped does not blame the others on waking.
 */
import { noise } from '@chainsafe/libp2p-noise'
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { pipe } from 'it-pipe'
import { createLibp2p } from 'libp2p'
import { DiapauseError, hasCode, messageOf, UsageError } from '../node/errors.ts'
import type { Channel, Clock, Log, MessageHandler, Transport } from '../node/ports.ts'
import type { PeerId } from './core.ts'
import { CHANNELS, disconnected, Link, type Member } from './link.ts'
import { type Connection, frames, nextTurn, read, type Stream } from './stream.ts'

export { backoffMs, type Member } from './link.ts'

const protocolOf = (channel: Channel): string => `/diapause/${channel}/1`

/** The largest message of each channel. */
export const MAX_MESSAGE_BYTES: Readonly<Record<Channel, number>> = {
  control: 256 * 1024,
  bulk: 8 << 20,
  frames: 1 << 20
}
/** A reader that has handled messages for this long lets the rest of the process have a turn. */
const READER_TURN_MS = 5
/** For one connection. A handshake takes 5 ms, but with 3 s here five peers at a load of 16 on two cores took 19 s to link. */
const DIAL_TIMEOUT_MS = 6_000
const KEEPALIVE_MS = 1_000
const SILENT_TICKS = 5

export interface TransportOptions {
  readonly privateKey: PrivateKey
  /** Multiaddr to listen on. */
  readonly listen: string
  readonly cluster: string
  /** All members; oneself among them or not. */
  readonly members: readonly Member[]
  readonly log: Log
  readonly clock: Clock
}

export interface TransportStats {
  readonly sent: Readonly<Record<Channel, number>>
  readonly received: Readonly<Record<Channel, number>>
  /** Messages that `send` refused: no link, or its queue was full. */
  readonly dropped: Readonly<Record<Channel, number>>
  /** Streams closed because a message was larger than its channel allows. */
  readonly oversize: number
  /** Connections refused because of their identity. */
  readonly strangers: number
  readonly dials: number
  /** Links taken down because nothing was heard from the member. */
  readonly silent: number
}

export interface Libp2pTransport extends Transport {
  stats(): TransportStats
}

/** A transport that does not listen yet: set its handlers, then `start`. Rejects with LISTEN_ADDRESS for bad addresses. */
export async function createTransport(options: TransportOptions): Promise<Libp2pTransport> {
  for (const address of [options.listen, ...options.members.map(member => member.address)]) {
    try {
      multiaddr(address)
    } catch (cause) {
      throw new UsageError(
        'LISTEN_ADDRESS',
        `"${address}" is not an address; write for example /ip4/0.0.0.0/tcp/7400`,
        {
          cause
        }
      )
    }
  }
  return new LinkTransport(options)
}

const perChannel = (): Record<Channel, number> => ({ control: 0, bulk: 0, frames: 0 })

/** All that concerns one other member. */
interface Peer {
  readonly link: Link
  /** Streams that the member writes and we read; the newest of each channel. */
  readonly inbound: Partial<Record<Channel, { stream: Stream; connection: Connection }>>
  heard: boolean
  silentTicks: number
}

class LinkTransport implements Libp2pTransport {
  readonly self: PeerId
  readonly #options: TransportOptions
  readonly #peers: ReadonlyMap<PeerId, Peer>
  readonly #handlers: Partial<Record<Channel, MessageHandler>> = {}
  readonly #watchers: ((peer: PeerId, connected: boolean) => void)[] = []
  readonly #sent = perChannel()
  readonly #received = perChannel()
  readonly #dropped = perChannel()
  readonly #counts = { oversize: 0, strangers: 0, dials: 0, silent: 0 }
  readonly #stopping = new AbortController()
  #node: Libp2p | undefined
  #cancelTick: (() => void) | undefined

  constructor(options: TransportOptions) {
    this.#options = options
    this.self = peerIdFromPrivateKey(options.privateKey).toString()
    const others = options.members.filter(member => member.id !== this.self)
    this.#peers = new Map(others.map(member => [member.id, this.#newPeer(member)]))
  }

  connected(peer: PeerId): boolean {
    return this.#peers.get(peer)?.link.lanes !== undefined
  }

  send(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): boolean {
    const length = checkedLength(channel, parts)
    const lane = this.#peers.get(to)?.link.lanes?.[channel]
    if (lane === undefined || lane.outbox.full) {
      this.#dropped[channel]++
      return false
    }
    lane.outbox.push(parts, length)
    lane.flush()
    this.#sent[channel]++
    return true
  }

  async write(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): Promise<void> {
    const length = checkedLength(channel, parts)
    const lane = this.#peers.get(to)?.link.lanes?.[channel]
    if (lane === undefined) throw disconnected(this.#peers.get(to)?.link.member.name ?? to)
    const queued = lane.outbox.enqueue(parts, length)
    lane.flush()
    await queued
    this.#sent[channel]++
  }

  handle(channel: Channel, handler: MessageHandler): void {
    if (this.#handlers[channel] !== undefined) throw new TypeError(`channel ${channel} has a handler already`)
    this.#handlers[channel] = handler
  }

  onConnection(handler: (peer: PeerId, connected: boolean) => void): void {
    this.#watchers.push(handler)
  }

  stats(): TransportStats {
    return {
      sent: { ...this.#sent },
      received: { ...this.#received },
      dropped: { ...this.#dropped },
      ...this.#counts
    }
  }

  async start(): Promise<void> {
    const node = await this.#createNode()
    for (const channel of CHANNELS) {
      await node.handle(protocolOf(channel), (stream, connection) => void this.#receive(channel, stream, connection), {
        maxInboundStreams: 2,
        maxOutboundStreams: 2
      })
    }
    try {
      await node.start()
    } catch (cause) {
      const inUse = messageOf(cause).includes('EADDRINUSE')
      throw new UsageError(
        inUse ? 'LISTEN_IN_USE' : 'LISTEN_FAILED',
        inUse
          ? `${this.#options.listen} is in use by another process; stop it, or set another peer.listen`
          : `cannot listen on ${this.#options.listen}: ${messageOf(cause)}`,
        { cause, details: { listen: this.#options.listen } }
      )
    }
    this.#node = node
    for (const { link } of this.#peers.values()) void link.keep(this.#stopping.signal)
    this.#tickLater()
  }

  #newPeer(member: Member): Peer {
    const peer: Peer = {
      link: new Link(member, {
        open: channel => this.#open(member, channel),
        clock: this.#options.clock,
        log: this.#options.log,
        onChange: connected => {
          peer.silentTicks = 0
          this.#announce(member, connected)
        }
      }),
      inbound: {},
      heard: false,
      silentTicks: 0
    }
    return peer
  }

  async #open(member: Member, channel: Channel): Promise<{ connection: Connection; stream: Stream }> {
    if (this.#node === undefined) throw disconnected(member.name)
    const address = multiaddr(`${member.address}/p2p/${member.id}`)
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)])
    if (channel === 'control') this.#counts.dials++
    const connection = await this.#node.dial(address, { force: true, signal })
    try {
      return { connection, stream: await connection.newStream(protocolOf(channel), { signal }) }
    } catch (error) {
      connection.abort(new Error('no stream'))
      throw error
    }
  }

  #announce(member: Member, connected: boolean): void {
    if (this.#stopping.signal.aborted) return
    for (const watcher of this.#watchers) {
      try {
        watcher(member.id, connected)
      } catch (error) {
        this.#options.log.error({ peer: member.name, error: messageOf(error) }, 'a connection handler failed')
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#cancelTick?.()
    for (const peer of this.#peers.values()) {
      peer.link.hurry()
      peer.link.break()
      for (const { connection } of Object.values(peer.inbound)) connection.abort(new Error('this peer stops'))
    }
    await this.#node?.stop()
  }

  #createNode(): Promise<Libp2p> {
    const members = this.#peers
    const isStranger = (id: { toString(): string }): boolean => {
      if (members.has(id.toString())) return false
      this.#counts.strangers++
      this.#options.log.debug({ peer: id.toString() }, 'refused a peer that is no member')
      return true
    }
    return createLibp2p({
      start: false,
      privateKey: this.#options.privateKey,
      addresses: { listen: [this.#options.listen] },
      transports: [tcp({ inboundSocketInactivityTimeout: 0, outboundSocketInactivityTimeout: 0 })],
      connectionEncrypters: [noise()],
      streamMuxers: [
        yamux({
          enableKeepAlive: false,
          maxInboundStreams: 2,
          maxOutboundStreams: 2,
          // The read buffer must hold what was granted before a pause: window and slack, or yamux resets the stream.
          streamOptions: { maxStreamWindowSize: 4 << 20, maxReadBufferLength: 8 << 20 }
        })
      ],
      connectionGater: {
        denyDialPeer: isStranger,
        denyInboundEncryptedConnection: isStranger,
        denyOutboundEncryptedConnection: isStranger,
        denyDialMultiaddr: () => false
      },
      connectionMonitor: { enabled: false },
      connectionManager: {
        maxConnections: 12 * (members.size + 1),
        inboundConnectionThreshold: 1_000,
        maxIncomingPendingConnections: 3 * (members.size + 1) + 32,
        inboundUpgradeTimeout: DIAL_TIMEOUT_MS,
        addressDialTimeout: DIAL_TIMEOUT_MS,
        dialTimeout: DIAL_TIMEOUT_MS,
        reconnectRetries: 0
      }
    })
  }

  // ------------------------------------------------------------------------------------------------------- reading side

  async #receive(channel: Channel, stream: Stream, connection: Connection): Promise<void> {
    const peer = this.#peers.get(connection.remotePeer.toString())
    const handler = this.#handlers[channel] ?? (() => {})
    if (peer === undefined || this.#stopping.signal.aborted) {
      connection.abort(new Error('not wanted'))
      return
    }
    // A member writes on one stream a channel: a newer one means that it has given up the older.
    peer.inbound[channel]?.connection.abort(new Error('replaced by a newer stream'))
    const mine = { stream, connection }
    peer.inbound[channel] = mine
    peer.heard = true
    if (channel === 'control') {
      peer.silentTicks = 0
      peer.link.hurry() // it lives: no reason to wait
    }
    try {
      await pipe(
        () => read(stream),
        source => frames(source, MAX_MESSAGE_BYTES[channel]),
        source => this.#consume(peer, channel, handler, source)
      )
      connection.abort(new Error('the other side closed the stream'))
    } catch (error) {
      if (hasCode(error, 'FRAME_OVERSIZE')) this.#counts.oversize++
      if (!hasCode(error, 'STREAM_CLOSED')) {
        this.#options.log.warn({ peer: peer.link.member.name, channel, error: messageOf(error) }, 'closed a stream')
      }
      connection.abort(new Error('the stream is given up'))
    } finally {
      if (peer.inbound[channel] === mine) delete peer.inbound[channel]
    }
  }

  async #consume(
    peer: Peer,
    channel: Channel,
    handler: MessageHandler,
    source: AsyncIterable<Uint8Array>
  ): Promise<void> {
    const { clock } = this.#options
    let turnMs = clock.now()
    for await (const message of source) {
      peer.heard = true
      if (message.length === 0) continue // keep-alive
      this.#received[channel]++
      const held = handler(peer.link.member.id, message)
      if (held !== undefined) await held
      if (clock.now() - turnMs >= READER_TURN_MS) {
        await nextTurn()
        turnMs = clock.now()
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------- silence

  #tickLater(): void {
    this.#cancelTick = this.#options.clock.after(KEEPALIVE_MS, () => {
      for (const peer of this.#peers.values()) this.#tick(peer)
      this.#tickLater()
    })
  }

  #tick(peer: Peer): void {
    const lane = peer.link.lanes?.control
    if (lane !== undefined && lane.outbox.bytes === 0) {
      lane.outbox.push([], 0)
      lane.flush()
    }
    const inbound = peer.inbound.control
    if (inbound === undefined || peer.heard) peer.silentTicks = 0
    else if (++peer.silentTicks >= SILENT_TICKS) {
      this.#counts.silent++
      peer.silentTicks = 0
      inbound.connection.abort(new Error('silent'))
      peer.link.break()
    }
    peer.heard = false
  }
}

function checkedLength(channel: Channel, parts: readonly Uint8Array[]): number {
  let length = 0
  for (const part of parts) length += part.length
  if (length === 0) throw new TypeError('an empty message')
  if (length > MAX_MESSAGE_BYTES[channel]) {
    throw new DiapauseError(
      'MESSAGE_OVERSIZE',
      `a ${channel} message of ${length} bytes; at most ${MAX_MESSAGE_BYTES[channel]} are allowed`
    )
  }
  return length
}
