/**
 * Work on a second home that can be ended at any moment: then nobody waits for a server that does not answer, or for the pace.
 * What was asked for already may still be done, as when the copier dies: nothing that was to come after it is.
 */
import { DiapauseError } from '../errors.ts'
import type { ObjectStore } from '../ports.ts'

function cancelled(): DiapauseError {
  return new DiapauseError('HOME_CANCELLED', 'work on the second home was ended')
}

/** HOME_CANCELLED once it is aborted. */
export function checkWanted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled()
}

/** What `work` makes, or HOME_CANCELLED as soon as `signal` is aborted, whatever becomes of the work. */
export async function whileWanted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  if (signal === undefined) return await work()
  checkWanted(signal)
  const ended = Promise.withResolvers<never>()
  const end = (): void => ended.reject(cancelled())
  signal.addEventListener('abort', end)
  try {
    const working = work()
    working.catch(() => {}) // it may end after we have
    return await Promise.race([working, ended.promise])
  } finally {
    signal.removeEventListener('abort', end)
  }
}

/** Until `done` is called by what `after` has begun; its result ends that. HOME_CANCELLED. */
export async function waitWanted(
  signal: AbortSignal | undefined,
  after: (done: () => void) => () => void
): Promise<void> {
  const over = Promise.withResolvers<void>()
  const cancel = after(over.resolve)
  try {
    await whileWanted(signal, () => over.promise)
  } finally {
    cancel()
  }
}

/** The same store, of which nothing is asked once `signal` is aborted, and nothing waited for: HOME_CANCELLED. */
export function wantedStore(store: ObjectStore, signal: AbortSignal | undefined): ObjectStore {
  if (signal === undefined) return store
  return {
    url: store.url,
    put: (name, bytes) => whileWanted(signal, () => store.put(name, bytes, signal)),
    get: name => whileWanted(signal, () => store.get(name, signal)),
    stat: name => whileWanted(signal, () => store.stat(name, signal)),
    delete: name => whileWanted(signal, () => store.delete(name, signal)),
    removePartial: async beforeMs => await whileWanted(signal, async () => await store.removePartial?.(beforeMs)),
    async *list(prefix) {
      const entries = store.list(prefix, signal)[Symbol.asyncIterator]()
      try {
        for (;;) {
          const next = await whileWanted(signal, () => entries.next())
          if (next.done === true) return
          yield next.value
        }
      } finally {
        // Not awaited: where the next entry does not come, this does not end either.
        entries.return?.().catch(() => {})
      }
    }
  }
}
