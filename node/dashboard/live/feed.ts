/**
 * What happens, as it happens: events of all peers by server-sent events, over `fetch` because an EventSource cannot send a
 * token. A stream that breaks is opened again and goes on behind the last event it had.
 */
import type { ClusterEvent } from '../../edge/cluster-events-view.ts'
import { keptOf, MAX_OTHERS, MAX_ROUTINE } from '../model/kept.ts'
import { messageOf, readLines, send } from './http.ts'
import { serverSentReader } from './lines.ts'
import { refresh } from './resource.ts'
import { session } from './session.ts'
import { valueOf } from './store.ts'

/** 'closed': nobody is signed in. */
export type Link = 'closed' | 'connecting' | 'live' | 'lost'

/** Twice as long as the peer's heartbeats are apart, so that a peer that vanished without a word is noticed. */
const SILENCE_MS = 35_000
const RETRY_MS = 1_500

/** The oldest first. */
export const events = valueOf<readonly ClusterEvent[]>([])
export const link = valueOf<{ readonly state: Link; readonly why: string }>({ state: 'closed', why: '' })

/** What an event of such a kind makes old. */
const stale: readonly (readonly [RegExp, readonly string[]])[] = [
  [/^(liveness|peer\.|member\.|voters\.|vm\.|group\.|takeover\.|lease\.)/, ['/v1/overview', '/v1/decisions']],
  [/^epoch\.(opened|committed|aborted)$/, ['/v1/overview', 'history']],
  [/^(drill\.|group\.)/, ['/v1/overview', 'history']],
  [/^(repair\.|scrub\.|liveness)/, ['/v1/overview', 'grid']],
  [/^vm\.(resumed|complete)$/, ['graph', 'grid']]
]

export function beginFeed(): void {
  let running: AbortController | undefined
  let token: string | null = null
  const follow = (): void => {
    if (session.get().token === token) return
    token = session.get().token
    running?.abort()
    running = undefined
    events.set([])
    if (token === null) return link.set({ state: 'closed', why: '' })
    running = new AbortController()
    void keepReading(running.signal)
  }
  session.watch(follow)
  follow()
}

async function keepReading(signal: AbortSignal): Promise<void> {
  let last: string | undefined
  let waiting: ClusterEvent[] = []
  const flush = (): void => {
    events.set(joined(events.get(), waiting))
    waiting = []
  }
  const take = (id: string | undefined, event: ClusterEvent): void => {
    last = id ?? last
    if (waiting.length === 0) requestAnimationFrame(flush)
    waiting.push(event)
    if (waiting.length > 2 * (MAX_ROUTINE + MAX_OTHERS)) waiting = [...keptOf(waiting)] // a hidden tab draws no frames
    for (const [kinds, names] of stale) if (kinds.test(event.event.kind)) names.forEach(refresh)
  }
  while (!signal.aborted) {
    link.set({ state: link.get().state === 'lost' ? 'lost' : 'connecting', why: '' })
    try {
      await readOnce(signal, last, take)
      link.set({ state: 'lost', why: 'the peer ended the stream' })
    } catch (error) {
      if (!signal.aborted) link.set({ state: 'lost', why: messageOf(error) })
    }
    await new Promise(resolve => setTimeout(resolve, RETRY_MS))
  }
}

/** Until the stream ends, or is silent for too long. */
async function readOnce(
  signal: AbortSignal,
  last: string | undefined,
  take: (id: string | undefined, event: ClusterEvent) => void
): Promise<void> {
  const silence = new AbortController()
  let timer = setTimeout(() => silence.abort(), SILENCE_MS)
  const headers: Record<string, string> = last === undefined ? {} : { 'last-event-id': last }
  const options = { accept: 'text/event-stream', headers, signal: AbortSignal.any([signal, silence.signal]) }
  try {
    const response = await send('GET', '/v1/events?cluster=1&follow=1', options)
    link.set({ state: 'live', why: '' })
    const next = serverSentReader()
    await readLines(response, line => {
      clearTimeout(timer)
      timer = setTimeout(() => silence.abort(), SILENCE_MS)
      const message = next(line)
      if (message !== undefined) take(message.id, JSON.parse(message.data) as ClusterEvent)
    })
  } finally {
    clearTimeout(timer)
  }
}

/** By time; an event that is told again after the stream was opened anew counts once. */
function joined(old: readonly ClusterEvent[], more: readonly ClusterEvent[]): readonly ClusterEvent[] {
  const seen = new Set(old.map(({ id }) => id))
  const fresh = more.filter(({ id }) => !seen.has(id) && seen.add(id))
  if (fresh.length === 0) return old
  const all = [...old, ...fresh]
  const ordered = all.every((event, at) => at === 0 || (all[at - 1]?.atMs ?? 0) <= event.atMs)
  return keptOf(ordered ? all : all.toSorted((a, b) => a.atMs - b.atMs))
}
