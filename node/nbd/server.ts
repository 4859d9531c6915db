/**
 * Disks over NBD on a unix socket: carries out what `protocol.ts` says, one session a connection. Requests are answered as
 * their bytes come, in any order. A connection has a bounded number of requests under way, and of bytes that are read or
 * that its client has not taken yet; beyond that nothing more is read of it.
 */
import { once } from 'node:events'
import { chmod, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { DiapauseError, messageOf } from '../errors.ts'
import type { BlockExtent, BlockServer, BlockSource, Log, ServeBlocks } from '../ports.ts'
import { MAX_REQUEST_BYTES, type NbdEvent, NbdSession } from './protocol.ts'
import { blockStatusChunk, dataChunk, endChunk, errorChunk, holeChunk, NbdError, simpleReply } from './wire.ts'

/** QEMU has 16 under way at most (MAX_NBD_REQUESTS), the kernel's client 128. A guess between. */
const MAX_REQUESTS = 64
/** One largest request, or what is left of some: twice this at most is held for a connection. */
const MAX_BYTES = MAX_REQUEST_BYTES
/** QEMU has one connection a disk. A guess. */
const MAX_CONNECTIONS = 64
/** Of one answer about what lies where: 32 KiB. A guess. */
const MAX_EXTENTS = 4_096
/** What one question about what lies where is answered for at most; the client asks again (proto.md allows it). A guess. */
const MAX_STATUS_BYTES = 256 << 20
/** Zeros are sent as such where they are fewer: a chunk of its own costs a message. A guess. */
const MIN_HOLE_BYTES = 65_536

type Disks = ReadonlyMap<string, BlockSource>
type ReadEvent = Extract<NbdEvent, { kind: 'read' }>
type StatusEvent = Extract<NbdEvent, { kind: 'status' }>

/** Rejects with NBD_SOCKET where it cannot listen. What clients do wrong and what cannot be read is logged. */
export function blockServing(log: Log): ServeBlocks {
  return async (socketPath, disks): Promise<BlockServer> => {
    const connections = new Set<Connection>()
    const server = createServer(socket => {
      const connection = new Connection(socket, disks, log)
      connections.add(connection)
      socket.on('close', () => connections.delete(connection))
    })
    server.maxConnections = MAX_CONNECTIONS
    try {
      await rm(socketPath, { force: true })
      server.listen(socketPath)
      await once(server, 'listening')
      // As where no more files may be open (EMFILE): who is there already is served on.
      server.on('error', err => log.warn({ socketPath, err }, 'a client of disks could not be let in'))
      await chmod(socketPath, 0o600)
    } catch (cause) {
      server.close()
      throw new DiapauseError('NBD_SOCKET', `cannot serve disks on ${socketPath}: ${messageOf(cause)}`, { cause })
    }
    return {
      close: async () => {
        const closed = new Promise<void>(resolve => server.close(() => resolve()))
        for (const connection of connections) connection.destroy()
        await closed
        await removeSocket(socketPath, log)
      }
    }
  }
}

/** Never rejects: nobody listens there any more, which is what counts, and a peer removes what is left when it starts. */
async function removeSocket(socketPath: string, log: Log): Promise<void> {
  try {
    await rm(socketPath, { force: true })
  } catch (err) {
    log.warn({ socketPath, err }, 'a socket of disks stays until this peer starts again')
  }
}

class Connection {
  readonly #socket: Socket
  readonly #disks: Disks
  readonly #log: Log
  readonly #session: NbdSession
  #requests = 0
  /** Being read, or not taken by the client yet. */
  #bytes = 0
  #closing = false

  constructor(socket: Socket, disks: Disks, log: Log) {
    this.#socket = socket
    this.#disks = disks
    this.#log = log
    this.#session = new NbdSession([...disks].map(([name, { bytes }]) => ({ name, bytes })))
    socket.on('error', () => {}) // 'close' follows, and a client may go at any time
    socket.on('data', chunk => {
      this.#session.push(chunk)
      this.#work()
    })
    this.#work()
  }

  destroy(): void {
    this.#closing = true
    this.#socket.destroy()
  }

  #work(): void {
    while (!this.#closing) {
      if (this.#requests >= MAX_REQUESTS || this.#bytes >= MAX_BYTES) return void this.#socket.pause()
      const event = this.#session.next()
      if (event === undefined) return void this.#socket.resume()
      this.#do(event)
    }
    if (this.#requests === 0) this.#socket.end()
  }

  #do(event: NbdEvent): void {
    switch (event.kind) {
      case 'send':
        void this.#send(event.bytes)
        return
      case 'close':
        this.#closing = true
        if (event.why === undefined) return
        this.#log.warn({ why: event.why }, 'a client of disks broke the protocol')
        this.#socket.destroy()
        return
      case 'read':
        void this.#underWay(event.length, () => (event.structured ? this.#readChunks(event) : this.#read(event)))
        return
      case 'status':
        void this.#underWay(0, () => this.#status(event))
        return
    }
  }

  /** `work` never rejects. */
  async #underWay(bytes: number, work: () => Promise<void>): Promise<void> {
    this.#requests++
    this.#bytes += bytes
    await work()
    this.#requests--
    this.#bytes -= bytes
    this.#work()
  }

  async #read({ cookie, disk, offset, length }: ReadEvent): Promise<void> {
    try {
      const bytes = await this.#bytesOf(disk, offset, length)
      await this.#write(simpleReply(cookie), bytes)
    } catch (error) {
      this.#tell(disk, offset, length, error)
      await this.#write(simpleReply(cookie, NbdError.io))
    }
  }

  /** Zeros as holes, and the rest as it comes. */
  async #readChunks({ cookie, disk, offset, length }: ReadEvent): Promise<void> {
    let failed = false
    const underWay: Promise<void>[] = []
    try {
      for await (const part of partsOf(this.#sourceOf(disk), offset, length)) {
        const chunk = part.zero
          ? this.#write(holeChunk(cookie, part.offset, part.length))
          : this.#readPart(cookie, disk, part)
        chunk.catch(() => {}) // it may fail while the next part is looked for; told of below
        underWay.push(chunk)
      }
    } catch (error) {
      failed = true
      this.#tell(disk, offset, length, error)
    }
    // The last chunk is the last: nothing of this request may come behind it.
    const ends = await Promise.allSettled(underWay)
    failed ||= ends.some(({ status }) => status === 'rejected')
    await this.#write(failed ? errorChunk(cookie, NbdError.io) : endChunk(cookie))
  }

  async #readPart(cookie: Uint8Array, disk: string, { offset, length }: Part): Promise<void> {
    let bytes: Uint8Array
    try {
      bytes = await this.#bytesOf(disk, offset, length)
    } catch (error) {
      this.#tell(disk, offset, length, error)
      throw error
    }
    await this.#write(dataChunk(cookie, offset, length), bytes)
  }

  async #status({ cookie, disk, offset, length, one }: StatusEvent): Promise<void> {
    try {
      const looked = Math.min(length, MAX_STATUS_BYTES)
      const extents = await this.#sourceOf(disk).extents(offset, looked, one ? 1 : MAX_EXTENTS)
      await this.#write(blockStatusChunk(cookie, extents))
    } catch (error) {
      this.#tell(disk, offset, length, error)
      await this.#write(errorChunk(cookie, NbdError.io))
    }
  }

  #sourceOf(disk: string): BlockSource {
    const source = this.#disks.get(disk)
    if (source === undefined) throw new TypeError(`no disk ${disk}`)
    return source
  }

  async #bytesOf(disk: string, offset: number, length: number): Promise<Uint8Array> {
    const bytes = await this.#sourceOf(disk).read(offset, length)
    if (bytes.length !== length) throw new TypeError(`${bytes.length} bytes were read, and ${length} asked for`)
    return bytes
  }

  #tell(disk: string, offset: number, length: number, error: unknown): void {
    if (this.#closing) return
    this.#log.warn({ disk, offset, length, err: error }, 'a part of a disk cannot be read now')
  }

  /** Outside of requests: its bytes count by themselves. */
  async #send(bytes: Uint8Array): Promise<void> {
    this.#bytes += bytes.length
    await this.#write(bytes)
    this.#bytes -= bytes.length
    this.#work()
  }

  /** Settles when the client has taken it, or is gone. */
  #write(header: Uint8Array, bytes?: Uint8Array): Promise<void> {
    return new Promise(resolve => {
      this.#socket.cork()
      if (bytes === undefined) this.#socket.write(header, () => resolve())
      else {
        this.#socket.write(header)
        this.#socket.write(bytes, () => resolve())
      }
      this.#socket.uncork()
    })
  }
}

interface Part extends BlockExtent {
  readonly offset: number
}

/** Ranges that are not zero, with what is small between them, and the others. */
async function* partsOf(source: BlockSource, offset: number, length: number): AsyncGenerator<Part> {
  const end = offset + length
  let dataFrom = offset
  for (let at = offset; at < end; ) {
    for (const extent of await source.extents(at, end - at, MAX_EXTENTS)) {
      if (extent.zero && extent.length >= MIN_HOLE_BYTES) {
        if (dataFrom < at) yield { offset: dataFrom, length: at - dataFrom, zero: false }
        yield { offset: at, length: extent.length, zero: true }
        dataFrom = at + extent.length
      }
      at += extent.length
    }
  }
  if (dataFrom < end) yield { offset: dataFrom, length: end - dataFrom, zero: false }
}
