/** Requests to the peer that served this page, and to nobody else. */
import { lineCutter } from './lines.ts'
import { session, signOut } from './session.ts'

/** `code`: as the API says it; `PEER_SILENT`: it did not answer. The message has on a second line what to do, where it is known. */
export class ApiError extends Error {
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** As `ErrorOfApi` of the edge; peers before this version send no `todo`. */
export interface ToldError {
  readonly code: string
  readonly message: string
  readonly todo?: string
}

export const refusalOf = ({ code, message, todo }: ToldError): ApiError =>
  new ApiError(code, todo === undefined ? message : `${message}\n→ ${todo}`)

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Longer than any answer but a stream takes: a peer that died keeps no page waiting. A guess. */
const ANSWER_MS = 15_000

export async function send(
  method: string,
  path: string,
  options: { body?: unknown; signal?: AbortSignal; accept?: string; headers?: Record<string, string> } = {}
): Promise<Response> {
  const { token } = session.get()
  const headers: Record<string, string> = { accept: options.accept ?? 'application/json', ...options.headers }
  if (token !== null) headers['authorization'] = `Bearer ${token}`
  if (options.body !== undefined) headers['content-type'] = 'application/json'
  const init: RequestInit = { method, headers, cache: 'no-store', signal: options.signal ?? null }
  if (options.body !== undefined) init.body = JSON.stringify(options.body)
  const response = await fetch(path, init).catch((cause: unknown) => {
    if (options.signal?.aborted === true) throw cause
    throw new ApiError('PEER_SILENT', 'this peer does not answer; is it running?', { cause })
  })
  if (response.ok) return response
  const error = await errorOf(response)
  if (response.status === 401 && session.get().token === token) signOut(error.message)
  throw error
}

async function errorOf(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => '')
  try {
    const { error } = JSON.parse(text) as { error: ToldError }
    return refusalOf(error)
  } catch (cause) {
    return new ApiError(`HTTP_${response.status}`, `the peer answered ${response.status}`, { cause })
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const late = AbortSignal.timeout(ANSWER_MS)
  const response = await send('GET', path, { signal: signal === undefined ? late : AbortSignal.any([signal, late]) })
  return (await response.json()) as T
}

/** An answer of some lines of JSON, each told as it comes. */
export async function readLines(response: Response, tell: (line: string) => void): Promise<void> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  const cut = lineCutter()
  for (;;) {
    const part = await reader?.read()
    if (part === undefined || part.done) return
    for (const line of cut(part.value)) tell(line)
  }
}
