/**
 * The network between simulated hosts: directed links, each a connection as TCP would hold it. Messages on a connection are
 * whole and, on the channel `frames`, in order; they are lost when it breaks. Control messages also meet what happens
 * where a connection is replaced at a bad moment: they are lost, doubled and overtaken.
 *
 * A partition blocks directions. What is sent into it waits, as in a socket's buffer, until the connection is given up;
 * then both peers are told, and dial again.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { Channel, MessageHandler, Transport } from '../../node/ports.ts'
import { backoffMs } from '../../protocols/link.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Kernel, What } from './kernel.ts'
import type { Host, Life } from './world-host.ts'

/** A connection that gets nothing through is given up after at most this. */
const GIVE_UP_MS = 800
/** How long a call of the shard service waits for its answer. */
const CALL_MS = 1_500

/** What happens to frames on their way, for the world's book. */
export interface Wire {
  /** A message on the channel `frames` leaves the peer now. */
  left(life: Life, message: Uint8Array): void
  /** One has come to the process, which may be stopped: it is gone with it. */
  came(life: Life, message: Uint8Array): void
  lost(message: Uint8Array, why: string): void
  describe(channel: Channel, message: Uint8Array): string
}

interface Link {
  readonly from: Life
  readonly to: PeerId
  /** The process at the other end. */
  target: Life
  /** What was sent is lost from now on. */
  severed: boolean
  /** Frames leave and come in order. */
  lastComesMs: number
  /** In the way of a partition. */
  readonly stalled: (() => void)[]
}

export class Network {
  readonly kernel: Kernel
  readonly wire: Wire
  readonly hosts = new Map<PeerId, Host>()
  /** Chance that a control message is lost; doubled and much delayed ones follow it. */
  loss = 0
  /** What every message takes longer than it should. */
  slowMs = 0
  readonly #blocked = new Set<string>()
  readonly #transports = new Map<Life, SimTransport>()

  constructor(kernel: Kernel, wire: Wire) {
    this.kernel = kernel
    this.wire = wire
  }

  add(host: Host): void {
    this.hosts.set(host.name, host)
    host.onEnd = (life, how) => {
      this.#transports.delete(life)
      for (const transport of this.#transports.values()) transport.ended(life, how)
    }
  }

  transport(life: Life): SimTransport {
    const transport = new SimTransport(this, life)
    this.#transports.set(life, transport)
    return transport
  }

  /** The life that listens at `to`. */
  listening(to: PeerId): Life | undefined {
    const life = this.hosts.get(to)?.life
    return life !== undefined && this.#transports.get(life)?.running ? life : undefined
  }

  open(from: PeerId, to: PeerId): boolean {
    return !this.#blocked.has(`${from}>${to}`)
  }

  /** Whether one may have a working connection to the other now. */
  reaches(from: PeerId, to: PeerId): boolean {
    return from === to || (this.open(from, to) && this.open(to, from))
  }

  /** Whether what one says to the other now comes to a process that runs: by a connection, with nothing in its way. */
  talks(from: PeerId, to: PeerId): boolean {
    const target = this.hosts.get(to)
    const link = this.transportOf(from)?.linkTo(to)
    if (link === undefined || link.severed || link.target !== target?.life) return false
    return target.stopped === 'no' && link.stalled.length === 0 && this.open(from, to)
  }

  block(from: PeerId, to: PeerId): void {
    if (!this.open(from, to)) return
    this.#blocked.add(`${from}>${to}`)
    const { kernel } = this
    for (const [a, b] of [
      [from, to],
      [to, from]
    ] as const) {
      kernel.at(
        kernel.between(20, GIVE_UP_MS),
        () => `${a} gives up on ${b}`,
        () => {
          if (!this.reaches(a, b)) this.transportOf(a)?.break(b, 'partition')
        }
      )
    }
  }

  heal(): void {
    this.#blocked.clear()
    for (const transport of this.#transports.values()) transport.thaw()
  }

  transportOf(peer: PeerId): SimTransport | undefined {
    const life = this.hosts.get(peer)?.life
    return life === undefined ? undefined : this.#transports.get(life)
  }

  delayMs(): number {
    return this.kernel.between(0.3, 2.3) + this.kernel.random() * this.slowMs
  }

  /** A question to a peer and its answer, as the shard service has them. */
  call<T>(from: Life, to: PeerId, what: string, answer: (at: Life) => Promise<T>): Promise<T> {
    if (to === from.host.name) return from.wait(0.05, what).then(() => answer(from))
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => reject(new DiapauseError('SHARD_UNREACHABLE', `${to}: ${why}`))
      const target = this.listening(to)
      if (target === undefined || !this.reaches(from.host.name, to)) {
        return from.after(1, 'io', what, () => fail('no connection'))
      }
      from.after(CALL_MS, 'timer', `${what} timeout`, () => fail('no answer'))
      target.after(this.delayMs(), 'io', what, () => {
        if (!this.open(from.host.name, to)) return
        const back = (run: () => void): void => {
          if (this.open(to, from.host.name)) from.after(this.delayMs(), 'io', `${what} answered`, run)
        }
        answer(target).then(
          value => back(() => resolve(value)),
          (error: Error) => back(() => reject(error))
        )
      })
    })
  }
}

export class SimTransport implements Transport {
  readonly self: PeerId
  running = false
  readonly #network: Network
  readonly #life: Life
  readonly #links = new Map<PeerId, Link>()
  #members: ReadonlySet<PeerId> = new Set()
  readonly #handlers = new Map<Channel, MessageHandler>()
  readonly #onConnection: ((peer: PeerId, connected: boolean) => void)[] = []

  constructor(network: Network, life: Life) {
    this.#network = network
    this.#life = life
    this.self = life.host.name
  }

  // ------------------------------------------------------------------------------------------ the port

  /** Whether it is a member as far as this peer knows: strangers are not let in. */
  knows(peer: PeerId): boolean {
    return this.#members.has(peer)
  }

  linkTo(peer: PeerId): Link | undefined {
    return this.#links.get(peer)
  }

  connected(peer: PeerId): boolean {
    return this.#links.has(peer)
  }

  send(to: PeerId, channel: Channel, parts: readonly Uint8Array[], leaves?: () => boolean): boolean {
    const link = this.#links.get(to)
    const message = Buffer.concat(parts)
    if (link === undefined) {
      if (channel === 'frames') this.#network.wire.lost(message, 'no connection')
      return false
    }
    const leave = (): void => {
      if (leaves?.() === false) return // the sender keeps it
      if (channel === 'frames') this.#inOrder(link, message)
      else this.#anyhow(link, channel, message)
    }
    // The queue of a lane: it is emptied in a later turn.
    this.#life.after(0.02, 'io', () => `sends ${this.#describe(channel, message)} to ${to}`, leave)
    return true
  }

  write(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): Promise<void> {
    if (this.send(to, channel, parts)) return Promise.resolve()
    return Promise.reject(new DiapauseError('TRANSPORT_DISCONNECTED', `no link to ${to}`))
  }

  handle(channel: Channel, handler: MessageHandler): void {
    this.#handlers.set(channel, handler)
  }

  onConnection(handler: (peer: PeerId, connected: boolean) => void): void {
    this.#onConnection.push(handler)
  }

  /** Who is new is dialled, who is gone is cut off. */
  setMembers(members: readonly PeerId[]): void {
    const before = this.#members
    this.#members = new Set(members)
    for (const to of this.#links.keys()) if (!this.#members.has(to)) this.break(to, 'no longer a member')
    for (const to of members) if (this.running && !before.has(to)) this.#dialLater(to, 0)
  }

  async start(): Promise<void> {
    this.running = true
    for (const to of this.#members) this.#dialLater(to, 0)
  }

  async stop(): Promise<void> {
    this.running = false
    for (const to of this.#links.keys()) this.break(to, 'stopped')
  }

  // ------------------------------------------------------------------------------------------ connections

  #dialLater(to: PeerId, failures: number): void {
    const { random } = this.#network.kernel
    const delayMs = failures === 0 ? 1 + random() * 4 : backoffMs(failures - 1, random())
    this.#life.after(delayMs, 'timer', `dials ${to}`, () => this.#dial(to, failures))
  }

  #dial(to: PeerId, failures: number): void {
    if (!this.running || this.#links.has(to) || to === this.self || !this.#members.has(to)) return
    const target = this.#network.listening(to)
    const lets = this.#network.transportOf(to)?.knows(this.self) === true
    const answers = target?.host.stopped === 'no' && lets && this.#network.reaches(this.self, to)
    if (!answers) return this.#dialLater(to, failures + 1)
    this.#links.set(to, { from: this.#life, to, target, severed: false, lastComesMs: 0, stalled: [] })
    this.#tell(to, true)
  }

  #tell(peer: PeerId, connected: boolean): void {
    this.#network.kernel.note(() => `${this.self} link to ${peer} ${connected ? 'up' : 'down'}`)
    for (const handler of this.#onConnection) handler(peer, connected)
  }

  /** Takes a link down; what is on it is lost. It is dialled again. */
  break(to: PeerId, why: string): void {
    const link = this.#links.get(to)
    if (link === undefined) return
    link.severed = true
    for (const lose of link.stalled.splice(0)) lose()
    this.#down(to, why)
  }

  #down(to: PeerId, why: string): void {
    this.#links.delete(to)
    this.#life.enter('io', `link to ${to} down (${why})`, () => {
      this.#tell(to, false)
      this.#dialLater(to, 1)
    })
  }

  /** The process at the other end is gone. Its kernel says so; a host without power says nothing until it is missed. */
  ended(life: Life, how: 'killed' | 'power'): void {
    for (const link of this.#links.values()) {
      if (link.target !== life) continue
      const { kernel } = this.#network
      const delayMs = how === 'killed' ? kernel.between(0.5, 5) : kernel.between(200, 2 * GIVE_UP_MS)
      kernel.at(
        delayMs,
        () => `${this.self} misses ${link.to}`,
        () => {
          if (this.#links.get(link.to) === link) this.break(link.to, how)
        }
      )
    }
  }

  thaw(): void {
    for (const { stalled } of this.#links.values()) for (const go of stalled.splice(0)) go()
  }

  // ------------------------------------------------------------------------------------------ messages

  #inOrder(link: Link, message: Uint8Array): void {
    const { kernel, wire } = this.#network
    wire.left(this.#life, message)
    if (link.severed) return wire.lost(message, 'the connection broke')
    link.lastComesMs = Math.max(link.lastComesMs + 0.001, kernel.nowMs + this.#network.delayMs())
    const come = (): void => {
      const { target } = link
      // What a process has sent still comes when it has ended, up to a point.
      link.severed ||= target.dead || (link.from.dead && kernel.chance(0.3))
      if (link.severed) return wire.lost(message, 'the connection broke')
      if (link.stalled.length > 0 || !this.#network.open(this.self, link.to)) link.stalled.push(come)
      else {
        wire.came(target, message)
        target.enter('io', 'frames', () => this.#network.transportOf(link.to)?.receive(this.self, 'frames', message))
      }
    }
    kernel.at(link.lastComesMs - kernel.nowMs, this.#arrival(link, 'frames', message), come)
  }

  #anyhow(link: Link, channel: Channel, message: Uint8Array): void {
    const network = this.#network
    const { kernel, loss } = network
    if (link.severed || kernel.chance(loss)) return
    const copies = kernel.chance(loss / 2) ? 2 : 1
    for (let i = 0; i < copies; i++) {
      // Mostly quick, now and then later than what is sent long after.
      const delayMs = network.delayMs() + (kernel.chance(loss) ? kernel.random() * 300 : 0)
      const come = (): void => {
        if (link.severed || link.target.dead) return
        if (network.open(this.self, link.to)) {
          link.target.enter('io', 'message', () => network.transportOf(link.to)?.receive(this.self, channel, message))
        } else if (kernel.chance(0.3)) link.stalled.push(come)
      }
      kernel.at(delayMs, this.#arrival(link, channel, message), come)
    }
  }

  #arrival(link: Link, channel: Channel, message: Uint8Array): What {
    return () => `${link.to} gets ${this.#describe(channel, message)} from ${this.self}`
  }

  #describe(channel: Channel, message: Uint8Array): string {
    return this.#network.wire.describe(channel, message)
  }

  receive(from: PeerId, channel: Channel, message: Uint8Array): void {
    if (!this.running || !this.#members.has(from)) return
    // The receiver's own: a copy, as a duplicate is another message.
    void this.#handlers.get(channel)?.(from, new Uint8Array(message))
  }
}
