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
 * Who may come in. A connection gater (`gater.ts`) compares the Noise identity with the members, both ways, before a
 * muxer is spoken; no identify and no ping run here. Members come and go while the peer runs: one that is gone is cut off
 * at once, whatever it was doing. Who was invited may ask to become a member (`transport-invited.ts`) and nothing else; so may
 * who was removed, to be told so.
 */
import type { Libp2p, PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { DiapauseError, messageOf, UsageError } from '../node/errors.ts'
import type { Channel, Clock, Log, MessageHandler, Transport } from '../node/ports.ts'
import type { PeerId } from './core.ts'
import { type Discovery, startDiscovery } from './discovery.ts'
import { gaterOf } from './gater.ts'
import { JOIN_PROTOCOL } from './join-channel.ts'
import { CHANNELS, disconnected, type Member } from './link.ts'
import { openDirect, streamSink } from './direct.ts'
import type { Connection, Stream } from './stream.ts'
import { remoteOf } from './transport-addresses.ts'
import { InvitedStrangers, type JoinHandler } from './transport-invited.ts'
import { createNode, DIAL_TIMEOUT_MS, MAX_STREAMS } from './transport-node.ts'
import { KEEPALIVE_MS, MAX_MESSAGE_BYTES, MemberPeer } from './transport-peer.ts'

export { backoffMs, type Member } from './link.ts'
export { MAX_MESSAGE_BYTES } from './transport-peer.ts'

/**
 * Of one member, both ways: a link is three each way, and while it is made anew the old ones may still be there. Four times that, a guess,
 * and far from the bound for all together (`transport-node.ts`), which no member may use up alone.
 */
const MAX_CONNECTIONS_OF_ONE = 24

/** Frames go past their stream (`direct.ts`). */
const VERSIONS: Readonly<Record<Channel, number>> = { control: 1, bulk: 1, frames: 2 }
export const protocolOf = (channel: Channel): string => `/diapause/${channel}/${VERSIONS[channel]}`

export interface TransportOptions {
  readonly privateKey: PrivateKey
  /** Multiaddr to listen on. */
  readonly listen: string
  readonly cluster: string
  /** All members; oneself among them or not. */
  readonly members: readonly Member[]
  /** Whether members look for each other's addresses on the LAN. Default: false. */
  readonly mdns?: boolean
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
  /** libp2p connections that are open, both ways. */
  readonly connections: number
  /** Requests of invited strangers that were answered. */
  readonly joins: number
  /** Visits of invited strangers that were ended otherwise: too much, too late, another protocol, or no answer for them. */
  readonly invitedRefused: number
  /** Links that came up at an address that mDNS told of. */
  readonly mdnsLinks: number
  /** What mDNS told of peers that are no members. */
  readonly mdnsIgnored: number
}

export interface Libp2pTransport extends Transport {
  /**
   * Those of today, oneself among them or not. Who is new is dialled. Who is gone is cut off before this returns: watchers
   * have heard of the end of its link, and no message of it is handled any more. A changed address is dialled now, or next
   * where the link is up.
   */
  setMembers(members: readonly Member[]): void
  /**
   * Breaks the links to those of `remotes` (`ADDRESS:PORT`), which have not acknowledged what the kernel has for them: it is
   * never sent, nor sent again. For a lease that has run out, while a cable or a switch keeps back what was said under it.
   */
  takeBack(remotes: ReadonlySet<string>): void
  /** Identities that may ask to join. Who is left out may not begin to ask any more. */
  setInvited(invites: ReadonlySet<PeerId>): void
  /** One handler, set before `start`: 1 byte to 64 KiB each way. Where it rejects, the stranger sees a refusal. */
  onJoin(handler: JoinHandler): void
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

class LinkTransport implements Libp2pTransport {
  readonly self: PeerId
  readonly #options: TransportOptions
  readonly #peers = new Map<PeerId, MemberPeer>()
  readonly #invited: InvitedStrangers
  readonly #handlers: Partial<Record<Channel, MessageHandler>> = {}
  readonly #watchers: ((peer: PeerId, connected: boolean) => void)[] = []
  readonly #sent = perChannel()
  readonly #dropped = perChannel()
  readonly #counts = {
    received: perChannel(),
    oversize: 0,
    strangers: 0,
    dials: 0,
    silent: 0,
    mdnsLinks: 0,
    mdnsIgnored: 0
  }
  #node: Libp2p | undefined
  #discovery: Discovery | undefined
  #stopped = false
  #cancelTick: (() => void) | undefined

  constructor(options: TransportOptions) {
    this.#options = options
    this.self = peerIdFromPrivateKey(options.privateKey).toString()
    this.#invited = new InvitedStrangers(options)
    this.setMembers(options.members)
  }

  connected(peer: PeerId): boolean {
    return this.#peers.get(peer)?.link.lanes !== undefined
  }

  send(to: PeerId, channel: Channel, parts: readonly Uint8Array[], leaves?: () => boolean): boolean {
    const length = checkedLength(channel, parts)
    const lane = this.#peers.get(to)?.link.lanes?.[channel]
    if (lane === undefined || lane.outbox.full) {
      this.#dropped[channel]++
      return false
    }
    lane.send(parts, length, leaves)
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

  takeBack(remotes: ReadonlySet<string>): void {
    for (const { link } of this.#peers.values()) {
      const remote = link.lanes && remoteOf(link.lanes.frames.connection.remoteAddr.toString())
      if (remote !== undefined && remotes.has(remote)) link.break()
    }
  }

  handle(channel: Channel, handler: MessageHandler): void {
    if (this.#handlers[channel] !== undefined) throw new TypeError(`channel ${channel} has a handler already`)
    this.#handlers[channel] = handler
  }

  onConnection(handler: (peer: PeerId, connected: boolean) => void): void {
    this.#watchers.push(handler)
  }

  onJoin(handler: JoinHandler): void {
    this.#invited.onJoin(handler)
  }

  setInvited(invites: ReadonlySet<PeerId>): void {
    this.#invited.set(invites)
  }

  setMembers(members: readonly Member[]): void {
    if (this.#stopped) return
    const others = new Map(members.filter(member => member.id !== this.self).map(member => [member.id, member]))
    for (const [id, peer] of this.#peers) {
      if (others.has(id)) continue
      this.#peers.delete(id)
      this.#cutOff(id, peer, 'no longer a member')
    }
    for (const member of others.values()) {
      const known = this.#peers.get(member.id)
      if (known !== undefined) known.link.update(member)
      else this.#add(member)
    }
    this.#discovery?.hurry()
  }

  stats(): TransportStats {
    return {
      ...this.#counts,
      ...this.#invited.counts,
      sent: { ...this.#sent },
      received: { ...this.#counts.received },
      dropped: { ...this.#dropped },
      connections: this.#node?.getConnections().length ?? 0
    }
  }

  async start(): Promise<void> {
    const { listen } = this.#options
    const node = await this.#createNode()
    const streams = { maxInboundStreams: MAX_STREAMS, maxOutboundStreams: MAX_STREAMS }
    for (const channel of CHANNELS) {
      await node.handle(protocolOf(channel), (stream, on) => this.#receive(channel, stream, on), streams)
    }
    await node.handle(JOIN_PROTOCOL, (stream, on) => void this.#invited.receive(stream, on), streams)
    node.addEventListener('connection:open', ({ detail }) => this.#checkAgain(detail))
    try {
      await node.start()
    } catch (cause) {
      const inUse = messageOf(cause).includes('EADDRINUSE')
      throw new UsageError(
        inUse ? 'LISTEN_IN_USE' : 'LISTEN_FAILED',
        inUse
          ? `${listen} is in use by another process; stop it, or set another peer.listen`
          : `cannot listen on ${listen}: ${messageOf(cause)}`,
        { cause, details: { listen } }
      )
    }
    this.#node = node
    for (const { link } of this.#peers.values()) void link.keep()
    this.#tickLater()
    if (this.#options.mdns === true) this.#discovery = await this.#discover(node)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancelTick?.()
    for (const [id, peer] of this.#peers) this.#cutOff(id, peer, 'this peer stops')
    await this.#discovery?.stop()
    await this.#node?.stop()
  }

  // ------------------------------------------------------------------------------------------------------- members

  #add(member: Member): void {
    const peer = new MemberPeer(member, {
      ...this.#options,
      open: (...dial) => this.#open(...dial),
      announce: ({ id, name }, connected) => this.#announce(id, name, connected),
      handlers: this.#handlers,
      counts: this.#counts
    })
    this.#peers.set(member.id, peer)
    if (this.#node !== undefined) void peer.link.keep()
  }

  #cutOff(id: PeerId, peer: MemberPeer, why: string): void {
    // Also those that have no stream yet.
    for (const connection of this.#node?.getConnections() ?? []) {
      if (connection.remotePeer.toString() === id) connection.abort(new Error(why))
    }
    peer.cutOff(why)
  }

  async #open(member: Member, channel: Channel, at: string, signal: AbortSignal) {
    if (this.#node === undefined) throw disconnected(member.name)
    const address = multiaddr(`${at}/p2p/${member.id}`)
    const within = AbortSignal.any([signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)])
    if (channel === 'control') this.#counts.dials++
    const connection = await this.#node.dial(address, { force: true, signal: within })
    try {
      const stream = await connection.newStream(protocolOf(channel), { signal: within })
      const sink = channel === 'frames' ? await openDirect(connection, stream, within) : streamSink(stream)
      return { connection, stream, sink }
    } catch (error) {
      connection.abort(new Error('no stream'))
      throw error
    }
  }

  #announce(id: PeerId, name: string, connected: boolean): void {
    if (this.#stopped) return
    if (!connected) this.#discovery?.hurry()
    for (const watcher of this.#watchers) {
      try {
        watcher(id, connected)
      } catch (error) {
        this.#options.log.error({ peer: name, error: messageOf(error) }, 'a connection handler failed')
      }
    }
  }

  #tickLater(): void {
    this.#cancelTick = this.#options.clock.after(KEEPALIVE_MS, () => {
      for (const peer of this.#peers.values()) peer.tick()
      this.#tickLater()
    })
  }

  // ------------------------------------------------------------------------------------------------------- who comes in

  #createNode(): Promise<Libp2p> {
    const gater = gaterOf({
      isMember: id => this.#peers.has(id),
      isInvited: id => this.#invited.has(id),
      admit: (id, connection) => this.#invited.admit(id, connection),
      onStranger: peer => {
        this.#counts.strangers++
        this.#options.log.debug({ peer }, 'refused a peer that is no member')
      }
    })
    return createNode({ privateKey: this.#options.privateKey, listen: [this.#options.listen], gater })
  }

  /** Between the gater's look and the open connection a member may have been removed. */
  #checkAgain(connection: Connection): void {
    const id = connection.remotePeer.toString()
    if (!this.#peers.has(id) && !this.#invited.isVisiting(id)) connection.abort(new Error('no longer a member'))
    else if ((this.#node?.getConnections(connection.remotePeer).length ?? 0) > MAX_CONNECTIONS_OF_ONE) {
      connection.abort(new Error('too many connections'))
    }
  }

  #receive(channel: Channel, stream: Stream, connection: Connection): void {
    const id = connection.remotePeer.toString()
    const peer = this.#peers.get(id)
    if (peer !== undefined && !this.#stopped) void peer.receive(channel, stream, connection)
    else if (this.#invited.isVisiting(id)) this.#invited.refuse(connection, `a stream of ${protocolOf(channel)}`)
    else connection.abort(new Error('not wanted'))
  }

  #discover(node: Libp2p): Promise<Discovery> {
    const { cluster, clock, log } = this.#options
    return startDiscovery({
      cluster,
      clock,
      log,
      logger: node.logger,
      addresses: () => node.getMultiaddrs(),
      isSearching: () => [...this.#peers.values()].some(({ link }) => link.lanes === undefined),
      onFound: (id, addresses) => {
        const peer = this.#peers.get(id)
        if (peer === undefined) this.#counts.mdnsIgnored++
        else for (const address of addresses) peer.link.found(address)
      }
    })
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
