import { describe, expect, it } from 'vitest'
import { tracesSchema } from '../../config/traces.ts'
import { Traces } from '../../node/agents/traces.ts'
import { codeOf } from '../../node/couriers/otlp.ts'
import { DiapauseError } from '../../node/errors.ts'
import { Tracing } from '../../node/planning/tracing.ts'
import type { Span } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'
import { JumpingClock } from './jumping-clock.ts'
import { memoryLog } from './store-support.ts'

const record = (over: Partial<GroupRecord> = {}): GroupRecord =>
  aGroup({
    id: 'shop',
    generation: 3,
    vms: [aVm('web'), aVm('db')],
    owners: { web: 'A', db: 'B' },
    lastEpoch: 8,
    committed: { epoch: 7, generation: 3, previousEpoch: 6, images: {} },
    ...over
  })

function peer(self: string, ratio = 1): Tracing {
  const tracing = new Tracing({ self, cluster: 'cluster-id', ratio })
  tracing.onRecord(record(), 0)
  return tracing
}

/** An epoch as its two hosts see it. */
function epochAt(tracing: Tracing, vm: string, epoch = 8): Span[] {
  const about = { group: 'shop', epoch }
  return [
    ...tracing.onEvent('epoch.opened', about, 1_000),
    ...tracing.onEvent('cut', { ...about, vm, cutAtMs: 1_100, pauseMs: 12 }, 1_115),
    ...tracing.onEvent('epoch.durable', { ...about, vm, stats: { bytesStored: 9, pagesChanged: 2 } }, 1_400),
    ...tracing.onEvent('epoch.committed', about, 1_500)
  ]
}

describe('the trace of an epoch', () => {
  it('is one although its peers tell each other nothing of it, and its whole is told once', () => {
    const [first, second] = [epochAt(peer('A'), 'web'), epochAt(peer('B'), 'db')]
    const all = [...first, ...second]
    expect(new Set(all.map(({ traceId }) => traceId)).size).toBe(1)
    expect(new Set(all.map(({ spanId }) => spanId)).size).toBe(all.length)
    expect(first.map(({ name }) => name)).toEqual(['prepare', 'cut', 'upload', 'commit', 'epoch'])
    expect(second.map(({ name }) => name)).toEqual(['prepare', 'cut', 'upload'])
    const whole = first.find(({ name }) => name === 'epoch')
    expect(whole).toMatchObject({ startMs: 1_000, endMs: 1_500, attributes: { group: 'shop', epoch: 8, vms: 2 } })
    for (const span of all) if (span !== whole) expect(span.parentSpanId).toBe(whole?.spanId)
    const upload = second.at(-1)
    expect(upload).toMatchObject({ startMs: 1_112, endMs: 1_400, attributes: { 'image.bytes': 9, vm: 'db' } })
    expect(whole?.traceId).toMatch(/^[0-9a-f]{32}$/)
    expect(whole?.spanId).toMatch(/^[0-9a-f]{16}$/)
  })

  it('says why it failed', () => {
    const tracing = peer('A')
    tracing.onEvent('epoch.opened', { group: 'shop', epoch: 8 }, 1_000)
    const spans = tracing.onEvent('epoch.aborted', { group: 'shop', epoch: 8, reason: 'its deadline passed' }, 2_000)
    expect(spans).toMatchObject([{ name: 'epoch', error: 'its deadline passed' }])
  })

  it('is another one for another epoch and another cluster', () => {
    const ids = [
      epochAt(peer('A'), 'web')[0],
      epochAt(peer('A'), 'web', 9)[0],
      epochAt(new Tracing({ self: 'A', cluster: 'other', ratio: 1 }), 'web')[0]
    ].map(span => span?.traceId)
    expect(new Set(ids).size).toBe(3)
  })

  it('is told by all peers or none, where not all are', () => {
    const told = Array.from({ length: 400 }, (_, epoch) => {
      const both = [epochAt(peer('A', 0.25), 'web', epoch + 1), epochAt(peer('B', 0.25), 'db', epoch + 1)]
      const [first = false, second = false] = both.map(spans => spans.length > 0)
      expect(first).toBe(second)
      return first
    })
    const share = told.filter(Boolean).length / told.length
    expect(share).toBeGreaterThan(0.15)
    expect(share).toBeLessThan(0.35)
    expect(epochAt(peer('A', 0), 'web')).toEqual([])
  })
})

describe('the trace of a restore', () => {
  it('begins when the host that was lost was held for dead, and ends when the first VM runs', () => {
    const tracing = peer('B')
    tracing.onEvent('liveness', { peer: 'A', liveness: 'dead' }, 5_000)
    tracing.onRecord(record({ generation: 4, owners: { web: 'B', db: 'B' } }), 5_300)
    const about = { group: 'shop', generation: 4 }
    const spans = [
      ...tracing.onEvent('takeover.decided', about, 5_310),
      ...tracing.onEvent('vm.resumed', { ...about, vm: 'web', epoch: 7, from: 'standby' }, 6_000),
      ...tracing.onEvent('vm.complete', { ...about, vm: 'web' }, 7_000)
    ]
    expect(spans.map(({ name, startMs, endMs }) => [name, startMs, endMs])).toEqual([
      ['decide', 5_000, 5_310],
      ['start', 5_300, 6_000],
      ['restore', 5_000, 6_000],
      ['fetch', 6_000, 7_000]
    ])
    expect(new Set(spans.map(({ traceId }) => traceId)).size).toBe(1)
    expect(spans[1]?.attributes).toMatchObject({ source: 'standby', epoch: 7 })
  })

  it('has nothing of a generation that is over', () => {
    const tracing = peer('B')
    tracing.onRecord(record({ generation: 4 }), 5_300)
    expect(tracing.onEvent('vm.resumed', { group: 'shop', generation: 3, vm: 'web' }, 6_000)).toEqual([])
  })
})

describe('spans on their way out', () => {
  it('are kept, within bounds, while the collector is away', async () => {
    const clock = new JumpingClock()
    const sent: Span[] = []
    let away = true
    const sink = {
      send: (spans: readonly Span[]) => {
        if (away) return Promise.reject(new Error('away'))
        sent.push(...spans)
        return Promise.resolve()
      }
    }
    const log = memoryLog()
    const traces = new Traces({ sink, clock, log })
    const [span] = epochAt(peer('A'), 'web')
    if (span === undefined) throw new Error('no span')
    for (let i = 0; i < 10_000; i++) traces.add([{ ...span, startMs: i }])
    await clock.until(clock.nowMs + 60_000)
    expect(log.lines.filter(({ level }) => level === 'warn')).toHaveLength(1)
    away = false
    await clock.until(clock.nowMs + 120_000)
    expect(sent.map(({ startMs }) => startMs)).toEqual(Array.from({ length: 8_192 }, (_, i) => i + 1_808))
  })
})

describe('spans that a collector does not take', () => {
  /** `take` says what it answers to a message of so many spans from `first` on. */
  const world = (take: (first: number, count: number) => number) => {
    const clock = new JumpingClock()
    const taken: number[] = []
    const tried: number[] = []
    const send = async (spans: readonly Span[]): Promise<void> => {
      tried.push(spans.length)
      const status = take(spans[0]?.startMs ?? 0, spans.length)
      if (status !== 200) throw new DiapauseError(codeOf(status), `answered ${status}`)
      taken.push(...spans.map(({ startMs }) => startMs))
    }
    const log = memoryLog()
    const traces = new Traces({ sink: { send }, clock, log })
    const [span] = epochAt(peer('A'), 'web')
    if (span === undefined) throw new Error('no span')
    traces.add(Array.from({ length: 1_024 }, (_, startMs) => ({ ...span, startMs })))
    return { clock, taken, tried, lines: log.lines }
  }

  it('are let go where it refuses them, and counted, so that later ones pass', async () => {
    const { clock, taken, lines } = world(first => (first === 0 ? 400 : 200))
    await clock.until(clock.nowMs + 60_000)
    expect([taken.length, taken[0]]).toEqual([512, 512])
    expect(lines).toMatchObject([{ level: 'warn' }, { level: 'info', fields: { lost: 512 } }])
  })

  it('are told in halves where they are too many, and only what is too large alone is let go', async () => {
    const { clock, taken, tried, lines } = world((first, count) => (count > 100 || first === 0 ? 413 : 200))
    await clock.until(clock.nowMs + 600_000)
    expect(tried.slice(0, 4)).toEqual([512, 256, 128, 64])
    expect(taken).toEqual(Array.from({ length: 1_023 }, (_, at) => at + 1))
    expect(lines.find(({ level }) => level === 'info')).toMatchObject({ fields: { lost: 1 } })
  })

  it('are tried again where it has no time for them', () => {
    expect([408, 429, 500, 503, 302].map(codeOf)).toEqual(Array.from({ length: 5 }, () => 'TRACES_FAILED'))
    expect([400, 401, 404, 422].map(codeOf)).toEqual(Array.from({ length: 4 }, () => 'TRACES_REFUSED'))
  })
})

describe('the config of traces', () => {
  it('has the address of a collector', () => {
    const isEndpoint = (endpoint: string): boolean => tracesSchema.safeParse({ endpoint }).success
    expect(['http://localhost:4318/v1/traces', 'http://[::1]:4318/v1/traces'].filter(isEndpoint)).toHaveLength(2)
    expect(['ftp://x', 'http://[x/', 'http://a:99999/', 'collector:4318'].filter(isEndpoint)).toEqual([])
  })
})
