/**
 * The table of the API's requests: read it first. Each row says what it is for and which role it takes; what is sent and answered,
 * the types of the views that it asks. Errors are `{error: {code, message, todo?, details}}` with a status that fits.
 */
import { groupNameSchema } from '../../config/vm.ts'
import { MAX_AGO_MS } from '../../protocols/decisions/merge.ts'
import { UsageError } from '../errors.ts'
import { streamClusterEvents, streamEvents } from './api-events.ts'
import { consoleRoutes } from './console-routes.ts'
import { drillRoutes } from './drill-routes.ts'
import { epochRoutes } from './epoch-routes.ts'
import { parseGroupRequest } from './group-request.ts'
import { homeRoutes } from './home-routes.ts'
import { imageRoutes } from './image-routes.ts'
import { logRoutes } from './log-routes.ts'
import { METRICS_TYPE } from './metrics.ts'
import { memberRoutes } from './member-routes.ts'
import { notificationRoutes } from './notification-routes.ts'
import { planRoutes } from './plan-routes.ts'
import { policyRoutes } from './policy-routes.ts'
import { readRoutes } from './read-routes.ts'
import { redundancyRoutes } from './redundancy-routes.ts'
import { restRoutes } from './rest-routes.ts'
import { readJson, type Route } from './routing.ts'
import { tokenRoutes } from './token-routes.ts'
import type { PeerView } from './view.ts'

/** Made once: whoever asks for it needs no token, and it is the same as long as the process lives. */
let description: object | undefined

export const routes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/openapi.json',
    role: 'nobody',
    summary: 'This description',
    answer: async ({ view }) => ({ status: 200, body: (description ??= await describe(view)) })
  },
  {
    method: 'GET',
    path: '/v1/status',
    role: 'view',
    summary: 'The peer, the members as it sees them, its groups and its store',
    answer: async ({ view }) => ({ status: 200, body: await view.status() })
  },
  {
    method: 'GET',
    path: '/v1/events',
    role: 'view',
    summary: 'What happened at the peer, with cluster=1 at all peers: the kept events, and with follow=1 those to come',
    answer: async context =>
      context.query.get('cluster') === '1' ? streamClusterEvents(context) : streamEvents(context)
  },
  {
    method: 'GET',
    path: '/metrics',
    role: 'view',
    summary: 'What the peer knows, for Prometheus',
    answer: async ({ view, response }) => {
      const text = await view.metrics.text(await view.status())
      response.writeHead(200, { 'content-type': METRICS_TYPE })
      response.end(text)
      return undefined
    }
  },
  {
    method: 'GET',
    path: '/v1/groups',
    role: 'view',
    summary: 'The records of all groups',
    answer: async ({ view }) => ({ status: 200, body: view.groups() })
  },
  {
    method: 'POST',
    path: '/v1/groups',
    role: 'admin',
    summary: 'Make a group; its VMs start. With dryRun=1: say what would be made',
    answer: async ({ view, request, query }) => {
      const body = await readJson(request)
      const { members } = await view.status()
      const dryRun = query.get('dryRun') === '1'
      const record = await view.createGroup(parseGroupRequest(body, members), { dryRun })
      return { status: dryRun ? 200 : 201, body: record }
    }
  },
  {
    method: 'POST',
    path: '/v1/groups/{group}/epochs',
    role: 'operate',
    summary: 'Take a snapshot of a group now; answered when it is committed or aborted',
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.takeEpoch(group) })
  },
  {
    method: 'GET',
    path: '/v1/groups/{group}/vms/{vm}/why',
    role: 'view',
    summary: 'Why a VM was moved, or was not',
    answer: async ({ view, query }, [group = '', vm = '']) => {
      const question = { group: nameOf(group), vm: nameOf(vm), agoMs: agoMsOf(query), here: query.get('here') === '1' }
      return { status: 200, body: await view.why(question) }
    }
  },
  {
    method: 'DELETE',
    path: '/v1/groups/{group}',
    role: 'admin',
    summary: 'Stop the VMs of a group and forget its snapshots',
    answer: async ({ view }, [group = '']) => {
      await view.removeGroup(group)
      return { status: 204 }
    }
  },
  ...epochRoutes,
  ...restRoutes,
  ...drillRoutes,
  ...consoleRoutes,
  ...memberRoutes,
  ...tokenRoutes,
  ...notificationRoutes,
  ...logRoutes,
  ...homeRoutes,
  ...planRoutes,
  ...policyRoutes,
  ...readRoutes,
  ...redundancyRoutes,
  ...imageRoutes
]

async function describe(view: PeerView): Promise<object> {
  const { describeApi } = await import('./openapi/describe.ts')
  return describeApi(routes, (await view.status()).version)
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
