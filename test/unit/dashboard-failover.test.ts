import { describe, expect, it } from 'vitest'
import type { ClusterEvent } from '../../node/edge/cluster-events-view.ts'
import { lineCutter, serverSentReader } from '../../node/dashboard/live/lines.ts'
import { failoversOf, isRunning, troublesOf } from '../../node/dashboard/model/failover.ts'
import { keptOf, MAX_ROUTINE } from '../../node/dashboard/model/kept.ts'
import { happeningOf } from '../../node/dashboard/model/happening.ts'

let count = 0
const at = (atMs: number, kind: string, fields: Readonly<Record<string, unknown>>, by = 'b'): ClusterEvent => ({
  id: `${(count += 1)}`,
  by,
  name: by,
  atMs,
  kind,
  event: { ...fields, atMs, kind }
})

const about = { group: 'bank', generation: 2 }
const loss = [
  at(1_000, 'liveness', { peer: 'a', liveness: 'suspect', why: 'no ack' }),
  at(1_050, 'liveness', { peer: 'a', liveness: 'suspect', why: 'no ack' }, 'c'),
  at(1_700, 'liveness', { peer: 'a', liveness: 'dead', why: 'not refuted' }, 'c')
]
const decided = at(1_760, 'takeover.decided', { ...about, epoch: 7, owners: { x: 'b', y: 'c' }, lost: ['x'] })

describe('a failover, out of the events of all peers', () => {
  it('begins with the first suspicion of anybody and waits for a decision', () => {
    expect(failoversOf(loss)).toEqual([])
    expect(troublesOf(loss)).toEqual([{ peer: 'a', suspectedMs: 1_000, deadMs: 1_700 }])
  })

  it('runs from its decision until every VM of the group runs again, and is whole when all pages have come', () => {
    const some = [...loss, decided, at(2_100, 'vm.resumed', { ...about, vm: 'y', epoch: 7 }, 'c')]
    const [running] = failoversOf(some)
    expect(running).toMatchObject({ hosts: ['a'], suspectedMs: 1_000, deadMs: 1_700, decidedMs: 1_760, epoch: 7 })
    expect(running?.vms.find(({ vm }) => vm === 'x')).toMatchObject({ to: 'b', lost: true, resumedMs: undefined })
    expect(running && isRunning(running)).toBe(true)
    const all = [...some, at(2_400, 'vm.resumed', { ...about, vm: 'x', epoch: 7 })]
    const [back] = failoversOf(all)
    expect(back).toMatchObject({ backMs: 2_400, wholeMs: undefined })
    expect(back && isRunning(back)).toBe(false)
    const whole = [
      ...all,
      at(2_900, 'vm.complete', { ...about, vm: 'x' }),
      at(2_800, 'vm.complete', { ...about, vm: 'y' })
    ]
    expect(failoversOf(whole)[0]).toMatchObject({ wholeMs: 2_900 })
  })

  it('counts once what several peers tell', () => {
    const again = at(1_790, 'takeover.decided', { ...about, epoch: 7, owners: { x: 'b', y: 'c' }, lost: ['x'] }, 'c')
    expect(failoversOf([...loss, decided, again])).toHaveLength(1)
  })

  it('is over when a newer generation takes its place', () => {
    const next = at(3_000, 'takeover.decided', { group: 'bank', generation: 3, epoch: 7, owners: { x: 'c' }, lost: [] })
    const [second, first] = failoversOf([...loss, decided, next])
    expect(second?.overtaken).toBe(false)
    expect(first && isRunning(first)).toBe(false)
  })

  it('is forgiven a member that is heard of again', () => {
    const alive = at(1_800, 'liveness', { peer: 'a', liveness: 'alive', why: 'refuted' })
    expect(troublesOf([...loss, alive])).toEqual([])
  })
})

describe('an event as a sentence', () => {
  it('names members, VMs and times', () => {
    const names = (id: string): string => id.toUpperCase()
    expect(happeningOf(decided, names)).toMatchObject({
      tone: 'bad',
      text: 'decided that bank goes back to epoch 7: x to B'
    })
  })

  it('shows what it does not know with all of its fields', () => {
    expect(happeningOf(at(1, 'moon.rose', { over: 'lake', at: [1, 2] }), String).text).toBe(
      'moon.rose · over lake · at [1,2]'
    )
  })
})

describe('a stream that comes in parts', () => {
  it('gives whole lines only', () => {
    const cut = lineCutter()
    expect([cut('a\nb'), cut('c\r\n'), cut('')]).toEqual([['a'], ['bc'], []])
  })

  it('gives server-sent events with their ids, and nothing for what keeps it alive', () => {
    const next = serverSentReader()
    const lines = [':', '', 'id: 7', 'data: {"a":', 'data: 1}', '', 'data:x', '']
    expect(lines.flatMap(line => next(line) ?? [])).toEqual([
      { id: '7', data: '{"a":\n1}' },
      { id: '7', data: 'x' }
    ])
  })
})

describe('the events that the page keeps', () => {
  it('hold a failover however many cuts came after it, and the newest of those', () => {
    const cuts = Array.from({ length: MAX_ROUTINE + 50 }, (_, i) => at(5_000 + i, 'cut', { group: 'bank', vm: 'x' }))
    const kept = keptOf([...loss, decided, ...cuts])
    expect(kept.slice(0, 4)).toEqual([...loss, decided])
    expect(kept.slice(4)).toEqual(cuts.slice(50))
  })
})
