/**
 * Storms: a fault every two or three seconds, all of one kind, so that the next comes before the cluster is done with the one
 * before; then the time in which everything has to come back. They are what makes thousands of faults in hours. Pure.
 */
import type { Fault } from './fault.ts'
import { FAULTS } from './faults/list.ts'
import type { Draw, Scenario, Step, Turn } from './scenario.ts'

type Planned = Omit<Step, 'seed'>

interface Storm {
  readonly name: string
  readonly about: string
  /** One that is named twice comes twice as often. */
  readonly faults: readonly string[]
  /** Faults of a round. */
  readonly count: number
  /** Between two that begin. The longest is time enough for a failover (1.5 s and what detection takes). */
  readonly gapMs: readonly [number, number]
  readonly lastsMs: readonly [number, number]
}

const storm = ({ name, about, faults, count, gapMs, lastsMs }: Storm): Scenario => ({
  name,
  about,
  faults: [...new Set(faults)],
  rounds: 3,
  round(draw: Draw, { hosts }: Turn): readonly Planned[] {
    const steps: Planned[] = []
    let left: number[] = []
    for (let atMs = 0; steps.length < count; atMs += draw.between(...gapMs)) {
      // Each host once before any comes again: one that was just hit has nothing to lose yet.
      if (left.length === 0) left = Array.from({ length: hosts }, (_, i) => i)
      const [host = 0] = left.splice(draw.between(0, left.length - 1), 1)
      const fault = FAULTS.get(draw.pick(faults)) as Fault
      const lasts = Math.min(fault.lasts.mostMs, draw.between(...lastsMs))
      const step = { atMs, fault: fault.name, host, lastsMs: lasts }
      if (fault.links === true || steps.every(other => apart(step, other))) steps.push(step)
    }
    return steps
  }
})

/** What has no power cannot lose it. */
const apart = (one: Planned, other: Planned): boolean =>
  one.host !== other.host || other.atMs + other.lastsMs < one.atMs

export const STORMS: readonly Scenario[] = [
  storm({
    name: 'kill-storm',
    about: 'peers, VMs and hosts are killed, one after the other',
    faults: ['kill-host', 'kill-host', 'kill-peer', 'kill-qemu'],
    count: 24,
    gapMs: [500, 4_500],
    lastsMs: [200, 2_000]
  }),
  storm({
    name: 'power-storm',
    about: 'hosts lose their power one after the other, some while others have none',
    faults: ['power-loss'],
    count: 12,
    gapMs: [500, 5_000],
    lastsMs: [200, 4_000]
  }),
  storm({
    name: 'partition-storm',
    about: 'the network falls apart in another way every second',
    faults: ['cut-off', 'mute', 'deaf', 'partition', 'bridge'],
    count: 16,
    gapMs: [200, 3_000],
    lastsMs: [200, 4_000]
  })
]
