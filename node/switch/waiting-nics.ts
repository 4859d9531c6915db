/**
 * Sockets to which a hypervisor connects the NICs of a VM that is nobody's yet. What comes is left in the socket; when the VM is
 * attached with the same path, its link takes socket and listener as they are.
 */
import { rm } from 'node:fs/promises'
import net from 'node:net'
import { nicPathOf } from '../../protocols/group.ts'
import { DiapauseError } from '../errors.ts'
import type { NicSockets } from '../ports.ts'

export interface WaitingNic {
  readonly server: net.Server
  /** Undefined: nobody has connected. Not read from. */
  readonly socket: net.Socket | undefined
}

export class WaitingNics {
  readonly #waiting = new Map<string, { readonly server: net.Server; socket: net.Socket | undefined }>()

  /** Of NICs 0 to `nics` - 1, as `nicPathOf` names them. NIC_LISTEN. */
  async open(firstPath: string, nics: number): Promise<NicSockets> {
    const paths = Array.from({ length: nics }, (_, index) => nicPathOf(firstPath, index))
    const close = async () => {
      await Promise.all(paths.map(path => this.#close(path)))
    }
    // All of them, before what has failed is told: one that came to listen afterwards would stay.
    const listened = await Promise.allSettled(paths.map(path => this.#listen(path)))
    const failed = listened.find(each => each.status === 'rejected')
    if (failed !== undefined) {
      await close()
      throw new DiapauseError('NIC_LISTEN', `cannot listen for NICs on ${firstPath}: is the run directory there?`, {
        cause: failed.reason
      })
    }
    return { ends: paths.map(path => ({ kind: 'stream', path })), close }
  }

  /** It is the caller's then. Undefined: nobody waits there. */
  take(path: string): WaitingNic | undefined {
    const waiting = this.#waiting.get(path)
    if (waiting === undefined) return undefined
    this.#waiting.delete(path)
    waiting.server.removeAllListeners()
    return waiting
  }

  async #listen(path: string): Promise<void> {
    await rm(path, { force: true })
    const server = net.createServer({ pauseOnConnect: true })
    const waiting = { server, socket: undefined as net.Socket | undefined }
    this.#waiting.set(path, waiting)
    server.on('connection', socket => {
      if (waiting.socket === undefined) waiting.socket = socket
      else socket.destroy() // a NIC has one owner
    })
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve))
    server.on('error', () => {}) // who waits there ends with its machine
  }

  async #close(path: string): Promise<void> {
    const { server, socket } = this.take(path) ?? {}
    socket?.destroy()
    if (server?.listening === true) await new Promise<void>(resolve => server.close(() => resolve()))
  }
}
