/**
 * Work on a second home that can be ended at any moment: then nobody waits for a server that does not answer, or for the pace.
 * What was asked for already may still be done, as when the copier dies: nothing that was to come after it is.
 */
import { DiapauseError } from '../errors.ts'
import type { Clock, ObjectStore } from '../ports.ts'

/** So long a home may take to answer what was asked for by work that was ended. A guess: a put of a chunk takes seconds. */
export const ANSWER_MS = 30_000

function cancelled(): DiapauseError {
  return new DiapauseError('HOME_CANCELLED', 'work on the second home was ended')
}

/** HOME_CANCELLED once it is aborted. */
export function checkWanted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled()
}

/** What `work` makes, or HOME_CANCELLED as soon as `signal` is aborted, whatever becomes of the work: it is among what is `left` then. */
export async function whileWanted<T>(
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
  left?: LeftBehind
): Promise<T> {
  if (signal === undefined) return await work()
  checkWanted(signal)
  const ended = Promise.withResolvers<never>()
  const end = (): void => ended.reject(cancelled())
  signal.addEventListener('abort', end)
  try {
    const working = work()
    working.catch(() => {}) // it may end after we have
    ended.promise.catch(() => left?.add(working))
    return await Promise.race([working, ended.promise])
  } finally {
    signal.removeEventListener('abort', end)
  }
}

/**
 * What a home was asked for by work that was ended, and has not answered. A directory on a server that is gone keeps a thread of Node's
 * four for each operation, for ever: a peer that began another whenever one was ended would soon have none for its own disks.
 */
export class LeftBehind {
  readonly #of: { readonly clock: Clock; readonly store: Pick<ObjectStore, 'url'> }
  readonly #unanswered = new Set<Promise<unknown>>()
  /** When the last was left, by the clock. */
  #leftMs = 0

  constructor(of: { readonly clock: Clock; readonly store: Pick<ObjectStore, 'url'> }) {
    this.#of = of
  }

  add(work: Promise<unknown>): void {
    this.#unanswered.add(work)
    this.#leftMs = this.#of.clock.now()
    const answered = (): void => void this.#unanswered.delete(work)
    work.then(answered, answered)
  }

  /** Resolves once all is answered: nothing more may be asked for before. HOME_UNREACHABLE where that takes too long, HOME_CANCELLED. */
  async answered(signal: AbortSignal | undefined): Promise<void> {
    if (this.#unanswered.size === 0) return
    const { clock, store } = this.#of
    const late = Promise.withResolvers<never>()
    const waitMs = Math.max(0, this.#leftMs + ANSWER_MS - clock.now())
    const message = `${store.url} does not answer what it was asked for before, and nothing more is asked of it until then: is its disk or server there?`
    const cancel = clock.after(waitMs, () => late.reject(new DiapauseError('HOME_UNREACHABLE', message)))
    try {
      await whileWanted(signal, () => Promise.race([Promise.allSettled(this.#unanswered), late.promise]))
    } finally {
      cancel()
    }
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

/** The same store, of which nothing is asked once `signal` is aborted, and nothing waited for, but kept in `left`: HOME_CANCELLED. */
export function wantedStore(store: ObjectStore, signal: AbortSignal | undefined, left: LeftBehind): ObjectStore {
  if (signal === undefined) return store
  const wanted = <T>(work: () => Promise<T>): Promise<T> => whileWanted(signal, work, left)
  return {
    url: store.url,
    put: (name, bytes) => wanted(() => store.put(name, bytes, signal)),
    get: name => wanted(() => store.get(name, signal)),
    stat: name => wanted(() => store.stat(name, signal)),
    delete: name => wanted(() => store.delete(name, signal)),
    removePartial: async beforeMs => await wanted(async () => await store.removePartial?.(beforeMs)),
    async *list(prefix) {
      const entries = store.list(prefix, signal)[Symbol.asyncIterator]()
      try {
        for (;;) {
          const next = await wanted(() => entries.next())
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
