/** The API's requests about its tokens, and about who asks. */
import { readJson, type Route } from './routing.ts'
import { parseTokenWish } from './token-view.ts'

export const tokenRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/whoami',
    role: 'view',
    summary: 'Whose token this is and what it is good for',
    answer: ({ who: { name, role, expiresMs } }) =>
      Promise.resolve({ status: 200, body: { name, role, ...(expiresMs !== undefined && { expiresMs }) } })
  },
  {
    method: 'GET',
    path: '/v1/tokens',
    role: 'admin',
    summary: 'The tokens of the API, without what is secret',
    answer: ({ view }) => Promise.resolve({ status: 200, body: view.tokens.list() })
  },
  {
    method: 'POST',
    path: '/v1/tokens',
    role: 'admin',
    summary: 'Make a token, which every peer of the cluster takes; it is told once',
    answer: async ({ view, request }) => ({
      status: 201,
      body: await view.tokens.make(parseTokenWish(await readJson(request)))
    })
  },
  {
    method: 'DELETE',
    path: '/v1/tokens/{token}',
    role: 'admin',
    summary: 'No peer takes the token of this name any longer, and streams that it opened end',
    answer: async ({ view }, [name = '']) => {
      await view.tokens.remove(name)
      return { status: 204 }
    }
  }
]
