/**
 * The local API of a peer: HTTP with JSON over the unix socket `api.sock` in its run folder. Only the peer's own user may
 * open the socket; there is no other authentication.
 *
 * | request | answer |
 * |---|---|
 * | GET /v1/status | PeerStatus |
 * | GET /v1/events[?follow=1] | PeerEvents as NDJSON, the kept ones first; with follow it does not end |
 * | GET /metrics | Prometheus' text format |
 * | GET /v1/groups | GroupRecord[] |
 * | POST /v1/groups {id, vms, owners?, outputCommit?, openFlow?, retention?} | 201 GroupRecord |
 * | POST /v1/groups/ID/epochs | EpochResult, when the epoch is committed or aborted |
 * | GET /v1/groups/ID/epochs | GroupEpochs: those that are kept |
 * | DELETE /v1/groups/ID/epochs/N | 204; it is kept no longer |
 * | POST /v1/groups/ID/epochs/N/holds {name} | 204 |
 * | DELETE /v1/groups/ID/epochs/N/holds[?name=NAME] | 204 |
 * | PATCH /v1/groups/ID/retention {keepLast?, hourly?, daily?, weekly?} | 204 |
 * | POST /v1/groups/ID/restore {epoch?, force?} | GroupRecord, when it is decided |
 * | POST /v1/groups/ID/drill {epoch?, check?, cwd?, timeoutMs?} | DrillLines as NDJSON, the last with a DrillReport |
 * | PUT /v1/groups/ID/drills {everyMs, check?, timeoutMs?} | GroupRecord |
 * | DELETE /v1/groups/ID/drills | GroupRecord: no more of them but on request |
 * | POST /v1/groups/ID/vms/VM/console {text} | 204 |
 * | GET /v1/groups/ID/vms/VM/why[?agoMs=MS][&here=1] | Story |
 * | DELETE /v1/groups/ID | 204 |
 * | GET /v1/groups/ID/vms/VM/image[?epoch=N] | an image as a stream of records (image-records.ts) |
 * | POST /v1/images, a stream of records: ImportWish, one file | 201 GroupRecord |
 * | GET /v1/members | ClusterStatus |
 * | PATCH /v1/members/NAME {votes?, address?} | 204, when it is so |
 * | DELETE /v1/members/NAME[?force=1] | 204, when it has been removed |
 * | POST /v1/invites {role?, votes?, replaces?, expiresMinutes?} | 201 Invitation |
 * | GET /v1/home | HomeStatus |
 * | POST /v1/home/push {group, all?} | HomeCopy, when the epoch has been copied |
 * | POST /v1/home/list {from?, credentials?} | HomeListing |
 * | POST /v1/home/verify {from?, credentials?, cluster?, group, epoch?, deep?} | HomeCheck |
 * | POST /v1/home/restore {from?, credentials?, recoveryKey, cluster?, group?, epoch?, owner?} | 201 HomeEpoch[], when the groups are there |
 * | PUT /v1/recovery-key {public, replaces?} | RecoveryStatus |
 * | GET /v1/keys | KeysStatus |
 * | POST /v1/keys | 201 KeysStatus, when there is a new one |
 * | GET /v1/plan[?group=GROUP][&host=NAME] | GroupPlan[] |
 * | POST /v1/verify[?name=NAME][&deep=1] | WorkLines as NDJSON, the last with a VerifyReport |
 * | POST /v1/repair | WorkLines as NDJSON, the last with a RepairReport |
 * | POST /v1/leave {force?} | 204, when this peer is no member any more; it stops then |
 *
 * Errors: `{error: {code, message, details}}` with a status that fits.
 */
import { chmodSync, unlinkSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { MAX_AGO_MS } from '../../protocols/decisions/merge.ts'
import { groupNameSchema } from '../../config/vm.ts'
import { DiapauseError, UsageError, messageOf } from '../errors.ts'
import type { Log } from '../ports.ts'
import type { PeerEvent } from './events.ts'
import { drillRoutes } from './drill-routes.ts'
import { epochRoutes } from './epoch-routes.ts'
import { parseGroupRequest } from './group-request.ts'
import { homeRoutes } from './home-routes.ts'
import { imageRoutes } from './image-routes.ts'
import { METRICS_TYPE, metricsText } from './metrics.ts'
import { memberRoutes } from './member-routes.ts'
import { planRoutes } from './plan-routes.ts'
import { redundancyRoutes } from './redundancy-routes.ts'
import { type Context, type Reply, readJson, type Route } from './routing.ts'
import type { PeerView } from './view.ts'

/** A follower that reads slower than events come is sent away at this much, instead of filling our memory. */
const MAX_UNSENT_EVENT_BYTES = 1 << 20

/** A stopping peer waits this long for requests under way; one that waits for an epoch might never end. A guess. */
const CLOSE_GRACE_MS = 500

/** A group's console input is a command line, not a file. */
const MAX_CONSOLE_TEXT = 4_096

export const apiSocketPath = (runDir: string): string => join(runDir, 'api.sock')

const routes: readonly Route[] = [
  {
    method: 'GET',
    path: /^\/v1\/status$/,
    answer: async ({ view }) => ({ status: 200, body: await view.status() })
  },
  {
    method: 'GET',
    path: /^\/v1\/events$/,
    answer: async context => streamEvents(context)
  },
  {
    method: 'GET',
    path: /^\/metrics$/,
    answer: async ({ view, response }) => {
      const text = await metricsText(await view.status())
      response.writeHead(200, { 'content-type': METRICS_TYPE })
      response.end(text)
      return undefined
    }
  },
  {
    method: 'GET',
    path: /^\/v1\/groups$/,
    answer: async ({ view }) => ({ status: 200, body: view.groups() })
  },
  {
    method: 'POST',
    path: /^\/v1\/groups$/,
    answer: async ({ view, request }) => {
      const body = await readJson(request)
      const { members } = await view.status()
      return { status: 201, body: await view.createGroup(parseGroupRequest(body, members)) }
    }
  },
  {
    method: 'POST',
    path: /^\/v1\/groups\/([^/]+)\/epochs$/,
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.takeEpoch(group) })
  },
  {
    method: 'POST',
    path: /^\/v1\/groups\/([^/]+)\/vms\/([^/]+)\/console$/,
    answer: async ({ view, request }, [group = '', vm = '']) => {
      await view.typeConsole(group, vm, consoleText(await readJson(request)))
      return { status: 204 }
    }
  },
  {
    method: 'GET',
    path: /^\/v1\/groups\/([^/]+)\/vms\/([^/]+)\/why$/,
    answer: async ({ view, query }, [group = '', vm = '']) => {
      const question = { group: nameOf(group), vm: nameOf(vm), agoMs: agoMsOf(query), here: query.get('here') === '1' }
      return { status: 200, body: await view.why(question) }
    }
  },
  {
    method: 'DELETE',
    path: /^\/v1\/groups\/([^/]+)$/,
    answer: async ({ view }, [group = '']) => {
      await view.removeGroup(group)
      return { status: 204 }
    }
  },
  ...epochRoutes,
  ...drillRoutes,
  ...memberRoutes,
  ...homeRoutes,
  ...planRoutes,
  ...redundancyRoutes,
  ...imageRoutes
]

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
  const server = createServer((request, response) => {
    answer({ view, followers, request, response }).catch((error: unknown) => {
      const { status, body } = errorReply(error)
      if (status === 500) log.error({ err: error, method: request.method, url: request.url }, 'an API request failed')
      send(response, { status, body })
    })
  })
  server.headersTimeout = 30_000
  server.requestTimeout = 0 // an image takes as long as it takes
  server.maxHeadersCount = 50
  await listen(server, socketPath)
  return {
    socketPath,
    close: () =>
      new Promise(resolve => {
        for (const end of followers) end()
        const impatient = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
        server.close(() => {
          clearTimeout(impatient)
          resolve()
        })
        server.closeIdleConnections()
      })
  }
}

async function answer(context: Omit<Context, 'query'>): Promise<void> {
  const { request, response } = context
  const url = new URL(request.url ?? '/', 'http://peer')
  const matching = routes.filter(route => route.path.test(url.pathname))
  const route = matching.find(candidate => candidate.method === request.method)
  if (route === undefined) {
    if (matching.length === 0) throw new DiapauseError('API_NOT_FOUND', `there is nothing at ${url.pathname}`)
    const allowed = matching.map(candidate => candidate.method).join(', ')
    response.setHeader('allow', allowed)
    throw new DiapauseError('API_METHOD', `${url.pathname} answers to ${allowed} only, not to ${request.method}`)
  }
  const names = (route.path.exec(url.pathname) ?? []).slice(1).map(decodeName)
  const reply = await route.answer({ ...context, query: url.searchParams }, names)
  if (reply !== undefined) send(response, reply)
}

function decodeName(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new UsageError('API_BAD_REQUEST', `${text} in the path is not a valid name`, { cause })
  }
}

function send(response: ServerResponse, { status, body }: Reply): void {
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const text = body === undefined ? undefined : `${JSON.stringify(body)}\n`
  response.writeHead(status, text === undefined ? {} : { 'content-type': 'application/json' })
  response.end(text)
}

// ---------------------------------------------------------------------------------------------- events

function streamEvents({ view, followers, response, query }: Context): undefined {
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  const write = (event: PeerEvent): void => void response.write(`${JSON.stringify(event)}\n`)
  for (const event of view.events.recent()) write(event)
  if (query.get('follow') !== '1') {
    response.end()
    return
  }
  response.flushHeaders()
  const unsubscribe = view.events.subscribe(event => {
    write(event)
    if (response.writableLength <= MAX_UNSENT_EVENT_BYTES) return
    write({ atMs: event.atMs, kind: 'events.overrun', message: 'this reader was too slow; later events were not sent' })
    end()
  })
  const end = (): void => {
    unsubscribe()
    followers.delete(end)
    response.end()
  }
  followers.add(end)
  response.on('close', end)
}

// ---------------------------------------------------------------------------------------------- bodies and errors

function consoleText(body: unknown): string {
  const text = typeof body === 'object' && body !== null && 'text' in body ? body.text : undefined
  if (typeof text !== 'string' || text.length > MAX_CONSOLE_TEXT) {
    throw new UsageError('API_BAD_REQUEST', `expected {"text": "…"} with at most ${MAX_CONSOLE_TEXT} characters`)
  }
  return text
}

function nameOf(text: string): string {
  if (groupNameSchema.safeParse(text).success) return text
  throw new UsageError('API_BAD_REQUEST', `${JSON.stringify(text)} is not the name of a group or a VM`)
}

/** Default: all that is kept. */
function agoMsOf(query: URLSearchParams): number {
  const agoMs = Number(query.get('agoMs') ?? MAX_AGO_MS)
  if (agoMs >= 0 && agoMs <= MAX_AGO_MS) return agoMs
  throw new UsageError('API_BAD_REQUEST', `agoMs is a number of milliseconds from 0 to ${MAX_AGO_MS}`)
}

const statusOfCode: Readonly<Record<string, number>> = {
  API_NOT_FOUND: 404,
  GROUP_UNKNOWN: 404,
  MEMBER_UNKNOWN: 404,
  VM_UNKNOWN: 404,
  NAME_UNKNOWN: 404,
  API_METHOD: 405,
  API_BODY_TOO_LARGE: 413,
  GROUP_EXISTS: 409,
  RESERVATION_LOST: 409,
  DRILL_BUSY: 409,
  DRILL_MEMORY: 409,
  EPOCH_OPEN: 409,
  EPOCH_NOT_KEPT: 409,
  EPOCHS_FULL: 409,
  EPOCHS_READ: 409,
  GROUP_CHANGED: 409,
  HOME_BUSY: 409,
  HOME_NO_KEY: 409,
  NOT_STORAGE: 409,
  VM_ELSEWHERE: 409,
  MEMBER_LEAVING: 409,
  MEMBER_OWNS_VMS: 409,
  LAST_VOTER: 409,
  VOTERS_FULL: 409,
  INVITES_FULL: 409,
  ADDRESS_TAKEN: 409,
  KEYS_ELSEWHERE: 409,
  KEYS_FULL: 409,
  REGISTER_LEASED: 503,
  REGISTER_UNAVAILABLE: 503
}

function errorReply(error: unknown): { status: number; body: unknown } {
  if (!(error instanceof DiapauseError)) {
    return { status: 500, body: { error: { code: 'INTERNAL', message: messageOf(error), details: {} } } }
  }
  const { code, message, details } = error
  const status = statusOfCode[code] ?? (error instanceof UsageError ? 400 : 500)
  return { status, body: { error: { code, message, details } } }
}

// ---------------------------------------------------------------------------------------------- the socket

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
      server.once('error', cause =>
        reject(new UsageError('API_SOCKET', `cannot listen on ${socketPath}: ${cause.message}`, { cause }))
      )
      server.listen(socketPath, resolve)
      process.umask(mask)
    })
  } finally {
    process.umask(mask)
  }
  chmodSync(socketPath, 0o600)
}
