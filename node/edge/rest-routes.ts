/** The API's requests about groups that rest; the table stands in `api-routes.ts`. */
import { parseRestoreWish } from './epoch-view.ts'
import { parseStopWish } from './rest-view.ts'
import { readJson, type Route } from './routing.ts'

export const restRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/groups/{group}/stop',
    role: 'operate',
    summary: 'Let a group rest: its VMs end and its last epoch stays; answered when it rests',
    answer: async ({ view, request }, [group = '']) => ({
      status: 200,
      body: await view.rest.stop(group, parseStopWish(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: '/v1/groups/{group}/start',
    role: 'operate',
    summary: 'Let a group that rests run again; answered when it is decided',
    answer: async ({ view, request }, [group = '']) => ({
      status: 200,
      body: await view.rest.start(group, parseRestoreWish(await readJson(request)))
    })
  }
]
