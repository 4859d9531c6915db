/** The API's requests about the log; the table stands in `api-routes.ts`. */
import { parseLogWish } from './log-view.ts'
import { readJson, type Route } from './routing.ts'

export const logRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/log',
    role: 'view',
    summary: 'How much the log of this peer tells, and how much its config asks for',
    answer: ({ view }) => Promise.resolve({ status: 200, body: view.logging.status() })
  },
  {
    method: 'PUT',
    path: '/v1/log',
    role: 'admin',
    summary: 'Have the log of this peer tell more or less, until it ends',
    answer: async ({ view, request }) => {
      const { level } = parseLogWish(await readJson(request))
      return { status: 200, body: view.logging.setLevel(level) }
    }
  },
  {
    method: 'DELETE',
    path: '/v1/log',
    role: 'admin',
    summary: 'Have the log of this peer tell what its config asks for',
    answer: ({ view }) => Promise.resolve({ status: 200, body: view.logging.setLevel(undefined) })
  }
]
