/**
 * The way of frames between two peers: on a connection that libp2p dialled, proved and negotiated as any other, but past its
 * streams. Frames of VMs wait for each other: a guest sends its next when the last was answered, so every frame passes every
 * layer alone, with caches that a guest has just emptied. Yamux, the events between the layers of libp2p and two asynchronous
 * iterators then cost more than cipher and kernel together. There is one stream a connection here, TCP holds back who writes
 * too much, and so nothing of it is missed: see `npm run bench -- switch`.
 *
 * How it begins: on its stream the dialler says a new key (nobody else can read it), the other side opens what is sealed
 * with it from now on and answers with one byte, and then records (`direct-records.ts`) go between those of Noise. All else of
 * the connection stays libp2p's: its end, its keep-alives, the stream on which nothing is said any more.
 *
 * `connection.maConn.socket` has no promise of libp2p's; LIBP2P_CHANGED where it is not there.
 */
import { randomBytes } from 'node:crypto'
import type net from 'node:net'
import { DiapauseError } from '../node/errors.ts'
import {
  KEY_BYTES,
  MAX_RECORD_BYTES,
  RECORD_MORE_BYTES,
  RecordCutter,
  RecordOpener,
  RecordSealer
} from './direct-records.ts'
import {
  type Connection,
  FRAME_HEADER_BYTES,
  frameHeader,
  MessageCutter,
  messages,
  read,
  type Stream,
  write
} from './stream.ts'
import { divertReads, unreadOf } from './transport-lean.ts'

const READY = Uint8Array.of(1)

/** The socket below a connection. LIBP2P_CHANGED. */
function socketOf(connection: Connection): net.Socket {
  const { maConn } = connection as { maConn?: { socket?: net.Socket } }
  if (maConn?.socket !== undefined) return maConn.socket
  throw new DiapauseError(
    'LIBP2P_CHANGED',
    'a connection of libp2p does not show its socket: install the versions of package-lock.json (npm ci)'
  )
}

// ---------------------------------------------------------------------------------------------------- who writes

/** Where a lane's bytes go. */
export interface ByteSink {
  /** Resolves when it wants more, at once where it does: then it returns nothing. Rejects where it is broken. */
  write(bytes: Uint8Array): Promise<void> | undefined
  /** The longest that `writeMessage` takes; 0: none. */
  readonly maxMessageBytes: number
  /** As `write`, of one message with its length before it: `parts`, `length` bytes in all. */
  writeMessage(parts: readonly Uint8Array[], length: number): Promise<void> | undefined
}

/** By way of the stream. */
export function streamSink(stream: Stream): ByteSink {
  const writeMessage = (parts: readonly Uint8Array[], length: number): Promise<void> =>
    write(stream, Buffer.concat([frameHeader(length), ...parts]))
  return { write: bytes => write(stream, bytes), maxMessageBytes: 0, writeMessage }
}

/** Past the stream. LIBP2P_CHANGED, STREAM_CLOSED; aborts with `signal`. */
export async function openDirect(connection: Connection, stream: Stream, signal: AbortSignal): Promise<ByteSink> {
  const socket = socketOf(connection)
  const key = randomBytes(KEY_BYTES)
  const giveUp = (): void => connection.abort(new Error('no answer'))
  signal.addEventListener('abort', giveUp)
  try {
    await write(stream, Buffer.concat([frameHeader(KEY_BYTES), key]))
    const answer = await read(stream).next()
    signal.throwIfAborted()
    if (answer.done === true) throw closed(socket)
  } finally {
    signal.removeEventListener('abort', giveUp)
  }
  return new DirectSink(socket, key)
}

/** Of all sinks: a message is sealed into memory of its own before anything else is written. */
const scratch = Buffer.alloc(MAX_RECORD_BYTES)
/**
 * Of all sinks: where records are sealed. What the kernel has taken at once is not read again; where it has not, the memory
 * is the socket's. With new memory for each record, a third of a busy peer's time went to collecting it.
 */
let sealed = Buffer.allocUnsafeSlow(MAX_RECORD_BYTES + RECORD_MORE_BYTES)

class DirectSink implements ByteSink {
  readonly #socket: net.Socket
  readonly #sealer: RecordSealer
  readonly maxMessageBytes = MAX_RECORD_BYTES - FRAME_HEADER_BYTES

  constructor(socket: net.Socket, key: Uint8Array) {
    this.#socket = socket
    this.#sealer = new RecordSealer(key)
  }

  writeMessage(parts: readonly Uint8Array[], length: number): Promise<void> | undefined {
    scratch.writeUInt32BE(length)
    let end = FRAME_HEADER_BYTES
    for (const part of parts) {
      scratch.set(part, end)
      end += part.length
    }
    return this.write(scratch.subarray(0, end))
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    const socket = this.#socket
    if (!socket.writable) throw closed(socket)
    for (let at = 0; at < bytes.length; at += MAX_RECORD_BYTES) {
      const text = bytes.length <= MAX_RECORD_BYTES ? bytes : bytes.subarray(at, at + MAX_RECORD_BYTES)
      const isBusy = socket.writableLength > 0
      socket.write(this.#sealer.seal(text, isBusy ? undefined : sealed))
      if (!isBusy && socket.writableLength > 0) sealed = Buffer.allocUnsafeSlow(sealed.length)
    }
    return socket.writableNeedDrain ? drained(socket) : undefined
  }
}

function drained(socket: net.Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const onDrain = (): void => {
      socket.off('close', onClose)
      resolve()
    }
    const onClose = (): void => {
      socket.off('drain', onDrain)
      reject(closed(socket))
    }
    socket.once('drain', onDrain)
    socket.once('close', onClose)
  })
}

const closed = (socket: net.Socket): DiapauseError =>
  new DiapauseError('STREAM_CLOSED', `the connection to ${socket.remoteAddress ?? 'the member'} is closed`)

// ---------------------------------------------------------------------------------------------------- who reads

export interface DirectReader {
  readonly maxBytes: number
  /** Valid during the call, its bytes may be changed. A promise holds back the sender until it resolves. */
  message(message: Uint8Array): void | Promise<void>
}

/**
 * Reads what the other side of an accepted connection writes, until it ends. Rejects with STREAM_CLOSED, RECORD_FORGED,
 * RECORD_LENGTH, FRAME_OVERSIZE, FRAME_TRUNCATED, LIBP2P_CHANGED, and with what `message` threw.
 */
export async function readDirect(connection: Connection, stream: Stream, reader: DirectReader): Promise<void> {
  const socket = socketOf(connection)
  const said = messages(stream, KEY_BYTES)
  const first = await said.next()
  if (first.done === true) return
  if (first.value.length !== KEY_BYTES) throw new DiapauseError('DIRECT_KEY', 'the member did not say a key')
  const failed = Promise.withResolvers<never>()
  failed.promise.catch(() => {}) // awaited below, unless the stream is closed before
  const incoming = new Incoming(socket, first.value, reader, failed.reject)
  divertReads(socket, chunk => incoming.read(chunk))
  await write(stream, READY)
  await Promise.race([failed.promise, said.next()])
  incoming.end()
}

class Incoming {
  readonly #socket: net.Socket
  readonly #opener: RecordOpener
  readonly #messages: MessageCutter
  readonly #records: RecordCutter
  readonly #reader: DirectReader
  readonly #fail: (error: unknown) => void
  #failed = false
  /** Messages that came while one was held; undefined: none is. */
  #waiting: Uint8Array[] | undefined

  constructor(socket: net.Socket, key: Uint8Array, reader: DirectReader, fail: (error: unknown) => void) {
    this.#socket = socket
    this.#opener = new RecordOpener(Uint8Array.from(key))
    this.#messages = new MessageCutter(reader.maxBytes)
    this.#reader = reader
    this.#fail = fail
    this.#records = new RecordCutter({
      record: sealed => this.#take(this.#opener.open(sealed)),
      noise: bytes => void socket.emit('data', Buffer.from(bytes))
    })
    this.#records.began(unreadOf(socket))
  }

  /** A view, valid during the call. */
  read(chunk: Uint8Array): void {
    if (this.#failed) return
    try {
      this.#records.push(chunk)
    } catch (error) {
      this.#break(error)
    }
  }

  /** No more will come. FRAME_TRUNCATED. */
  end(): void {
    if (this.#messages.partial) throw new DiapauseError('FRAME_TRUNCATED', 'the connection ended inside a message')
  }

  #take(text: Uint8Array): void {
    this.#messages.push(text, this.#give)
  }

  readonly #give = (message: Uint8Array): void => {
    if (this.#waiting !== undefined) {
      this.#waiting.push(Uint8Array.from(message))
      return
    }
    const held = this.#reader.message(message)
    if (held === undefined) return
    // What was read already waits here, at most one read of it.
    this.#waiting = []
    this.#socket.pause()
    held.then(
      () => this.#goOn(),
      error => this.#break(error)
    )
  }

  #goOn(): void {
    const waiting = this.#waiting ?? []
    this.#waiting = undefined
    try {
      for (const message of waiting) this.#give(message)
    } catch (error) {
      this.#break(error)
    }
    if (this.#waiting === undefined) this.#socket.resume()
  }

  #break(error: unknown): void {
    this.#failed = true
    this.#fail(error)
  }
}
