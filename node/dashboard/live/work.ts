/** Something that was asked of the peer: how far it is, and what came of it. */
import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, messageOf, readLines, refusalOf, send, type ToldError } from './http.ts'
import { refresh } from './resource.ts'

export type Work<T> =
  | { readonly state: 'idle' }
  | { readonly state: 'busy'; readonly text: string; readonly part: number | undefined }
  | { readonly state: 'done'; readonly result: T }
  | { readonly state: 'failed'; readonly code: string; readonly message: string }

/** How far it is; `part` of 1 where that is known. */
export type Tell = (text: string, part?: number) => void

/** `run` begins it; whoever leaves the page of it aborts `signal`, which ends what is only of use to who asked. */
export function useWork<T>(task: (tell: Tell, signal: AbortSignal) => Promise<T>): readonly [Work<T>, () => void] {
  const [work, setWork] = useState<Work<T>>({ state: 'idle' })
  const running = useRef<AbortController | undefined>(undefined)
  useEffect(() => () => running.current?.abort(), [])
  const run = (): void => {
    const controller = new AbortController()
    running.current = controller
    setWork({ state: 'busy', text: 'Asking…', part: undefined })
    const tell: Tell = (text, part) => {
      if (!controller.signal.aborted) setWork({ state: 'busy', text, part })
    }
    task(tell, controller.signal)
      .then(result => setWork({ state: 'done', result }))
      .catch((error: unknown) => {
        if (controller.signal.aborted) return
        setWork({
          state: 'failed',
          code: error instanceof ApiError ? error.code : 'UNKNOWN',
          message: messageOf(error)
        })
      })
      .finally(() => refresh(''))
  }
  return [work, run]
}

/** As `DrillLine` and `WorkLine` of the edge. */
type Line<T> =
  | { readonly progress: { readonly text: string; readonly done?: number; readonly total?: number } }
  | { readonly report: T }
  | { readonly error: ToldError }

/** A request that is answered by progress again and again, then by a report. */
export async function ask<T>(path: string, body: unknown, tell: Tell, signal: AbortSignal): Promise<T> {
  const response = await send('POST', path, { signal, ...(body !== undefined && { body }) })
  let report: { readonly it: T } | undefined
  await readLines(response, text => {
    if (text === '') return
    const line = JSON.parse(text) as Line<T>
    if ('error' in line) throw refusalOf(line.error)
    if ('report' in line) report = { it: line.report }
    else tell(line.progress.text, partOf(line.progress))
  })
  if (report === undefined) throw new ApiError('API_ANSWER', 'the peer broke off; has it stopped?')
  return report.it
}

const partOf = ({ done, total }: { readonly done?: number; readonly total?: number }): number | undefined =>
  done === undefined || total === undefined || total === 0 ? undefined : done / total
