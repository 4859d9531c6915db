/**
 * libp2p 3 streams with back-pressure in both directions, and messages on them: u32 big-endian length, then the bytes.
 *
 * Why this file exists: a stream's own conveniences have no back-pressure. `stream.onDrain()` never waits again after
 * its first use (@libp2p/utils 7.4.1 does not reset the promise: 300 MB "sent" in 11 ms), and `for await (… of stream)`
 * never pauses the sender (150 MB unread). So nothing else in the project reads or writes a stream: `write` waits for
 * `drain`, `read` pauses and resumes, `frames` cuts the bytes into messages, and `messages` joins the reading side.
 */
import type { Stream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface'
import { pipe } from 'it-pipe'
import type { Uint8ArrayList } from 'uint8arraylist'
import { DiapauseError } from '../node/errors.ts'

export type { Connection, ConnectionGater, MultiaddrConnection, PrivateKey, Stream } from '@libp2p/interface'

/** Settles after the input and output of this turn of the event loop. */
export const nextTurn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

/** `write` goes on below this many unsent bytes: enough to keep the socket busy while the caller prepares more. */
const WRITE_LOW_BYTES = 256 * 1024
/** `read` pauses the stream above this many bytes that nobody has taken. */
const READ_HIGH_BYTES = 1 << 20

export const FRAME_HEADER_BYTES = 4

/** The length prefix of a message of `length` bytes. */
export function frameHeader(length: number): Uint8Array {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  header.writeUInt32BE(length)
  return header
}

/** Sends `bytes` and resolves when the stream wants more. Rejects with STREAM_CLOSED. The bytes are the stream's now. */
export async function write(stream: Stream, bytes: Uint8Array | Uint8ArrayList): Promise<void> {
  if (stream.writeStatus !== 'writable') throw closed(stream)
  if (stream.send(bytes)) return
  while (stream.writeBufferLength > WRITE_LOW_BYTES) {
    // A stream that is closed already never emits 'close' again: waiting for it would hang.
    if (stream.status !== 'open') throw closed(stream)
    await drained(stream)
  }
}

function drained(stream: Stream): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (result: () => void) => () => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
      result()
    }
    const onDrain = settle(resolve)
    const onClose = settle(() => reject(closed(stream)))
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
  })
}

const closed = (stream: Stream): DiapauseError =>
  new DiapauseError('STREAM_CLOSED', `the stream ${stream.protocol} is ${stream.status}`)

/**
 * The bytes that arrive, as they arrive. Ends when the other side has closed its writing end; throws where the stream
 * was reset. A caller that does not ask for more holds the sender back: at most READ_HIGH_BYTES and one yamux window wait.
 */
export async function* read(stream: Stream): AsyncGenerator<Uint8ArrayList> {
  let waiting: Uint8ArrayList | undefined
  let pausing = false
  let ended = stream.remoteWriteStatus === 'closed' || stream.status !== 'open'
  let failure: Error | undefined
  let wake: (() => void) | undefined
  const onMessage = (event: StreamMessageEvent): void => {
    const data = event.data as Uint8ArrayList
    if (waiting === undefined) waiting = data
    else waiting.append(data)
    if (waiting.byteLength > READ_HIGH_BYTES && !pausing) {
      pausing = true
      // In a microtask, because a pause inside a message event that `resume` caused is lost (yamux goes on granting).
      queueMicrotask(() => {
        pausing = false
        if ((waiting?.byteLength ?? 0) > READ_HIGH_BYTES && stream.readStatus === 'readable') stream.pause()
      })
    }
    wake?.()
  }
  const onEnd = (): void => {
    ended = true
    wake?.()
  }
  const onClose = (event: StreamCloseEvent): void => {
    failure = event.error
    onEnd()
  }
  stream.addEventListener('remoteCloseWrite', onEnd)
  stream.addEventListener('close', onClose)
  stream.addEventListener('message', onMessage)
  // What came before the first listener is handed over in a microtask.
  await Promise.resolve()
  try {
    for (;;) {
      if (waiting !== undefined) {
        const data: Uint8ArrayList = waiting
        waiting = undefined
        yield data
        if (stream.readStatus === 'paused') stream.resume()
      } else if (failure !== undefined) {
        throw new DiapauseError('STREAM_CLOSED', `the stream ${stream.protocol} broke: ${failure.message}`, {
          cause: failure
        })
      } else if (ended && stream.readBufferLength === 0) {
        return
      } else {
        await new Promise<void>(resolve => {
          wake = resolve
        })
        wake = undefined
      }
    }
  } finally {
    stream.removeEventListener('remoteCloseWrite', onEnd)
    stream.removeEventListener('close', onClose)
    stream.removeEventListener('message', onMessage)
  }
}

/** The messages on a stream, with back-pressure; fails as `read` and `frames` do. */
export function messages(stream: Stream, maxBytes: number): AsyncGenerator<Uint8Array> {
  return pipe(
    () => read(stream),
    source => frames(source, maxBytes)
  )
}

/**
 * Cuts bytes into messages of at most `maxBytes`. A message that came in one piece is a view of that piece (no copy);
 * one that came in several is put together in memory of its own, taken only after its length was found in bounds.
 */
export class MessageCutter {
  readonly #maxBytes: number
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES)
  #headerBytes = 0
  #body: Uint8Array | undefined
  #bodyBytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** A message has begun and not ended. */
  get partial(): boolean {
    return this.#headerBytes > 0 || this.#body !== undefined
  }

  /** Gives the messages that end in `piece` to `emit`, empty ones too. Throws FRAME_OVERSIZE, and what `emit` throws. */
  push(piece: Uint8Array, emit: (message: Uint8Array) => void): void {
    let at = 0
    while (at < piece.length) {
      if (this.#body === undefined) {
        const taken = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, piece.length - at)
        this.#header.set(piece.subarray(at, at + taken), this.#headerBytes)
        this.#headerBytes += taken
        at += taken
        if (this.#headerBytes < FRAME_HEADER_BYTES) return
        this.#headerBytes = 0
        const length = this.#allowed(this.#header.readUInt32BE())
        if (piece.length - at >= length) {
          at += length
          emit(piece.subarray(at - length, at))
          continue
        }
        this.#body = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer)
        this.#bodyBytes = 0
      }
      at += this.#fill(this.#body, piece.subarray(at), emit)
    }
  }

  /** Takes of `rest` what the message lacks; returns how much that was. */
  #fill(body: Uint8Array, rest: Uint8Array, emit: (message: Uint8Array) => void): number {
    const taken = Math.min(body.length - this.#bodyBytes, rest.length)
    body.set(rest.subarray(0, taken), this.#bodyBytes)
    this.#bodyBytes += taken
    if (this.#bodyBytes === body.length) {
      this.#body = undefined
      emit(body)
    }
    return taken
  }

  #allowed(length: number): number {
    if (length <= this.#maxBytes) return length
    throw new DiapauseError('FRAME_OVERSIZE', `a message of ${length} bytes; at most ${this.#maxBytes} are allowed`)
  }
}

/** As MessageCutter; throws FRAME_TRUNCATED, too, where the bytes end inside a message. */
export async function* frames(
  source: AsyncIterable<Iterable<Uint8Array>>,
  maxBytes: number
): AsyncGenerator<Uint8Array> {
  const cutter = new MessageCutter(maxBytes)
  for await (const pieces of source) {
    const found: Uint8Array[] = []
    let failure: DiapauseError | undefined
    try {
      for (const piece of pieces) cutter.push(piece, message => void found.push(message))
    } catch (error) {
      failure = error as DiapauseError // after the messages before it
    }
    yield* found
    if (failure !== undefined) throw failure
  }
  if (cutter.partial) throw new DiapauseError('FRAME_TRUNCATED', 'the stream ended inside a message')
}
