/** The other end of a restore: what QEMU does with a post-copy stream, as far as the source can tell. */
import { createServer, type Server, type Socket } from 'node:net'
import { PAGE, readPostcopy, str, u32, u64 } from './support.ts'

/** The footer of the last section, and EOF. */
const END = Buffer.of(0x7e, 0, 0, 0, 2, 0)

/** What a QEMU target does at `path`: reads the stream, asks for `faults` when told to run, says that it is done at the end. */
export function fakeTarget(
  path: string,
  faults: readonly number[]
): {
  path: string
  done: Promise<ReturnType<typeof readPostcopy>>
  server: Server
} {
  const chunks: Buffer[] = []
  let asked = false
  const server = createServer()
  const done = new Promise<ReturnType<typeof readPostcopy>>(resolve => {
    server.on('connection', socket => {
      socket.on('error', () => {})
      socket.on('data', chunk => {
        chunks.push(chunk)
        if (!asked && Buffer.concat(chunks).includes('registers')) {
          asked = true
          for (const page of faults) request(socket, page)
        }
        if (!END.equals(chunk.subarray(-END.length))) return
        const sent = readPostcopy(Buffer.concat(chunks))
        socket.write(Buffer.concat([Buffer.of(0, 1, 0, 4), u32(0)]))
        resolve(sent)
      })
    })
  })
  server.listen(path)
  return { path, done, server }
}

function request(socket: Socket, page: number): void {
  const body = Buffer.concat([u64(page * PAGE), u32(PAGE), str('pc.ram')])
  socket.write(Buffer.concat([Buffer.of(0, 3, 0, body.length), body]))
}
