import { describe, expect, it } from 'vitest'
import { judge, type Observed, type TracedFrame } from '../bench/failover-judge.ts'
import type { KnownEvent } from '../demo/events.ts'

const FAULT = 100_000
const OWNER = { name: 'p1', id: 'id-1', vms: ['vm1'] }

const frame = (
  atMs: number,
  peer: string,
  what: TracedFrame['what'],
  generation: number,
  other = 'id-9'
): TracedFrame => ({
  atMs: FAULT + atMs,
  peer,
  other,
  what,
  generation
})

const connection = (...sent: readonly (readonly [number, number])[]) => ({
  from: '10.77.0.1',
  to: '10.77.0.2',
  port: 5000,
  openedMs: 1_000,
  sent: sent.map(([atMs, bytes]) => ({ atMs: FAULT + atMs, bytes }))
})

/** p1 loses vm1 to p3, in generation 8; nothing is wrong. */
function sound(change: Partial<Observed> = {}): Observed {
  const told = (by: string, atMs: number, event: Record<string, unknown>) => ({
    by,
    event: { group: 'bank', atMs: FAULT + atMs, ...event } as unknown as KnownEvent
  })
  const about = (vm: string) => ({ vm, epoch: 4, generation: 8 })
  return {
    number: 3,
    fault: 'partition',
    owner: OWNER,
    vms: ['vm1', 'vm2'],
    generation: 7,
    faultMs: FAULT,
    endedMs: FAULT + 4_000,
    healthyMs: FAULT + 4_500,
    movingMs: FAULT + 2_900,
    stallMs: 1_234,
    tcp: [
      { vm: 'vm1', timeouts: 3, duplicates: 5 },
      { vm: 'vm2', timeouts: 2, duplicates: 1 }
    ],
    complaints: [],
    staleVms: [],
    events: [
      told('p1', -5, { kind: 'takeover.decided', epoch: 3, generation: 7, owners: {}, lost: [] }),
      told('p2', 300, { kind: 'liveness', peer: 'id-1', liveness: 'suspect', why: '' }),
      told('p1', 310, { kind: 'liveness', peer: 'id-2', liveness: 'dead', why: '' }),
      told('p1', 800, { kind: 'lease.lapsed', key: 'group/bank', generation: 7 }),
      told('p3', 1_000, { kind: 'liveness', peer: 'id-1', liveness: 'dead', why: '' }),
      told('p2', 1_100, { kind: 'takeover.decided', epoch: 4, generation: 8, owners: {}, lost: ['vm1'] }),
      told('p3', 1_110, { kind: 'takeover.decided', epoch: 4, generation: 8, owners: {}, lost: ['vm1'] }),
      told('p3', 2_000, { kind: 'vm.resumed', ...about('vm1') }),
      told('p2', 2_200, { kind: 'vm.resumed', ...about('vm2') }),
      told('p3', 2_500, { kind: 'vm.complete', ...about('vm1'), pagesFaulted: 1, pagesPushed: 2 }),
      told('p2', 2_600, { kind: 'vm.complete', ...about('vm2'), pagesFaulted: 1, pagesPushed: 2 })
    ],
    frames: [
      frame(-10, 'p1', 'sent', 7),
      frame(-9, 'p2', 'accepted', 7),
      frame(1_150, 'p2', 'sent', 7), // a survivor that has not heard yet
      frame(2_010, 'p3', 'sent', 8),
      frame(2_011, 'p2', 'accepted', 8),
      frame(4_100, 'p2', 'refused', 7)
    ],
    wire: [{ to: 'p2', connection: connection([-10, 200], [4_010, 30]) }],
    ...change
  }
}

describe('a round that is judged', () => {
  it('has its times since the fault: the first to notice and decide, the last to run', () => {
    expect(judge(sound())).toMatchObject({
      violations: [],
      suspectedMs: 300,
      detectedMs: 1_000,
      decidedMs: 1_100,
      firstResumedMs: 2_000,
      resumedMs: 2_200,
      completeMs: 2_600,
      lapsedMs: 800,
      endedMs: 4_000,
      healthyMs: 4_500,
      generation: 8,
      epoch: 4,
      frames: { lastOldSentMs: -10, lastOldAcceptedMs: -9, firstNewMs: 2_010, silenceMs: 2_019, oldRefused: 1 },
      wire: { connections: 1, lastMs: -10, bytesAfter: 0, smallBytesAfter: 30 }
    })
  })

  it('holds a timeout for one of a lost frame where nobody says that it had what came again', () => {
    expect(judge(sound())).toMatchObject({ timeouts: 5, timeoutsOfLost: 1 })
  })

  it('counts times from the newest generation, where a first takeover failed', () => {
    const { events } = sound()
    const next = (of: KnownEvent['kind'], ms: number) =>
      events
        .filter(({ event }) => event.kind === of && event.atMs > FAULT)
        .map(({ by, event }) => ({ by, event: { ...event, generation: 9, atMs: event.atMs + ms } as KnownEvent }))
    const late = [...next('takeover.decided', 5_000), ...next('vm.resumed', 5_000)]
    const round = judge(sound({ events: [...events, ...late] }))
    expect(round).toMatchObject({ generation: 9, decidedMs: 1_100, resumedMs: 7_200, completeMs: null })
  })

  it('is violated by an old owner that speaks after its successor, by its own word or by what leaves its host', () => {
    const { frames } = sound()
    expect(judge(sound({ frames: [...frames, frame(4_005, 'p1', 'sent', 7)] })).violations).toEqual([
      'the old owner sent 1 frames after its successor had spoken'
    ])
    const wire = [{ to: 'p2', connection: connection([-10, 200], [4_005, 150]) }]
    expect(judge(sound({ wire })).violations).toEqual([
      "150 bytes left the old owner's host on connections for frames after its successor had spoken"
    ])
  })

  it('is violated by what the old owner sends when it goes on, though all refuse it; a network may bring it late', () => {
    const { frames } = sound()
    const late = [...frames, frame(4_200, 'p2', 'refused', 7, OWNER.id)]
    const of = (fault: Observed['fault']) => judge(sound({ fault, frames: late })).violations
    expect(of('stop')).toEqual(['1 frames of the old owner came, and were refused, after its successor had spoken'])
    expect(of('partition')).toEqual([])
  })

  it('lets the old owner speak again where the group has come back to it', () => {
    const { frames } = sound()
    const wire = [{ to: 'p2', connection: connection([-10, 200], [8_000, 150]) }]
    expect(judge(sound({ wire, frames: [...frames, frame(7_999, 'p1', 'sent', 9)] })).violations).toEqual([])
    expect(judge(sound({ wire, frames: [...frames, frame(8_001, 'p1', 'sent', 9)] })).violations).toHaveLength(1)
  })

  it('is violated by a frame of the old generation that anybody takes after the first of the new one', () => {
    const { frames } = sound()
    expect(judge(sound({ frames: [...frames, frame(2_010.5, 'p2', 'accepted', 7)] })).violations).toEqual([
      '1 frames of the old generation were accepted after the first of the new one'
    ])
    expect(judge(sound({ frames: [...frames, frame(2_010.5, 'p1', 'waits', 7)] })).violations).toEqual([])
  })

  it('is violated where nothing could be seen, which is not the same as silence', () => {
    expect(judge(sound({ frames: [] })).violations).toEqual([
      'no frame of the new generation was traced',
      'no frame of the old generation was traced'
    ])
    expect(judge(sound({ wire: [{ to: 'p2', connection: undefined }] })).violations).toEqual([
      'the connections for frames to p2 could not be told on the wire'
    ])
  })

  it('is violated by an owner that was cut off and saw its lease end only after the takeover', () => {
    const events = sound().events.filter(({ event }) => event.kind !== 'lease.lapsed')
    const complaint = 'the old owner did not see its lease end before the takeover was decided'
    expect(judge(sound({ events })).violations).toEqual([complaint])
    // A process that stood still says so when it goes on, and a killed one never.
    expect(judge(sound({ events, fault: 'stop' })).violations).toEqual([])
  })

  it('is violated by what the workload complains of, a VM that runs on, and one that never came back', () => {
    const events = sound().events.filter(({ event }) => event.kind !== 'vm.resumed' || event.vm === 'vm1')
    expect(judge(sound({ events, staleVms: ['process 9'], complaints: ['vm2 has booted again'] })).violations).toEqual([
      'not every VM was resumed in the new generation',
      'the old owner still runs process 9',
      'vm2 has booted again'
    ])
  })
})
