/**
 * One connection to a bridge, as its controller: Open vSwitch's management socket (`BRIDGE.mgmt`) or a TCP port that the
 * bridge listens on (`ovs-vsctl set-controller BRIDGE ptcp:6653`). Answers come in order of their questions; what the
 * switch refuses is the error of the batch that it was in. A bridge that says nothing for long is as good as gone.
 */
import { connect, type Socket } from 'node:net'
import { decode } from '../../../protocols/openflow/decode.ts'
import { encode } from '../../../protocols/openflow/encode.ts'
import {
  type Action,
  type Envelope,
  type FlowStatistics,
  type Message,
  OPENFLOW_VERSION,
  type SwitchPort,
  WHOLE_FRAME
} from '../../../protocols/openflow/messages.ts'
import { MessageSplitter } from '../../../protocols/openflow/splitter.ts'
import { DiapauseError, messageOf } from '../../errors.ts'
import type { Clock } from '../../ports.ts'

export interface ConnectionEvents {
  /** An entry with this cookie has sent the frame up. The frame is a view. */
  packetIn(cookie: bigint, frame: Uint8Array): void
  /** Whether packet-outs are taken at once, or wait in this process. */
  writable(writable: boolean): void
  /** Once, and nothing comes after it. Undefined: by `close`. */
  closed(error: DiapauseError | undefined): void
}

/** For an answer. A guess: a busy bridge needs milliseconds, and an epoch's deadline is seconds. */
const ANSWER_MS = 5_000

interface Question {
  /** Takes a part of the answer; true: it was the last. */
  take(message: Message): boolean
  reject(error: DiapauseError): void
  cancelTimer(): void
}

export class OpenFlowConnection {
  readonly #socket: Socket
  readonly #clock: Clock
  readonly #events: ConnectionEvents
  readonly #splitter = new MessageSplitter()
  readonly #questions = new Map<number, Question>()
  /** Messages that are not answered unless refused, and the question behind them. */
  readonly #batches = new Map<number, number>()
  readonly #greeted = Promise.withResolvers<void>()
  #lastXid = 0
  #closed = false

  private constructor(socket: Socket, clock: Clock, events: ConnectionEvents) {
    this.#socket = socket
    this.#clock = clock
    this.#events = events
    this.#greeted.promise.catch(() => {}) // `open` awaits it
    socket.on('data', chunk => this.#read(chunk))
    socket.on('drain', () => events.writable(true))
    socket.on('error', error => this.#end(down(messageOf(error), error)))
    socket.on('close', () => this.#end(down('the bridge closed the connection')))
  }

  /**
   * `address`: a path, or HOST:PORT. Rejects with OPENFLOW_DOWN (nobody there), OPENFLOW_VERSION (1.3 is not spoken); then
   * `closed` is not called.
   */
  static async open(address: string, clock: Clock, events: ConnectionEvents): Promise<OpenFlowConnection> {
    const socket = connect(optionsOf(address))
    let opened = false
    const connection = new OpenFlowConnection(socket, clock, {
      ...events,
      closed: error => {
        if (opened) events.closed(error)
      }
    })
    const cancel = clock.after(ANSWER_MS, () => connection.#end(down('no answer')))
    try {
      connection.#send({ type: 'hello', versions: [OPENFLOW_VERSION] })
      await connection.#greeted.promise
      // Open vSwitch sends nothing up on its management socket before this.
      connection.#send({ type: 'setConfig', missSendBytes: WHOLE_FRAME })
      await connection.#ask({ type: 'featuresRequest' }, () => true)
      opened = true
      return connection
    } finally {
      cancel()
      if (!opened) socket.destroy()
    }
  }

  /**
   * Sends all; resolves when the bridge has done it. Rejects with OPENFLOW_REFUSED where it refused one, having done the
   * others; OPENFLOW_DOWN.
   */
  async apply(messages: readonly Message[]): Promise<void> {
    const barrier = this.#nextXid(messages.length + 1)
    const first = barrier - messages.length
    for (const [index, message] of messages.entries()) {
      this.#batches.set(first + index, barrier)
      this.#write({ xid: first + index, message })
    }
    try {
      await this.#ask({ type: 'barrierRequest' }, () => true, barrier)
    } finally {
      for (let xid = first; xid < barrier; xid++) this.#batches.delete(xid)
    }
  }

  packetOut(actions: readonly Action[], frame: Uint8Array): void {
    this.#send({ type: 'packetOut', actions, frame })
  }

  async ports(): Promise<SwitchPort[]> {
    const ports: SwitchPort[] = []
    await this.#ask({ type: 'portsRequest' }, reply => {
      if (reply.type !== 'portsReply') return true
      ports.push(...reply.ports)
      return !reply.more
    })
    return ports
  }

  /** Entries whose cookie is `cookie` under the mask. */
  async flows(cookie: bigint, cookieMask: bigint): Promise<FlowStatistics[]> {
    const flows: FlowStatistics[] = []
    await this.#ask({ type: 'flowsRequest', cookie, cookieMask }, reply => {
      if (reply.type !== 'flowsReply') return true
      flows.push(...reply.flows)
      return !reply.more
    })
    return flows
  }

  close(): void {
    this.#end(undefined)
  }

  #ask(message: Message, take: (message: Message) => boolean, xid = this.#nextXid(1)): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    if (this.#closed) {
      reject(down('the connection is closed'))
      return promise
    }
    const cancelTimer = this.#clock.after(ANSWER_MS, () => this.#end(down(`no answer in ${ANSWER_MS} ms`)))
    this.#questions.set(xid, {
      take: reply => {
        const last = take(reply)
        if (last) resolve()
        return last
      },
      reject,
      cancelTimer
    })
    this.#write({ xid, message })
    return promise
  }

  #send(message: Message): void {
    this.#write({ xid: this.#nextXid(1), message })
  }

  #write(envelope: Envelope): void {
    if (this.#closed) return
    if (!this.#socket.write(encode(envelope))) this.#events.writable(false)
  }

  /** Reserves `count` numbers in a row; the last of them. */
  #nextXid(count: number): number {
    if (this.#lastXid + count > 0xffff_ffff) this.#lastXid = 0
    this.#lastXid += count
    return this.#lastXid
  }

  #read(chunk: Uint8Array): void {
    try {
      for (const bytes of this.#splitter.push(chunk)) if (!this.#closed) this.#take(decode(bytes))
    } catch (error) {
      this.#end(error instanceof DiapauseError ? error : down(messageOf(error), error))
    }
  }

  #take({ xid, message }: Envelope): void {
    switch (message.type) {
      case 'hello':
        if (message.versions.includes(OPENFLOW_VERSION)) this.#greeted.resolve()
        else this.#end(otherVersion(message.versions))
        return
      case 'echoRequest':
        return this.#write({ xid, message: { type: 'echoReply', data: message.data } })
      case 'packetIn':
        return this.#events.packetIn(message.cookie, message.frame)
      case 'error':
        return this.#refused(xid, message)
      default:
        this.#answer(xid, message)
    }
  }

  #answer(xid: number, message: Message): void {
    const question = this.#questions.get(xid)
    if (question?.take(message) !== true) return
    question.cancelTimer()
    this.#questions.delete(xid)
  }

  #refused(xid: number, { category, code }: Extract<Message, { type: 'error' }>): void {
    const about = this.#batches.get(xid) ?? xid
    const question = this.#questions.get(about)
    question?.cancelTimer()
    this.#questions.delete(about)
    question?.reject(
      new DiapauseError(
        'OPENFLOW_REFUSED',
        `the bridge refused a message with OpenFlow error ${category}/${code} (ofp_error_msg of the specification says which)`
      )
    )
  }

  #end(error: DiapauseError | undefined): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.destroy()
    const reason = error ?? down('the connection was closed')
    this.#greeted.reject(reason)
    for (const question of this.#questions.values()) {
      question.cancelTimer()
      question.reject(reason)
    }
    this.#questions.clear()
    this.#events.closed(error)
  }
}

function optionsOf(address: string): { path: string } | { host: string; port: number } {
  const match = /^([^/]+):(\d{1,5})$/.exec(address)
  return match === null ? { path: address } : { host: match[1] as string, port: Number(match[2]) }
}

const down = (what: string, cause?: unknown): DiapauseError =>
  new DiapauseError('OPENFLOW_DOWN', `no OpenFlow connection to the bridge: ${what}`, { cause })

const otherVersion = (versions: readonly number[]): DiapauseError =>
  new DiapauseError(
    'OPENFLOW_VERSION',
    `the bridge speaks OpenFlow versions ${versions.join(', ')} and not ${OPENFLOW_VERSION}: run  ovs-vsctl set bridge BRIDGE protocols=OpenFlow13`
  )
