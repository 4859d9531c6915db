/** The API's requests about kept epochs; the table stands in `api.ts`. */
import { epochNumber, parseHold, parsePolicyWish, parseRestoreWish } from './epoch-view.ts'
import { readJson, type Route } from './routing.ts'

export const epochRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: /^\/v1\/groups\/([^/]+)\/epochs$/,
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.epochs.list(group) })
  },
  {
    method: 'DELETE',
    path: /^\/v1\/groups\/([^/]+)\/epochs\/([^/]+)$/,
    answer: async ({ view }, [group = '', epoch = '']) => {
      await view.epochs.remove(group, epochNumber(epoch))
      return { status: 204 }
    }
  },
  {
    method: 'POST',
    path: /^\/v1\/groups\/([^/]+)\/epochs\/([^/]+)\/holds$/,
    answer: async ({ view, request }, [group = '', epoch = '']) => {
      await view.epochs.hold(group, epochNumber(epoch), parseHold(await readJson(request)).name)
      return { status: 204 }
    }
  },
  {
    method: 'DELETE',
    path: /^\/v1\/groups\/([^/]+)\/epochs\/([^/]+)\/holds$/,
    answer: async ({ view, query }, [group = '', epoch = '']) => {
      await view.epochs.release(group, epochNumber(epoch), query.get('name') ?? undefined)
      return { status: 204 }
    }
  },
  {
    method: 'PATCH',
    path: /^\/v1\/groups\/([^/]+)\/retention$/,
    answer: async ({ view, request }, [group = '']) => {
      await view.epochs.setPolicy(group, parsePolicyWish(await readJson(request)))
      return { status: 204 }
    }
  },
  {
    method: 'POST',
    path: /^\/v1\/groups\/([^/]+)\/restore$/,
    answer: async ({ view, request }, [group = '']) => ({
      status: 200,
      body: await view.epochs.restore(group, parseRestoreWish(await readJson(request)))
    })
  }
]
