/** The API's requests about consoles of VMs. */
import { once } from 'node:events'
import { DiapauseError, UsageError, messageOf } from '../errors.ts'
import { HEARTBEAT_MS } from './api-events.ts'
import { type ConsoleLine, historyOf, MAX_TYPED } from './console-view.ts'
import { type Context, readJson, type Route } from './routing.ts'

export const consoleRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/groups/{group}/vms/{vm}/console',
    role: 'operate',
    summary: 'What a VM says on its serial console, wherever it runs: its last words, and with follow=1 those to come',
    answer: async (context, [group = '', vm = '']) => await inLines(context, group, vm)
  },
  {
    method: 'POST',
    path: '/v1/groups/{group}/vms/{vm}/console',
    role: 'operate',
    summary: 'Type on the serial console of a VM, wherever it runs',
    answer: async ({ view, request }, [group = '', vm = '']) => {
      await view.consoles.type(group, vm, consoleText(await readJson(request)))
      return { status: 204 }
    }
  }
]

/** What is refused before anything was said is an answer with its own status. */
async function inLines(context: Context, group: string, vm: string): Promise<undefined> {
  const { view, response, followers, query, stillMay } = context
  const stop = new AbortController()
  const end = (): void => stop.abort()
  response.on('close', end)
  followers.add(end)
  const begin = (): void => {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  }
  // A VM may be silent for days: its follower is looked at meanwhile, and hears that we are there.
  const beating = setInterval(() => {
    if (!stillMay()) return end()
    if (response.headersSent && response.writableLength === 0) response.write('\n')
  }, HEARTBEAT_MS)
  const wish = { group, vm, history: historyOf(query.get('history')), follow: query.get('follow') === '1' }
  try {
    for await (const line of view.consoles.read(wish, stop.signal)) {
      if (!stillMay()) break
      begin()
      // Nothing more is read of a console than its reader takes.
      if (!response.write(text(line))) await once(response, 'drain', { signal: stop.signal })
    }
  } catch (error) {
    if (!response.headersSent && !stop.signal.aborted) throw error
    if (!stop.signal.aborted) response.write(text({ note: wordsOf(error) }))
  } finally {
    clearInterval(beating)
    followers.delete(end)
  }
  begin()
  response.end()
  return undefined
}

const text = (line: ConsoleLine): string => `${JSON.stringify(line)}\n`

const wordsOf = (error: unknown): string =>
  error instanceof DiapauseError ? `${error.message} [${error.code}]` : messageOf(error)

function consoleText(body: unknown): string {
  const typed = typeof body === 'object' && body !== null && 'text' in body ? body.text : undefined
  if (typeof typed !== 'string' || typed.length > MAX_TYPED) {
    throw new UsageError('API_BAD_REQUEST', `expected {"text": "…"} with at most ${MAX_TYPED} characters`)
  }
  return typed
}
