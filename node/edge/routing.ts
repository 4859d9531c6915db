/** What a row of the API's table of requests is made of, and how it reads a body. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { DiapauseError, UsageError, messageOf } from '../errors.ts'
import type { PeerView } from './view.ts'

export const MAX_BODY_BYTES = 1 << 20

export interface Reply {
  readonly status: number
  readonly body?: unknown
}

export interface Route {
  readonly method: string
  readonly path: RegExp
  /** `names`: what the groups of `path` matched. Undefined: it has answered by itself. */
  readonly answer: (context: Context, names: readonly string[]) => Promise<Reply | undefined>
}

export interface Context {
  readonly view: PeerView
  /** How to end each event stream that follows. */
  readonly followers: Set<() => void>
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly query: URLSearchParams
}

/** A request's body. One that is too large is read to its end and thrown away, so that the answer can still be sent. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  await new Promise<void>((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= MAX_BODY_BYTES) chunks.push(chunk)
      else chunks.length = 0
    })
    request.on('end', resolve)
    request.on('error', reject)
  })
  if (bytes > MAX_BODY_BYTES) {
    throw new DiapauseError('API_BODY_TOO_LARGE', `a request has at most ${MAX_BODY_BYTES} bytes, not ${bytes}`)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch (cause) {
    throw new UsageError('API_BAD_REQUEST', `the body is not JSON: ${messageOf(cause)}`, { cause })
  }
}
