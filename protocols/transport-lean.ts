/**
 * What libp2p does for each message that two VMs feel when their frames go through two peers, undone from outside:
 *   - yamux (@libp2p/yamux 8) grants the bytes of every message anew as soon as it has come: one more encrypted message
 *     back for each, before the first is even handled, which wakes a sender that has no need of it (`grantLazily`);
 *   - a Noise record leaves in the pieces it was made of, its two bytes of length first, a system call and a segment each,
 *     and the reader wakes for each (`writeWhole`): with the grants, six writes a message where one is enough;
 *   - its reader learns that no further record has come by an error, made anew each time with its stack (`cutQuietly`): of
 *     59 µs that both peers' processors had for a message of 110 bytes after all the above, 19;
 *   - a socket takes 64 KiB of new memory for each read (`readLean`; `read-into.ts`).
 * All reach into objects of libp2p by names that have no promise (`test/contract/transport.test.ts` asks for them): where
 * the names are gone, libp2p does as it likes.
 */
import net from 'node:net'
import { readInto } from './read-into.ts'
import type { Stream } from './stream.ts'

/** `StreamState.Established`; all other states have their own reasons to tell the window. */
const ESTABLISHED = 3

interface YamuxWindow {
  readonly state: number
  /** The whole window, and what of it the other side may send now. */
  readonly recvWindow: number
  readonly recvWindowCapacity: number
  sendWindowUpdate(): void
}

const isYamux = (stream: object): stream is YamuxWindow =>
  'sendWindowUpdate' in stream && 'recvWindow' in stream && 'recvWindowCapacity' in stream && 'state' in stream

/** Lets half of the window be used before it is granted anew, as yamux does in Go (stream.go, sendWindowUpdate). */
export function grantLazily(stream: Stream): void {
  if (!isYamux(stream)) return
  const grant = stream.sendWindowUpdate.bind(stream)
  stream.sendWindowUpdate = () => {
    const isAmple = stream.recvWindowCapacity * 2 > stream.recvWindow
    if (stream.state !== ESTABLISHED || !isAmple) grant()
  }
}

/** Below this a copy costs less than giving the kernel several pieces. A guess. */
const JOIN_BYTES = 16 * 1024

/** Of Node's net.Socket. */
interface Socket {
  write(bytes: Uint8Array): boolean
  cork(): void
  uncork(): void
  readonly writableNeedDrain: boolean
}

interface Pieces extends Iterable<Uint8Array> {
  readonly byteLength: number
  /** All in one; a copy where they are more than one. */
  subarray(): Uint8Array
}

interface SocketConnection {
  readonly socket: Socket
  sendData(data: Pieces): { readonly sentBytes: number; readonly canSendMore: boolean }
}

const isOfSocket = (connection: object): connection is SocketConnection =>
  'socket' in connection && 'sendData' in connection

/** What a connection is given at once leaves in one system call. `connection`: of TCP, before encryption. */
export function writeWhole(connection: object): void {
  if (!isOfSocket(connection)) return
  const { socket } = connection
  connection.sendData = data => {
    const sentBytes = data.byteLength
    if (sentBytes <= JOIN_BYTES) return { sentBytes, canSendMore: socket.write(data.subarray()) }
    socket.cork()
    for (const piece of data) socket.write(piece)
    socket.uncork()
    return { sentBytes, canSendMore: !socket.writableNeedDrain }
  }
}

interface RecordStream {
  readonly decoder: {
    readonly buffer: Pieces & {
      append(data: unknown): void
      consume(count: number): void
      getUint16(at: number): number
      subarray(begin?: number, end?: number): Uint8Array
    }
    decode(data: unknown): Iterable<Uint8Array>
  }
}

const isOfRecords = (connection: object): connection is RecordStream =>
  'decoder' in connection &&
  typeof connection.decoder === 'object' &&
  connection.decoder !== null &&
  'decode' in connection.decoder &&
  'buffer' in connection.decoder

/** Before each Noise record: how long it is. */
const LENGTH_BYTES = 2

/**
 * Cuts what comes into records without a word about the one that is not all there yet. `connection`: of Noise, secured;
 * `below`: that of TCP.
 */
export function cutQuietly(connection: object, below: object): void {
  if (!isOfRecords(connection)) return
  const { decoder } = connection
  const { buffer } = decoder
  if (isOfSocket(below)) unread.set(below.socket, buffer)
  decoder.decode = data => {
    buffer.append(data)
    const records: Uint8Array[] = []
    while (buffer.byteLength >= LENGTH_BYTES) {
      const end = LENGTH_BYTES + buffer.getUint16(0)
      if (buffer.byteLength < end) break
      records.push(buffer.subarray(LENGTH_BYTES, end))
      buffer.consume(end)
    }
    return records
  }
}

/** Sockets whose bytes somebody reads in libp2p's stead. */
const diverted = new WeakMap<object, (chunk: Uint8Array) => void>()
/** Bytes of a record that is not whole, by the socket below. */
const unread = new WeakMap<object, Pieces>()

/** What an accepted `socket` reads from now on is given to `take`, as views valid during the call, and to nobody else. */
export function divertReads(socket: net.Socket, take: (chunk: Uint8Array) => void): void {
  diverted.set(socket, take)
}

/** What Noise has of a record that is not whole. `socket`: of a connection that is secured. */
export function unreadOf(socket: net.Socket): Uint8Array {
  return unread.get(socket)?.subarray() ?? new Uint8Array(0)
}

/** Of all connections: what was read is copied to memory of its own size before anything else is read. */
const readBuffer = Buffer.alloc(64 * 1024)
/** As Node has it by default. */
const WRITE_QUEUE_BYTES = 64 * 1024

const isOfServer = (listener: object): listener is { readonly server: net.Server } =>
  'server' in listener && listener.server instanceof net.Server

/** Connections that come in are read with little. `listener`: of TCP. */
export function readLean(listener: object): void {
  if (!isOfServer(listener)) return
  const { server } = listener
  const takers = server.listeners('connection')
  server.removeAllListeners('connection')
  server.on('connection', accepted => {
    const socket: net.Socket = readInto(readBuffer, accepted, WRITE_QUEUE_BYTES, chunk => {
      const take = diverted.get(socket)
      if (take === undefined) socket.emit('data', Buffer.from(chunk))
      else take(chunk)
    })
    for (const take of takers) take.call(server, socket)
  })
}
