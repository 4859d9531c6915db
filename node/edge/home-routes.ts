/** The API's requests about the second home; the table stands in `api.ts`. */
import { parseHomePlace, parsePushWish, parseRecoveryWish, parseRestoreWish, parseVerifyWish } from './home-view.ts'
import { readJson, type Route } from './routing.ts'

export const homeRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: /^\/v1\/home$/,
    answer: ({ view }) => Promise.resolve({ status: 200, body: view.home.status() })
  },
  {
    method: 'POST',
    path: /^\/v1\/home\/push$/,
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.push(parsePushWish(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: /^\/v1\/home\/list$/,
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.list(parseHomePlace(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: /^\/v1\/home\/verify$/,
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.verify(parseVerifyWish(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: /^\/v1\/home\/restore$/,
    answer: async ({ view, request }) => ({
      status: 201,
      body: await view.home.restore(parseRestoreWish(await readJson(request)))
    })
  },
  {
    method: 'PUT',
    path: /^\/v1\/recovery-key$/,
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.setRecovery(parseRecoveryWish(await readJson(request)))
    })
  }
]
