/**
 * A bridge of Open vSwitch, pretended: it speaks OpenFlow on a socket and forwards by its entries, when it is told to. As
 * the real one does, it reads what came to a port later, and follows what it has cached of its tables until the cache is
 * emptied by its control socket.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { decode } from '../../protocols/openflow/decode.ts'
import { encode } from '../../protocols/openflow/encode.ts'
import { type FlowEntry, type Message, PORT_CONTROLLER } from '../../protocols/openflow/messages.ts'
import { MessageSplitter } from '../../protocols/openflow/splitter.ts'
import { after, type Frame, forward } from './openflow-tables.ts'

const VLAN = 0x8100

export class PretendedSwitch {
  readonly #path: string
  readonly #emit: (port: number, frame: Uint8Array) => void
  readonly #servers: Server[] = []
  readonly #sockets = new Set<Socket>()
  #tables: readonly FlowEntry[] = []
  #cached: readonly FlowEntry[] = []
  /** By name. */
  readonly ports = new Map<string, number>()
  readonly #unread: { readonly port: number; readonly bytes: Uint8Array }[] = []

  /** `emit`: a frame leaves by a port. Sockets: `path`, and `path`.ctl. */
  constructor(path: string, emit: (port: number, frame: Uint8Array) => void) {
    this.#path = path
    this.#emit = emit
  }

  async listen(): Promise<void> {
    await this.#serve(this.#path, socket => {
      const splitter = new MessageSplitter()
      socket.write(encode({ xid: 1, message: { type: 'hello', versions: [4] } }))
      socket.on('data', chunk => {
        for (const { xid, message } of splitter.push(chunk).map(decode)) {
          const answer = this.#obey(message)
          if (answer !== undefined) socket.write(encode({ xid, message: answer }))
        }
      })
    })
    await this.#serve(`${this.#path}.ctl`, socket => {
      socket.on('data', () => {
        this.refresh()
        socket.write('{"id":0,"result":"","error":null}')
      })
    })
  }

  /** As where the daemon ends; it may listen again. */
  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    for (const server of this.#servers.splice(0)) server.close()
  }

  nameOf(port: number): string | undefined {
    return [...this.ports].find(([, number]) => number === port)?.[0]
  }

  /** A frame has come to a port. */
  arrive(port: number, bytes: Uint8Array): void {
    this.#unread.push({ port, bytes })
  }

  /** As the kernel would tell, with the port's number for the interface's. */
  get packetQueues(): string {
    const lines = this.#unread.map(({ port, bytes }) => `0 3 3 0003 ${port} 1 ${bytes.length} 0 1`)
    return ['sk RefCnt Type Proto Iface R Rmem User Inode', ...lines].join('\n')
  }

  /** Forwards what came first; false: there is nothing. */
  step(): boolean {
    const next = this.#unread.shift()
    if (next === undefined) return false
    const { frame, payload } = parse(next.port, next.bytes)
    for (const { port, frame: copy, cookie } of forward(this.#cached, frame)) {
      const bytes = bytesOf(copy, payload)
      if (port !== PORT_CONTROLLER) this.#emit(port, bytes)
      else {
        const message: Message = { type: 'packetIn', table: 0, cookie, match: { inPort: next.port }, frame: bytes }
        for (const socket of this.#sockets) if (!socket.destroyed) socket.write(encode({ xid: 0, message }))
      }
    }
    return true
  }

  /** The cache follows the tables. */
  refresh(): void {
    this.#cached = this.#tables
  }

  #obey(message: Message): Message | undefined {
    switch (message.type) {
      case 'featuresRequest':
        return { type: 'featuresReply', datapathId: 1n, tables: 254 }
      case 'barrierRequest':
        return { type: 'barrierReply' }
      case 'flowsRequest':
        return {
          type: 'flowsReply',
          more: false,
          flows: this.#tables.map(flow => ({ ...flow, packets: 0n, bytes: 0n }))
        }
      case 'portsRequest':
        return {
          type: 'portsReply',
          more: false,
          ports: [...this.ports].map(([name, port]) => ({ name, port, mac: port }))
        }
      case 'flowAdd':
      case 'flowDelete':
        this.#tables = after(this.#tables, message)
        return undefined
      case 'packetOut':
        for (const action of message.actions) {
          if (action.type === 'output') this.#emit(action.port, Uint8Array.from(message.frame))
        }
        return undefined
      default:
        return undefined
    }
  }

  async #serve(path: string, serve: (socket: Socket) => void): Promise<void> {
    const server = createServer(socket => {
      if (path === this.#path) this.#sockets.add(socket)
      socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket))
      serve(socket)
    })
    this.#servers.push(server)
    await new Promise<void>(resolve => server.listen(path, resolve))
  }
}

function parse(inPort: number, frame: Uint8Array): { frame: Frame; payload: Uint8Array } {
  const bytes = Buffer.from(frame)
  const tagged = bytes.readUInt16BE(12) === VLAN
  const control = bytes.readUInt16BE(14)
  const at = tagged ? 16 : 12
  return {
    frame: {
      inPort,
      ethDst: bytes.readUIntBE(0, 6),
      ethSrc: bytes.readUIntBE(6, 6),
      ethType: bytes.readUInt16BE(at),
      tag: tagged ? { vid: control & 0xfff, pcp: control >> 13 } : undefined
    },
    payload: bytes.subarray(at + 2)
  }
}

export function bytesOf({ ethDst, ethSrc, ethType, tag }: Omit<Frame, 'inPort'>, payload: Uint8Array): Uint8Array {
  const head = Buffer.alloc(tag === undefined ? 14 : 18)
  head.writeUIntBE(ethDst, 0, 6)
  head.writeUIntBE(ethSrc, 6, 6)
  if (tag !== undefined) head.writeUInt32BE(VLAN * 0x1_0000 + tag.pcp * 0x2000 + tag.vid, 12)
  head.writeUInt16BE(ethType, head.length - 2)
  return Buffer.concat([head, payload])
}
