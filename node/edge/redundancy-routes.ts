/** The API's requests about redundancy; the table stands in `api.ts`. Answers are NDJSON: `WorkLine`s. */
import { errorOfApi } from './api-error.ts'
import { parseVerifyWish, type WorkLine, type WorkProgress } from './redundancy-view.ts'
import type { Context, Route } from './routing.ts'

export const redundancyRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/v1/verify',
    role: 'operate',
    summary: 'Read again what is stored and check it',
    answer: async context => {
      const wish = parseVerifyWish(context.query)
      return await inLines(context, signal => context.view.redundancy.verify(wish, signal))
    }
  },
  {
    method: 'POST',
    path: '/v1/repair',
    role: 'operate',
    summary: 'Make again the columns that are lost',
    answer: async context => await inLines(context, signal => context.view.redundancy.repair(signal))
  }
]

/** What fails before the first progress is an answer with its own status; what fails later is a line. */
async function inLines<T>(
  { response }: Context,
  begin: (signal: AbortSignal) => AsyncGenerator<WorkProgress, T>
): Promise<undefined> {
  const stop = new AbortController()
  response.on('close', () => stop.abort())
  const work = begin(stop.signal)
  let step = await work.next()
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  const write = (line: WorkLine<T>): void => void response.write(`${JSON.stringify(line)}\n`)
  try {
    for (; step.done !== true; step = await work.next()) write({ progress: step.value })
    write({ report: step.value })
  } catch (error) {
    write({ error: errorOfApi(error) })
  }
  response.end()
  return undefined
}
