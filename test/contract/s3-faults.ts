/** A way to an S3 server on which things go wrong: it hands requests on as they are, but for those that a test spoils. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** `busy`: 503. `reset`: nobody answers. `cut…`: half of the body, then nothing. `flip…`: one bit. `slow`: late. `hang`: never. */
export const FAULTS = ['busy', 'reset', 'cutAnswer', 'cutRequest', 'flipAnswer', 'flipRequest', 'slow', 'hang'] as const
export type Fault = (typeof FAULTS)[number]

const LATE_MS = 20
const BUSY =
  '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'

export class FaultyWay {
  readonly endpoint: string
  /** What becomes of the next request. */
  fate: () => Fault | 'otherEtag' | undefined = () => undefined
  requests = 0
  readonly #server: Server
  readonly #target: URL

  private constructor(server: Server, target: string) {
    this.#server = server
    this.#target = new URL(target)
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('request', (asked: IncomingMessage, answer: ServerResponse) => {
      this.#handle(asked, answer).catch(() => asked.socket.destroy())
    })
  }

  static async to(endpoint: string): Promise<FaultyWay> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new FaultyWay(server, endpoint)
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  async #handle(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    this.requests++
    const fault = this.fate()
    const body = await bytesOf(asked)
    if (fault === 'hang') return
    if (fault === 'reset') return void asked.socket.destroy()
    if (fault === 'busy') return void answer.writeHead(503, { 'content-type': 'application/xml' }).end(BUSY)
    if (fault === 'slow') await new Promise(resolve => setTimeout(resolve, LATE_MS))
    const { method, url: path, headers } = asked
    const onward = request(this.#target, { method, path, headers })
    if (fault === 'cutRequest') {
      onward.on('error', () => {})
      onward.write(body.subarray(0, body.length / 2), () => onward.destroy())
      return void asked.socket.destroy()
    }
    onward.end(fault === 'flipRequest' ? flipped(body) : body)
    const [came] = (await once(onward, 'response')) as [IncomingMessage]
    const content = await bytesOf(came)
    if (fault === 'otherEtag') came.headers.etag = `"${'ab'.repeat(16)}"`
    answer.writeHead(came.statusCode ?? 500, came.headers)
    if (fault === 'cutAnswer') answer.write(content.subarray(0, content.length / 2), () => asked.socket.destroy())
    else answer.end(fault === 'flipAnswer' && came.statusCode === 200 ? flipped(content) : content)
  }
}

async function bytesOf(message: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of message) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

function flipped(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes)
  const at = copy.length >> 1
  if (copy.length > 0) copy[at] = 1 ^ (copy[at] ?? 0)
  return copy
}
