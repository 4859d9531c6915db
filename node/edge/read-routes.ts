/** The API's requests about what people look at (`read-models.ts`); the table stands in `api-routes.ts`. */
import { epochNumber } from './epoch-view.ts'
import { type DecisionLine, type DecisionList, parseDecisionsWish, type ToldDecisions } from './decisions-view.ts'
import { parseHistoryWish } from './history-view.ts'
import type { Route } from './routing.ts'
import { sentenceOf } from './why-sentences.ts'
import { Words } from './why-words.ts'

export const readRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/overview',
    role: 'view',
    summary: 'The cluster at a glance: members, groups and VMs, as each host says of itself',
    answer: async ({ view }) => ({ status: 200, body: await view.reads.overview() })
  },
  {
    method: 'GET',
    path: '/v1/groups/{group}/history',
    role: 'view',
    summary: 'What became of the epochs of a group, by what all peers remember',
    answer: async ({ view, query }, [group = '']) => ({
      status: 200,
      body: await view.reads.history(group, parseHistoryWish(query))
    })
  },
  {
    method: 'GET',
    path: '/v1/groups/{group}/epochs/{epoch}/grid',
    role: 'view',
    summary: 'Where each column of an epoch that is kept is, and which are lost or being repaired',
    answer: async ({ view }, [group = '', epoch = '']) => ({
      status: 200,
      body: await view.reads.grid(group, epochNumber(epoch))
    })
  },
  {
    method: 'GET',
    path: '/v1/groups/{group}/graph',
    role: 'view',
    summary: 'Which VMs of a group speak with each other, and which would start together',
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.reads.graph(group) })
  },
  {
    method: 'GET',
    path: '/v1/decisions',
    role: 'view',
    summary: 'The decision log of all peers: why VMs were moved, or were not',
    answer: async ({ view, query }) => ({
      status: 200,
      body: decisionList(await view.reads.decisions(parseDecisionsWish(query)))
    })
  }
]

/** Facts as sentences. Pure. */
export function decisionList({ told, ...rest }: ToldDecisions): DecisionList {
  const words = new Words(rest)
  const decisions = told.map((each): DecisionLine => {
    const { fact, by, seq, atMs, lastAtMs, times } = each
    return {
      by,
      seq,
      atMs,
      lastAtMs,
      times,
      kind: fact.kind,
      ...('group' in fact && { group: fact.group }),
      ...('vm' in fact && { vm: fact.vm }),
      ...('peer' in fact && { peer: fact.peer }),
      text: sentenceOf(each, words)
    }
  })
  return { ...rest, decisions }
}
