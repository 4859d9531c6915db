/** The part of the composition root that gathers from all peers what people look at. */
import { randomBytes } from 'node:crypto'
import { OverviewExchange } from '../../protocols/overview/shell.ts'
import { SharedEvents } from '../../protocols/overview/events.ts'
import { OVERVIEW_PROTOCOL } from '../../protocols/overview/messages.ts'
import type { EventFeed } from '../edge/events.ts'
import { ReadModelOperations, type ReadModelDeps } from '../operations/read-models.ts'
import type { ControlBus, Transport } from '../ports.ts'

export interface ReadingDeps extends Omit<ReadModelDeps, 'exchange' | 'shared' | 'togetherMs' | 'epochs'> {
  readonly config: { readonly restore: { readonly togetherMs: number }; readonly epochs: ReadModelDeps['epochs'] }
  readonly bus: ControlBus
  readonly transport: Pick<Transport, 'onConnection'>
  readonly events: Pick<EventFeed, 'recent' | 'subscribe'>
  readonly teardown: { add(step: () => unknown): void }
}

export function openReading(deps: ReadingDeps): ReadModelOperations {
  const { self, bus, clock, wallMs, membership, transport, events, teardown } = deps
  const shared = new SharedEvents({
    self,
    run: randomBytes(6).toString('hex'),
    clock,
    wallMs,
    others: () => membership.record().members.flatMap(({ id }) => (id === self ? [] : [id])),
    send: (to, message) => bus.send(to, OVERVIEW_PROTOCOL, message)
  })
  for (const event of events.recent()) shared.tell(event)
  teardown.add(events.subscribe(event => shared.tell(event)))
  teardown.add(() => shared.stop())
  transport.onConnection((peer, connected) => {
    if (connected) shared.connected(peer)
  })
  const exchange = new OverviewExchange({
    bus,
    clock,
    wallMs,
    answer: question => reads.answer(question),
    onFollow: (from, message) => shared.onFollow(from, message),
    onEvents: (from, message) => shared.onEvents(from, message)
  })
  const { restore, epochs } = deps.config
  const reads = new ReadModelOperations({ ...deps, togetherMs: restore.togetherMs, epochs, exchange, shared })
  return reads
}
