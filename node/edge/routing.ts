/** What a row of the API's table of requests is made of, and how it reads a body. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type ApiRole, roleAllows } from '../../protocols/membership/api-tokens.ts'
import { DiapauseError, UsageError, messageOf } from '../errors.ts'
import type { Asker } from './token-view.ts'
import type { PeerView } from './view.ts'

export const MAX_BODY_BYTES = 1 << 20

/** A JSON body is there whole within this, or its sender only wants to keep us busy. A guess: 1 MiB at 300 kb/s. */
export const BODY_DEADLINE_MS = 30_000

export interface Reply {
  readonly status: number
  readonly body?: unknown
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** As OpenAPI writes it, e.g. `/v1/groups/{group}/epochs`. */
  readonly path: `/${string}`
  /** What a token must be good for that asks it over TCP; "nobody": it needs none. */
  readonly role: ApiRole | 'nobody'
  /** One sentence, for people who read the API's description. */
  readonly summary: string
  /** `names`: what stands in `path` for the names in braces, in their order. Undefined: it has answered by itself. */
  readonly answer: (context: Context, names: readonly string[]) => Promise<Reply | undefined>
}

export interface Context {
  readonly view: PeerView
  /** How to end each event stream that follows. */
  readonly followers: Set<() => void>
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly query: URLSearchParams
  readonly who: Asker
  /** Whether `who` may still see what this request shows: for answers that go on. */
  readonly stillMay: () => boolean
}

/** A path of the table as a pattern whose groups are its names, still encoded. */
export const patternOf = (path: string): RegExp =>
  new RegExp(`^${path.replace(/[.]/g, '\\.').replace(/\{\w+\}/g, '([^/]+)')}$`)

/** API_FORBIDDEN. `what`: is asked for. */
export function requireRole({ name, role }: Asker, needed: ApiRole, what: string): void {
  if (roleAllows(role, needed)) return
  throw new DiapauseError(
    'API_FORBIDDEN',
    `${what} takes a token of role ${needed}, and that of ${name} is of role ${role}`,
    { details: { needed, role } }
  )
}

/** A request's body. One that is too large is read to its end and thrown away, so that the answer can still be sent. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  await new Promise<void>((resolve, reject) => {
    const slow = setTimeout(
      () => reject(new DiapauseError('API_SLOW', `the body was not there within ${BODY_DEADLINE_MS / 1_000} s`)),
      BODY_DEADLINE_MS
    )
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= MAX_BODY_BYTES) chunks.push(chunk)
      else chunks.length = 0
    })
    request.on('end', resolve)
    request.on('error', reject)
    request.on('close', () => clearTimeout(slow))
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
