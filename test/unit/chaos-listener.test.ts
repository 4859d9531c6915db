import { describe, expect, it } from 'vitest'
import { Listener } from '../chaos/observers.ts'
import { Timeline } from '../chaos/timeline.ts'

const scene = () => {
  const now = { ms: 1_000 }
  const timeline = new Timeline(() => now.ms)
  return { now, timeline, listener: new Listener(timeline, () => now.ms) }
}
const names = new Map([
  ['id-1', 'p1'],
  ['id-2', 'p2']
])
const taken = { generation: 1, previousEpoch: 0, images: {} }
const about = { atMs: 5e12, group: 'bank' } as const
const decided = (owners: Record<string, string>) =>
  ({ by: 'p1', event: { kind: 'takeover.decided', ...about, epoch: 3, generation: 2, owners, lost: [] } }) as const
const resumed = (by: string) =>
  ({ by, event: { kind: 'vm.resumed', ...about, epoch: 3, generation: 2, vm: 'vm1' } }) as const

describe('what peers tell', () => {
  it('is kept by when it came in, and not by clocks of peers', () => {
    const { now, listener } = scene()
    listener.know(names)
    listener.event(decided({ vm1: 'id-2' }))
    now.ms = 4_000
    listener.event(resumed('p2'))
    expect(listener.generations.get(2)).toEqual({ toldMs: 1_000, owners: { vm1: 'h2' } })
    expect(listener.newestGeneration).toBe(2)
    expect(listener.history.disputes('vm1')).toEqual([])
  })

  it('of owners is understood also where it came before anybody knew who is who', () => {
    const { now, listener } = scene()
    listener.event(decided({ vm1: 'id-2' }))
    now.ms = 1_500
    listener.event(resumed('p2'))
    listener.know(names)
    expect(listener.generations.get(2)).toEqual({ toldMs: 1_000, owners: { vm1: 'h2' } })
    expect(listener.history.disputes('vm1')).toEqual([])
  })

  it('is in dispute where another runs a VM than was decided', () => {
    const { listener } = scene()
    listener.event(decided({ vm1: 'id-2' }))
    listener.know(names)
    listener.event(resumed('p1'))
    expect(listener.history.disputes('vm1')).toHaveLength(1)
  })

  it('of epochs is judged each time, and told once', () => {
    const { now, timeline, listener } = scene()
    const ended = (by: string, kind: 'epoch.committed' | 'epoch.aborted', epoch: number) =>
      listener.event({
        by,
        event:
          kind === 'epoch.committed'
            ? { kind, ...about, epoch, commitMs: 1 }
            : { kind, ...about, epoch, reason: 'late' }
      })
    ended('p1', 'epoch.committed', 4)
    ended('p2', 'epoch.committed', 4)
    ended('p2', 'epoch.aborted', 5)
    expect(listener.history.lost()).toEqual([])
    now.ms = 20_000
    listener.event(decided({ vm1: 'id-1' }))
    listener.know(names)
    ended('p1', 'epoch.aborted', 4)
    expect(listener.history.lost()).toEqual([
      'epoch 4 was told to be committed, and to be aborted',
      'generation 2 began from epoch 3, and 4 was committed before'
    ])
    expect(listener.epochs).toBe(1)
    expect(timeline.entries.map(({ text }) => text)).toEqual([
      'epoch 4 committed',
      'epoch 5 aborted: late',
      'generation 2 from epoch 3: vm1 to id-1',
      'epoch 4 aborted: late'
    ])
  })

  it('of a VM is that it goes on from an epoch, or boots', () => {
    const { now, listener } = scene()
    listener.know(names)
    now.ms = 20_000
    listener.event(resumed('p1'))
    expect(listener.history.lost()).toEqual([])
    listener.record({ version: 1, generation: 1, lastEpoch: 3, committed: { epoch: 3, ...taken }, owners: {} })
    now.ms = 40_000
    listener.event({ by: 'p1', event: { kind: 'vm.resumed', ...about, epoch: 2, generation: 3, vm: 'vm1' } })
    listener.event({ by: 'p1', event: { kind: 'vm.started', ...about, generation: 4, vm: 'vm1' } })
    expect(listener.history.lost()).toEqual([
      'generation 3 began from epoch 2, and 3 was committed before',
      'generation 4 began from no epoch, and 3 was committed before'
    ])
  })

  it('is completed by the record, with names of hosts', () => {
    const { listener } = scene()
    listener.know(names)
    listener.record({ version: 9, generation: 3, lastEpoch: 0, committed: null, owners: { vm1: 'id-1' } })
    expect(listener.generations.get(3)).toEqual({ toldMs: undefined, owners: { vm1: 'h1' } })
  })
})
