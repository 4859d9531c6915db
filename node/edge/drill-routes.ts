/** The API's requests about drills; the table stands in `api.ts`. */
import type { DrillWish } from '../ports.ts'
import { errorOfApi } from './api-error.ts'
import { type DrillLine, parseDrillWish, parseScheduleWish } from './drill-view.ts'
import { type Context, readJson, requireRole, type Route } from './routing.ts'

export const drillRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/groups/{group}/drill',
    role: 'operate',
    summary: "Restore a copy of a group beside it and see whether it works; a check of one's own takes role admin",
    answer: async (context, [group = '']) => {
      const wish = parseDrillWish(group, await readJson(context.request))
      // It is a command for a shell of this host.
      if ((wish.check ?? wish.cwd) !== undefined) requireRole(context.who, 'admin', 'a check that is not of the config')
      return await inLines(context, wish)
    }
  },
  {
    method: 'PUT',
    path: '/v1/groups/{group}/drills',
    role: 'operate',
    summary: 'Drill a group again and again',
    answer: async ({ view, request }, [group = '']) => {
      const wish = parseScheduleWish(await readJson(request))
      return { status: 200, body: await view.drills.schedule(group, wish) }
    }
  },
  {
    method: 'DELETE',
    path: '/v1/groups/{group}/drills',
    role: 'operate',
    summary: 'Drill a group on request only',
    answer: async ({ view }, [group = '']) => ({ status: 200, body: await view.drills.schedule(group, undefined) })
  }
]

/** What is refused before the drill has begun is an answer with its own status. Whoever asked and goes away ends it. */
async function inLines({ view, response }: Context, wish: DrillWish): Promise<undefined> {
  const stop = new AbortController()
  response.on('close', () => stop.abort())
  const write = (line: DrillLine): void => {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    response.write(`${JSON.stringify(line)}\n`)
  }
  try {
    write({ report: await view.drills.run(wish, text => write({ progress: { text } }), stop.signal) })
  } catch (error) {
    if (!response.headersSent) throw error
    write({ error: errorOfApi(error) })
  }
  response.end()
  return undefined
}
