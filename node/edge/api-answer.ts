/** From a request to its answer: finds the row of the table, sees that whoever asks may, and turns errors into answers. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { roleAllows } from '../../protocols/membership/api-tokens.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import type { Log } from '../ports.ts'
import { errorOfApi } from './api-error.ts'
import { routes } from './api-routes.ts'
import { patternOf, type Reply, requireRole } from './routing.ts'
import type { Asker } from './token-view.ts'
import type { PeerView } from './view.ts'

const table = routes.map(route => ({ route, pattern: patternOf(route.path) }))

export interface Answering {
  readonly view: PeerView
  readonly followers: Set<() => void>
  readonly log: Log
  /** Who asks, as known now. */
  readonly identify: (request: IncomingMessage) => Asker | undefined
  /** Throws for who is not known, when it has been slowed down. */
  readonly refuse: (request: IncomingMessage) => Promise<never>
}

/** Who may open the socket is the peer's own user. */
export const LOCAL: Asker = { name: 'local', role: 'admin' }

/** Of the path in a line of the log: a request has room for 8 KiB of it. Names are shorter. */
const MAX_LOGGED_PATH = 200

const NOBODY: Asker = { name: 'nobody', role: 'view' }

/** Never rejects. */
export async function answer(answering: Answering, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    await tryToAnswer(answering, request, response)
  } catch (error) {
    const { status, body } = errorReply(error)
    if (status === 500)
      answering.log.error({ err: error, method: request.method, url: logged(request.url) }, 'an API request failed')
    send(response, { status, body })
  }
}

async function tryToAnswer(
  { view, followers, log, identify, refuse }: Answering,
  request: IncomingMessage,
  response: ServerResponse
): Promise<void> {
  const { url = '/' } = request
  const [pathname = '/'] = url.split('?', 1)
  const query = new URLSearchParams(url.slice(pathname.length))
  const matching = table.filter(({ pattern }) => pattern.test(pathname))
  const found = matching.find(({ route }) => route.method === request.method)
  // Who may ask nothing is not told either what there is.
  const who = found?.route.role === 'nobody' ? NOBODY : (identify(request) ?? (await refuse(request)))
  if (found === undefined) {
    if (matching.length === 0) throw new DiapauseError('API_NOT_FOUND', `there is nothing at ${pathname}`)
    const allowed = matching.map(({ route }) => route.method).join(', ')
    response.setHeader('allow', allowed)
    throw new DiapauseError('API_METHOD', `${pathname} answers to ${allowed} only, not to ${request.method}`)
  }
  const { route, pattern } = found
  if (route.role !== 'nobody') requireRole(who, route.role, `${route.method} ${route.path}`)
  if (who !== LOCAL && route.method !== 'GET')
    log.info({ who: who.name, role: who.role, method: route.method, path: logged(pathname) }, 'asked over TCP')
  const names = (pattern.exec(pathname) ?? []).slice(1).map(decodeName)
  const stillMay = (): boolean => {
    const now = identify(request)
    return now !== undefined && route.role !== 'nobody' && roleAllows(now.role, route.role)
  }
  const reply = await route.answer({ view, followers, request, response, query, who, stillMay }, names)
  if (reply !== undefined) send(response, reply)
}

const logged = (path = '/'): string => path.slice(0, MAX_LOGGED_PATH)

function decodeName(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new UsageError('API_BAD_REQUEST', `${text} in the path is not a valid name`, { cause })
  }
}

export function send(response: ServerResponse, { status, body }: Reply): void {
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const text = body === undefined ? undefined : `${JSON.stringify(body)}\n`
  response.writeHead(status, text === undefined ? {} : { 'content-type': 'application/json' })
  response.end(text)
}

const statusOfCode: Readonly<Record<string, number>> = {
  API_NOT_FOUND: 404,
  GROUP_UNKNOWN: 404,
  MEMBER_UNKNOWN: 404,
  VM_UNKNOWN: 404,
  NAME_UNKNOWN: 404,
  TOKEN_UNKNOWN: 404,
  INVITE_UNKNOWN: 404,
  API_UNAUTHORIZED: 401,
  API_FORBIDDEN: 403,
  API_ORIGIN: 403,
  API_METHOD: 405,
  API_SLOW: 408,
  API_BODY_TOO_LARGE: 413,
  API_HOST: 421,
  GROUP_EXISTS: 409,
  RESERVATION_LOST: 409,
  DRILL_BUSY: 409,
  DRILL_MEMORY: 409,
  EPOCH_OPEN: 409,
  EPOCH_FORGOTTEN: 409,
  EPOCH_NOT_KEPT: 409,
  EPOCHS_FULL: 409,
  EPOCHS_READ: 409,
  GROUP_CHANGED: 409,
  GROUP_RESTS: 409,
  GROUP_RUNS: 409,
  EPOCH_NONE: 409,
  NO_HOST: 409,
  HOST_NOT_ALIVE: 409,
  MEMBER_OLDER: 409,
  HOME_BUSY: 409,
  HOME_NO_KEY: 409,
  NOT_STORAGE: 409,
  VM_ELSEWHERE: 409,
  MEMBER_LEAVING: 409,
  MEMBER_OWNS_VMS: 409,
  LAST_VOTER: 409,
  VOTERS_FULL: 409,
  CLUSTER_FULL: 409,
  INVITES_FULL: 409,
  ADDRESS_TAKEN: 409,
  KEYS_ELSEWHERE: 409,
  KEYS_FULL: 409,
  TARGET_BUSY: 409,
  TOKEN_EXISTS: 409,
  TOKENS_FULL: 409,
  // Its VMs stood still and go on: it failed for once.
  REST_ABORTED: 503,
  REGISTER_LEASED: 503,
  REGISTER_UNAVAILABLE: 503
}

export function errorReply(error: unknown): Reply {
  const told = errorOfApi(error)
  if (!(error instanceof DiapauseError)) return { status: 500, body: { error: { ...told, details: {} } } }
  const status = statusOfCode[error.code] ?? (error instanceof UsageError ? 400 : 500)
  return { status, body: { error: { ...told, details: error.details } } }
}
