import { existsSync } from 'node:fs'
import { createServer, type Server } from 'node:net'

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

export function closeServer(server: Server): Promise<void> {
  return new Promise(resolve => server.close(() => resolve()))
}
