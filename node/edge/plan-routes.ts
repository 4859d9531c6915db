/** The API's requests about plans; the table stands in `api.ts`. */
import { parsePlanWish } from './plan-view.ts'
import type { Route } from './routing.ts'

export const planRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/plan',
    role: 'view',
    summary: 'What would become of groups if hosts were lost',
    answer: async ({ view, query }) => ({ status: 200, body: await view.plans.plan(parsePlanWish(query)) })
  }
]
