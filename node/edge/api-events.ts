/**
 * Events as a stream: lines of JSON, or server-sent events (WHATWG HTML, section 9.2) for who accepts text/event-stream, with
 * ids to go on from after a lost connection. What follows beats, so that both sides notice when the other is gone.
 */
import type { ClusterEvent } from './cluster-events-view.ts'
import type { PeerEvent } from './events.ts'
import type { Context } from './routing.ts'

/** A follower that reads slower than events come is sent away at this much, instead of filling our memory. */
const MAX_UNSENT_EVENT_BYTES = 1 << 20

/** Proxies end what is silent for 60 s (nginx' proxy_read_timeout); a removed token sees events no longer than this. A guess. */
export const HEARTBEAT_MS = 15_000

export interface EventStream {
  /** One that was kept, however many there are. */
  replay(event: PeerEvent, id: string): void
  /** One that happens now; who has not read those before it is sent away. */
  write(event: PeerEvent, id: string): void
  end(): void
}

/** `ended` is called once, whoever ended it. */
export function openEventStream({ request, response, followers, stillMay }: Context, ended: () => void): EventStream {
  const sse = acceptsSse(request.headers.accept)
  response.writeHead(200, {
    'content-type': sse ? 'text/event-stream' : 'application/x-ndjson',
    'cache-control': 'no-store'
  })
  response.flushHeaders()
  const put = (event: PeerEvent, id: string): void => {
    const json = JSON.stringify(event)
    response.write(sse ? `id: ${id}\ndata: ${json}\n\n` : `${json}\n`)
  }
  let open = true
  const end = (): void => {
    if (!open) return
    open = false
    clearInterval(beating)
    followers.delete(end)
    response.end()
    ended()
  }
  const beating = setInterval(() => {
    if (!stillMay()) return end()
    response.write(sse ? ':\n\n' : '\n')
  }, HEARTBEAT_MS)
  followers.add(end)
  response.on('close', end)
  return {
    end,
    replay: put,
    write(event, id) {
      if (!open) return
      put(event, id)
      if (response.writableLength <= MAX_UNSENT_EVENT_BYTES) return
      const message = 'this reader was too slow; later events were not sent'
      put({ atMs: event.atMs, kind: 'events.overrun', message }, id)
      end()
    }
  }
}

const acceptsSse = (accept: string | undefined): boolean => accept?.includes('text/event-stream') === true

/** The kept events of this peer, after the one that `Last-Event-ID` names; then, where it is asked for, those to come. */
export function streamEvents(context: Context): undefined {
  const { view, query, request } = context
  let unsubscribe = (): void => {}
  const stream = openEventStream(context, () => unsubscribe())
  const last = request.headers['last-event-id']
  for (const { event, id } of view.events.since(typeof last === 'string' ? last : undefined)) stream.replay(event, id)
  if (query.get('follow') === '1' || acceptsSse(request.headers.accept)) {
    unsubscribe = view.events.subscribe((event, id) => stream.write(event, id))
  } else stream.end()
}

/** As `streamEvents`, of all peers. */
export async function streamClusterEvents(context: Context): Promise<undefined> {
  const { view, query, request, response } = context
  const { clusterEvents } = view.reads
  const early: ClusterEvent[] = []
  let take = (event: ClusterEvent): void => void early.push(event)
  const unsubscribe = clusterEvents.subscribe(event => take(event))
  // What happens while the other peers are asked comes both ways.
  const all = new Map((await clusterEvents.recent()).concat(early).map(event => [event.id, event]))
  if (response.destroyed) {
    unsubscribe()
    return undefined
  }
  const stream = openEventStream(context, unsubscribe)
  const ids = [...all.keys()]
  const last = request.headers['last-event-id']
  for (const id of ids.slice(ids.indexOf(typeof last === 'string' ? last : '') + 1)) {
    stream.replay(all.get(id) as ClusterEvent, id)
  }
  take = event => stream.write(event, event.id)
  if (query.get('follow') !== '1' && !acceptsSse(request.headers.accept)) stream.end()
}
