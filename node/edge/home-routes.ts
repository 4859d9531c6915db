/** The API's requests about the second home; the table stands in `api.ts`. */
import { parseHomePlace, parsePushWish, parseRecoveryWish, parseRestoreWish, parseVerifyWish } from './home-view.ts'
import { readJson, type Route } from './routing.ts'

export const homeRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/home',
    role: 'view',
    summary: 'What is copied to the second home',
    answer: ({ view }) => Promise.resolve({ status: 200, body: view.home.status() })
  },
  {
    method: 'POST',
    path: '/v1/home/push',
    role: 'operate',
    summary: 'Copy the committed epoch of a group to the second home now',
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.push(parsePushWish(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: '/v1/home/list',
    role: 'admin',
    summary: 'What is in a second home',
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.list(parseHomePlace(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: '/v1/home/verify',
    role: 'admin',
    summary: 'Check an epoch in a second home',
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.verify(parseVerifyWish(await readJson(request)))
    })
  },
  {
    method: 'POST',
    path: '/v1/home/restore',
    role: 'admin',
    summary: 'Make groups of epochs in a second home',
    answer: async ({ view, request }) => ({
      status: 201,
      body: await view.home.restore(parseRestoreWish(await readJson(request)))
    })
  },
  {
    method: 'PUT',
    path: '/v1/recovery-key',
    role: 'admin',
    summary: 'The key that epochs in the second home are sealed to from now on',
    answer: async ({ view, request }) => ({
      status: 200,
      body: await view.home.setRecovery(parseRecoveryWish(await readJson(request)))
    })
  }
]
