/** The API's requests about the cluster's members and data keys; the table stands in `api.ts`. */
import { parseInviteRequest, parseLeaveRequest, parseMemberWish } from './member-request.ts'
import { readJson, type Route } from './routing.ts'

export const memberRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/members',
    role: 'view',
    summary: 'The members of the cluster and what it waits for',
    answer: async ({ view }) => ({ status: 200, body: await view.cluster.status() })
  },
  {
    method: 'PATCH',
    path: '/v1/members/{member}',
    role: 'admin',
    summary: 'Give a member a vote or take it, or say where it is; answered when it is so',
    answer: async ({ view, request }, [member = '']) => {
      await view.cluster.setMember(member, parseMemberWish(await readJson(request)))
      return { status: 204 }
    }
  },
  {
    method: 'DELETE',
    path: '/v1/members/{member}',
    role: 'admin',
    summary: 'Remove a member for good; answered when it is no member any more',
    answer: async ({ view, query }, [member = '']) => {
      await view.cluster.removeMember(member, query.get('force') === '1')
      return { status: 204 }
    }
  },
  {
    method: 'POST',
    path: '/v1/invites',
    role: 'admin',
    summary: 'A token with which one peer may join',
    answer: async ({ view, request }) => ({
      status: 201,
      body: await view.cluster.invite(parseInviteRequest(await readJson(request)))
    })
  },
  {
    method: 'DELETE',
    path: '/v1/invites/{invite}',
    role: 'admin',
    summary: 'Take an invitation back, by its short id: nobody joins with its token any more',
    answer: async ({ view }, [invite = '']) => {
      await view.cluster.withdrawInvite(invite)
      return { status: 204 }
    }
  },
  {
    method: 'GET',
    path: '/v1/keys',
    role: 'view',
    summary: 'The keys that snapshots are sealed under',
    answer: async ({ view }) => ({ status: 200, body: await view.cluster.keys() })
  },
  {
    method: 'POST',
    path: '/v1/keys',
    role: 'admin',
    summary: 'Make a new data key',
    answer: async ({ view }) => ({ status: 201, body: await view.cluster.rotateKeys() })
  },
  {
    method: 'POST',
    path: '/v1/leave',
    role: 'admin',
    summary: 'Take this peer out of the cluster for good; it stops then',
    answer: async ({ view, request }) => {
      await view.cluster.leave(parseLeaveRequest(await readJson(request)).force)
      return { status: 204 }
    }
  }
]
