/** The API's requests about notifications; the table stands in `api-routes.ts`. */
import { parseNotifyTest } from './notification-view.ts'
import { readJson, type Route } from './routing.ts'

export const notificationRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/notifications',
    role: 'view',
    summary: 'Whom this peer tells of failovers and of what needs a person, and what became of it',
    answer: ({ view }) => Promise.resolve({ status: 200, body: view.notifications.targets() })
  },
  {
    method: 'POST',
    path: '/v1/notifications/test',
    role: 'operate',
    summary: 'Send a test message to all targets of this peer, or to the one that is named',
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.notifications.test(parseNotifyTest(await readJson(request)))
    })
  }
]
