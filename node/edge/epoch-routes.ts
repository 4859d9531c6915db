/** The API's requests about kept epochs; the table stands in `api.ts`. */
import { epochNumber, parseHold, parsePolicyWish, parseRestoreWish } from './epoch-view.ts'
import { readJson, type Route } from './routing.ts'

export const epochRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/groups/{group}/epochs',
    role: 'view',
    summary: 'The epochs of a group that are kept',
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.epochs.list(group) })
  },
  {
    method: 'DELETE',
    path: '/v1/groups/{group}/epochs/{epoch}',
    role: 'admin',
    summary: 'Keep an epoch no longer',
    answer: async ({ view }, [group = '', epoch = '']) => {
      await view.epochs.remove(group, epochNumber(epoch))
      return { status: 204 }
    }
  },
  {
    method: 'POST',
    path: '/v1/groups/{group}/epochs/{epoch}/holds',
    role: 'operate',
    summary: 'Keep an epoch until it is released',
    answer: async ({ view, request }, [group = '', epoch = '']) => {
      await view.epochs.hold(group, epochNumber(epoch), parseHold(await readJson(request)).name)
      return { status: 204 }
    }
  },
  {
    method: 'DELETE',
    path: '/v1/groups/{group}/epochs/{epoch}/holds',
    role: 'admin',
    summary: 'Release an epoch that is held, by one name or by all',
    answer: async ({ view, query }, [group = '', epoch = '']) => {
      await view.epochs.release(group, epochNumber(epoch), query.get('name') ?? undefined)
      return { status: 204 }
    }
  },
  {
    method: 'PATCH',
    path: '/v1/groups/{group}/retention',
    role: 'admin',
    summary: 'Which epochs of a group are kept from now on',
    answer: async ({ view, request }, [group = '']) => {
      await view.epochs.setPolicy(group, parsePolicyWish(await readJson(request)))
      return { status: 204 }
    }
  },
  {
    method: 'POST',
    path: '/v1/groups/{group}/restore',
    role: 'operate',
    summary: 'Let a group go back to an epoch; answered when it is decided',
    answer: async ({ view, request }, [group = '']) => ({
      status: 200,
      body: await view.epochs.restore(group, parseRestoreWish(await readJson(request)))
    })
  }
]
