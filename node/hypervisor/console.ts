/**
 * The serial console of a VM, for typing. The connection stays open, because QEMU drops what it has not yet read when one
 * closes; and it is read, because a console that nobody reads would stop the guest's output.
 */
import { connect, type Socket } from 'node:net'
import { DiapauseError, messageOf } from '../errors.ts'

export class GuestConsole {
  readonly #path: string
  #socket: Promise<Socket> | undefined

  constructor(path: string) {
    this.#path = path
  }

  /** HYPERVISOR_CONSOLE where there is none. */
  async type(text: string): Promise<void> {
    this.#socket ??= this.#connect()
    const socket = await this.#socket
    await new Promise<void>((resolve, reject) => {
      socket.write(text, error => (error ? reject(failed(`is gone: ${error.message}`, error)) : resolve()))
    })
  }

  async close(): Promise<void> {
    const socket = await this.#socket?.catch(() => undefined)
    socket?.destroy()
  }

  #connect(): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#path)
      socket.once('connect', () => resolve(socket))
      socket.on('error', cause => {
        this.#socket = undefined
        reject(failed(`cannot be reached: ${messageOf(cause)}`, cause))
      })
      socket.resume()
    })
  }
}

const failed = (what: string, cause: unknown) =>
  new DiapauseError('HYPERVISOR_CONSOLE', `The console of the VM ${what}`, { cause })
