/**
 * The API of a peer: HTTP with JSON over the unix socket `api.sock` in its run folder, and over TCP (`api-tcp.ts`). Only the peer's
 * own user may open the socket, which takes no token. What may be asked is in `api-routes.ts`.
 */
import { chmodSync, unlinkSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { sparingly } from '../../protocols/sparingly.ts'
import { UsageError } from '../errors.ts'
import type { Log } from '../ports.ts'
import { answer, LOCAL } from './api-answer.ts'
import type { PeerView } from './view.ts'

/** A stopping peer waits this long for requests under way; one that waits for an epoch might never end. A guess. */
const CLOSE_GRACE_MS = 500

export const apiSocketPath = (runDir: string): string => join(runDir, 'api.sock')

export interface ApiServer {
  readonly socketPath: string
  /** Ends event streams and idle connections, removes the socket; requests being answered have CLOSE_GRACE_MS. */
  close(): Promise<void>
}

/** UsageError API_SOCKET_IN_USE where another peer serves the same run folder. */
export async function serveApi(options: { view: PeerView; runDir: string; log: Log }): Promise<ApiServer> {
  const { view, log } = options
  const socketPath = apiSocketPath(options.runDir)
  await removeStaleSocket(socketPath)
  const followers = new Set<() => void>()
  const refuse = (): Promise<never> => Promise.reject(new TypeError('whoever opens the socket is known'))
  const answering = { view, log, followers, identify: () => LOCAL, refuse }
  const server = createServer((request, response) => void answer(answering, request, response))
  server.headersTimeout = 30_000
  server.requestTimeout = 0 // an image takes as long as it takes
  server.maxHeadersCount = 50
  await listen(server, socketPath)
  logErrors(server, log)
  return { socketPath, close: () => closeServer(server, followers) }
}

/** A server that listens says so where it cannot take a connection (EMFILE: no more files may be open), and goes on. */
export function logErrors(server: Pick<Server, 'on'>, log: Log): void {
  const tell = sparingly((err: Error, count) => log.warn({ err, count }, 'the API could not take a connection'))
  server.on('error', tell)
}

/** Ends what follows, then waits for requests under way, but not for long. */
export function closeServer(
  server: Pick<Server, 'close' | 'closeAllConnections' | 'closeIdleConnections'>,
  followers: ReadonlySet<() => void>
): Promise<void> {
  return new Promise(resolve => {
    for (const end of followers) end()
    const impatient = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
    server.close(() => {
      clearTimeout(impatient)
      resolve()
    })
    server.closeIdleConnections()
  })
}

/** The file of a peer that was killed is removed; one on which somebody answers is not ours. */
async function removeStaleSocket(socketPath: string): Promise<void> {
  const answered = await new Promise<boolean>(resolve => {
    const probe = connect(socketPath)
    probe.on('connect', () => resolve(true)).on('error', () => resolve(false))
    probe.on('connect', () => probe.destroy())
  })
  if (answered) {
    throw new UsageError(
      'API_SOCKET_IN_USE',
      `another peer answers on ${socketPath}: give this one its own peer.runDir`
    )
  }
  try {
    unlinkSync(socketPath)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

async function listen(server: Server, socketPath: string): Promise<void> {
  // The mask makes the socket ours alone from its first moment; binding a unix socket is done within the call.
  const mask = process.umask(0o177)
  try {
    await new Promise<void>((resolve, reject) => {
      const failed = (cause: Error): void =>
        reject(new UsageError('API_SOCKET', `cannot listen on ${socketPath}: ${cause.message}`, { cause }))
      server.once('error', failed).listen(socketPath, () => {
        server.off('error', failed)
        resolve()
      })
      process.umask(mask)
    })
  } finally {
    process.umask(mask)
  }
  chmodSync(socketPath, 0o600)
}
