import { existsSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import type { NicEnd } from '../../node/ports.ts'
import { macNumber } from '../../node/switch/ethernet.ts'

export function alive(pid: number | undefined): boolean {
  return pid !== undefined && existsSync(`/proc/${pid}/exe`)
}

/** Listens for one stream and collects it; with `hold` it reads nothing before `flow`. */
export async function receive(path: string, { hold = false } = {}) {
  const chunks: Buffer[] = []
  const { promise: bytes, resolve } = Promise.withResolvers<Buffer>()
  const server = createServer({ pauseOnConnect: true }, socket => {
    socket.on('error', () => {}).on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('close', () => resolve(Buffer.concat(chunks)))
    if (hold) socket.pause()
    else socket.resume()
    flow = () => void socket.resume()
    sever = () => void socket.destroy()
  })
  let flow = () => {}
  let sever = () => {}
  await new Promise<void>(done => server.listen(path, done))
  return {
    bytes,
    flow: () => flow(),
    close: () => {
      sever()
      return closeServer(server)
    }
  }
}

/** What a VM of one NIC is plugged into: a switch that forgets what it gets, or gives it to `heard`. */
export async function plug(
  path: string,
  heard: (chunk: Buffer) => void = () => {}
): Promise<{ readonly ends: readonly NicEnd[]; close(): Promise<void> }> {
  const server = createServer(socket => socket.on('data', heard).on('error', () => {}))
  await new Promise<void>(resolve => server.listen(path, resolve))
  return { ends: [{ kind: 'stream', path }], close: () => closeServer(server) }
}

/** Who has `address`? Asks 10.99.0.9, which has `mac`, of all (RFC 826). */
export function arpRequest(mac: string, address: string): Buffer {
  const frame = Buffer.alloc(60)
  frame.fill(0xff, 0, 6)
  frame.writeUIntBE(macNumber(mac), 6, 6)
  frame.set(Buffer.from('08060001080006040001', 'hex'), 12)
  frame.writeUIntBE(macNumber(mac), 22, 6)
  frame.set([10, 99, 0, 9], 28)
  frame.set(address.split('.').map(Number), 38)
  return frame
}

function closeServer(server: Server): Promise<void> {
  return new Promise(resolve => server.close(() => resolve()))
}
