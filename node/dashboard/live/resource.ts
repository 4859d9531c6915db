/**
 * Read models that are asked for again and again while somebody looks at them: one request at a time each, however many
 * components watch; none while the tab is hidden. What was read stays shown when a later request fails, with the error beside it.
 */
import { useEffect } from 'preact/hooks'
import { ApiError, get, messageOf } from './http.ts'
import { session } from './session.ts'
import { useValue, type Value, valueOf } from './store.ts'

export interface Read<T> {
  readonly data: T | undefined
  /** Of the last request; undefined: it succeeded. */
  readonly error: { readonly code: string; readonly message: string } | undefined
  /** When `data` was read, by this browser's clock. */
  readonly atMs: number
}

interface Resource {
  readonly value: Value<Read<unknown>>
  readonly load: () => Promise<unknown>
  readonly everyMs: number
  watchers: number
  timer: ReturnType<typeof setTimeout> | undefined
  busy: boolean
  /** Asked for again while a request was under way. */
  again: boolean
}

/** Several events in a row are one reason to look again. */
const SOON_MS = 150

const resources = new Map<string, Resource>()

/** `load` of the first watcher of `name` counts. `everyMs` 0: only when it is told to. */
export function useRead<T>(name: string, everyMs: number, load: () => Promise<T> = () => get<T>(name)): Read<T> {
  const resource = resourceOf(name, everyMs, load)
  useEffect(() => watch(resource), [resource])
  return useValue(resource.value) as Read<T>
}

/** Those that are watched and whose names begin so are read soon. */
export function refresh(prefix: string): void {
  for (const [name, resource] of resources)
    if (name.startsWith(prefix) && resource.watchers > 0) plan(resource, SOON_MS)
}

function resourceOf(name: string, everyMs: number, load: () => Promise<unknown>): Resource {
  const known = resources.get(name)
  if (known !== undefined) return known
  const value = valueOf<Read<unknown>>({ data: undefined, error: undefined, atMs: 0 })
  const made: Resource = { value, load, everyMs, watchers: 0, timer: undefined, busy: false, again: false }
  resources.set(name, made)
  return made
}

function watch(resource: Resource): () => void {
  resource.watchers += 1
  if (resource.watchers === 1) void read(resource)
  return () => {
    resource.watchers -= 1
    if (resource.watchers === 0) clearTimeout(resource.timer)
  }
}

function plan(resource: Resource, afterMs: number): void {
  if (resource.busy) {
    resource.again = true
    return
  }
  clearTimeout(resource.timer)
  resource.timer = setTimeout(() => void read(resource), afterMs)
}

async function read(resource: Resource): Promise<void> {
  if (resource.busy || session.get().token === null || document.hidden) return
  const { value, load, everyMs } = resource
  clearTimeout(resource.timer)
  resource.busy = true
  resource.again = false
  try {
    value.set({ data: await load(), error: undefined, atMs: Date.now() })
  } catch (error) {
    const code = error instanceof ApiError ? error.code : 'PEER_SILENT'
    value.set({ ...value.get(), error: { code, message: messageOf(error) } })
  } finally {
    resource.busy = false
    if (resource.watchers > 0 && (resource.again || everyMs > 0)) plan(resource, resource.again ? SOON_MS : everyMs)
  }
}

/** Who signs out sees nothing of what was read; who comes back to the tab sees it as it is now. */
export function beginReading(): void {
  let { token } = session.get()
  session.watch(() => {
    if (session.get().token === token) return
    token = session.get().token
    if (token === null) resources.clear()
    else refresh('')
  })
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) refresh('')
  })
}
