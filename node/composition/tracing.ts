/** Joins what a peer sees with the traces that it tells of it (`[traces]` of its config). */
import { Traces } from '../agents/traces.ts'
import { otlpSink } from '../couriers/otlp.ts'
import { wallMs } from '../host/clock.ts'
import { programVersion } from '../host/version.ts'
import { Tracing } from '../planning/tracing.ts'
import type { Home } from './home.ts'
import type { Run } from './run.ts'
import type { Voice } from './voice.ts'

export function openTracing({ config, self, clock, log, cluster }: Home, voice: Voice, run: Run): void {
  const { directory, membership } = voice
  const settings = config.traces
  if (settings === undefined) return
  const peer = { name: config.peer.name, id: self, cluster: cluster.name, version: programVersion() }
  const traces = new Traces({ sink: otlpSink(settings, peer), clock, log })
  const tracing = new Tracing({ self, cluster: membership.record().id, ratio: settings.ratio })
  directory.onRecord(record => tracing.onRecord(record, wallMs()))
  directory.onReport(message => {
    if (message.kind === 'durable') tracing.onDurable(message.group, message.epoch, wallMs())
  })
  const unsubscribe = run.events.subscribe(({ kind, atMs, ...fields }) =>
    traces.add(tracing.onEvent(kind, fields, atMs))
  )
  run.teardown.add(() => {
    unsubscribe()
    traces.stop()
  })
}
