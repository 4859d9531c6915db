/** The API's requests about policies; the table stands in `api-routes.ts`. */
import { parsePolicy } from './policy-view.ts'
import { readJson, type Route } from './routing.ts'

export const policyRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/groups/{group}/policy',
    role: 'view',
    summary: 'When the epochs of a group are taken by themselves, and what they cost lately',
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.policies.show(group) })
  },
  {
    method: 'PUT',
    path: '/v1/groups/{group}/policy',
    role: 'admin',
    summary: 'When the epochs of a group are taken from now on',
    answer: async ({ view, request }, [group = '']) => {
      const policy = parsePolicy(await readJson(request))
      return { status: 200, body: await view.policies.set(group, policy) }
    }
  },
  {
    method: 'DELETE',
    path: '/v1/groups/{group}/policy',
    role: 'admin',
    summary: 'Epochs of a group are taken as the config says',
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.policies.set(group, undefined) })
  },
  {
    method: 'POST',
    path: '/v1/groups/{group}/policy/simulate',
    role: 'view',
    summary: 'What a policy would have done with the past of a group: pause, loss and cost beside what was',
    answer: async ({ view, request }, [group = '']) => {
      const policy = parsePolicy(await readJson(request))
      return { status: 200, body: await view.policies.simulate(group, policy) }
    }
  }
]
