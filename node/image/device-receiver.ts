/**
 * Receives a VM's devices (node/hypervisor/device-state.ts) in the main thread. QEMU writes the last of them while the VM
 * stands still, more than a socket holds may have come before, and the worker thread gives way to everything on the
 * host: read by it, the devices took 15 to 40 ms of the pauses of a busy host, against 3 to 10 here.
 */
import { rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { DiapauseError } from '../errors.ts'
import { MAX_MACHINE_BYTES } from './machine.ts'

export class DeviceReceiver {
  /** QEMU's whole stream, the receiver's own. Rejects with MIGRATION_STREAM_CLOSED, MIGRATION_STREAM_LIMIT, and after `stop`. */
  readonly received: Promise<Uint8Array>
  readonly #server: Server
  readonly #settled = Promise.withResolvers<Uint8Array>()
  readonly #chunks: Buffer[] = []
  #bytes = 0

  private constructor() {
    this.received = this.#settled.promise
    this.received.catch(() => {}) // whoever waits for it is told; nobody may wait yet
    this.#server = createServer(socket => this.#accept(socket))
  }

  /** IMAGE_SOCKET. */
  static async listen(path: string): Promise<DeviceReceiver> {
    const receiver = new DeviceReceiver()
    const server = receiver.#server
    try {
      await rm(path, { force: true })
      await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
    } catch (cause) {
      throw new DiapauseError('IMAGE_SOCKET', `cannot listen on ${path} for the state of the VM's devices`, { cause })
    }
    server.on('error', error => receiver.stop(error))
    return receiver
  }

  /** What QEMU still sends is read and thrown away: a VM whose devices nobody reads stands still. Safe at any time. */
  stop(error: Error): void {
    this.#settled.reject(error)
    this.#server.close()
    this.#chunks.length = 0
  }

  #accept(socket: Socket): void {
    this.#server.close() // QEMU connects once
    socket.on('error', error => this.stop(error))
    socket.on('data', chunk => {
      this.#bytes += chunk.length
      if (this.#bytes <= MAX_MACHINE_BYTES) this.#chunks.push(chunk)
      else
        this.stop(new DiapauseError('MIGRATION_STREAM_LIMIT', `the VM's devices send over ${MAX_MACHINE_BYTES} bytes`))
    })
    socket.on('end', () => this.#settled.resolve(whole(this.#chunks)))
    socket.on('close', () => this.stop(new DiapauseError('MIGRATION_STREAM_CLOSED', 'QEMU closed its stream')))
  }
}

/** In memory of its own, so that it can be moved to another thread. */
function whole(chunks: readonly Buffer[]): Uint8Array {
  const bytes = Buffer.allocUnsafeSlow(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) at += chunk.copy(bytes, at)
  return bytes
}
