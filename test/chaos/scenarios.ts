/** The scenarios: every fault alone, by its name; some that are known to be hard together; and a random mix of all. Pure. */
import type { Fault } from './fault.ts'
import { FAULTS } from './faults/list.ts'
import type { Draw, Scenario, Step, Turn } from './scenario.ts'
import { STORMS } from './storms.ts'

/** A fault of a scenario of few rounds lasts no longer: longer ones are for the random mix, which has the time. */
const SHORT_MS = 12_000
/** Epochs are taken all the time: somewhere in this time a fault falls before, into and after one. */
const SPREAD_MS = 3_000

type Planned = Omit<Step, 'seed'>

const known = (name: string): Fault => {
  const fault = FAULTS.get(name)
  if (fault === undefined) throw new TypeError(`there is no fault ${name}`)
  return fault
}

/** Host after host, beginning anywhere. */
const inTurn = (draw: Draw, { number, hosts }: Turn): number => (number + draw.between(0, hosts - 1)) % hosts

/** Each takes minutes: every peer is restarted twice. */
const LONG: readonly string[] = ['upgrade-roll']

const alone = (fault: Fault): Scenario => ({
  name: fault.name,
  about: fault.about,
  faults: [fault.name],
  rounds: LONG.includes(fault.name) ? 1 : 3,
  round: (draw, turn) => [
    {
      atMs: draw.between(0, SPREAD_MS),
      fault: fault.name,
      host: inTurn(draw, turn),
      lastsMs: draw.lasts(fault, SHORT_MS)
    }
  ]
})

const twoInTurn: Scenario = {
  name: 'two-in-turn',
  about: 'a second host dies while the group is restored after the first',
  faults: ['kill-host'],
  rounds: 3,
  round(draw, turn) {
    const host = inTurn(draw, turn)
    const firstMs = draw.between(0, SPREAD_MS)
    const secondMs = firstMs + draw.between(500, 4_000)
    return [
      { atMs: firstMs, fault: 'kill-host', host, lastsMs: draw.between(5_000, 10_000) },
      { atMs: secondMs, fault: 'kill-host', host: (host + 1) % turn.hosts, lastsMs: draw.between(1_000, 5_000) }
    ]
  }
}

/** Longer than a lease, shorter than it takes to be declared dead, or a little longer: what comes back is of any age. */
const flapping: Scenario = {
  name: 'flapping',
  about: 'a host is cut off again and again for a moment',
  faults: ['cut-off'],
  rounds: 3,
  round(draw, turn) {
    const host = inTurn(draw, turn)
    const steps: Planned[] = []
    for (let atMs = 0; steps.length < 6; ) {
      const lastsMs = draw.between(200, 2_500)
      steps.push({ atMs, fault: 'cut-off', host, lastsMs })
      atMs += lastsMs + draw.between(100, 2_000)
    }
    return steps
  }
}

/** Each wakes up with a lease that is long over, into a network where its words would be heard. */
const pausedInTurn: Scenario = {
  name: 'paused-in-turn',
  about: 'peers stand still one after the other, the next when the one before goes on',
  faults: ['stop-peer'],
  rounds: 3,
  round(draw, { hosts }) {
    const first = draw.between(0, hosts - 1)
    let atMs = 0
    return Array.from({ length: hosts }, (_, i) => {
      const lastsMs = draw.between(1_500, 6_000)
      const step = { atMs, fault: 'stop-peer', host: (first + i) % hosts, lastsMs }
      atMs += lastsMs + draw.between(0, 1_000)
      return step
    })
  }
}

const killInPartition: Scenario = {
  name: 'kill-in-partition',
  about: 'hosts are killed on one side of a partition',
  faults: ['partition', 'kill-host'],
  rounds: 3,
  round(draw, turn) {
    const host = inTurn(draw, turn)
    return [
      { atMs: 0, fault: 'partition', host, lastsMs: draw.between(6_000, 12_000) },
      {
        atMs: draw.between(500, 5_000),
        fault: 'kill-host',
        host: draw.between(0, turn.hosts - 1),
        lastsMs: draw.between(1_000, 8_000)
      }
    ]
  }
}

/** Faults of the random mix, each as long as it may be. */
const MOST = 3
const MIX_SPREAD_MS = 10_000

export const random: Scenario = {
  name: 'random',
  about: 'one to three faults at a time, of all kinds',
  faults: [...FAULTS.keys()],
  rounds: 5,
  round(draw, turn) {
    const steps: Planned[] = []
    const count = draw.between(1, MOST)
    // Many draws find no place beside those that are there: a round has fewer then.
    for (let tries = 0; steps.length < count && tries < 10 * MOST; tries++) {
      const fault = draw.pick([...FAULTS.values()])
      const step = {
        atMs: draw.between(0, MIX_SPREAD_MS),
        fault: fault.name,
        host: draw.between(0, turn.hosts - 1),
        lastsMs: draw.lasts(fault, Number.POSITIVE_INFINITY)
      }
      if (steps.every(other => goesWith(step, other))) steps.push(step)
    }
    return steps
  }
}

/**
 * At one host one thing happens at a time, and nothing else while several are hit, so that each can be undone without the
 * other; links break whatever else there is. What damages stores happens once in a round, which ends with its repair.
 */
function goesWith(one: Planned, other: Planned): boolean {
  const [a, b] = [known(one.fault), known(other.fault)]
  if (a.harms === true && b.harms === true) return false
  const apart = one.atMs + one.lastsMs < other.atMs || other.atMs + other.lastsMs < one.atMs
  if (apart || a.links === true || b.links === true) return true
  return a.reach === 'one' && b.reach === 'one' && one.host !== other.host
}

const together = [twoInTurn, flapping, pausedInTurn, killInPartition]

/** All but the random mix: what `--scenario all` runs. */
export const scenarios = (): Scenario[] => [...[...FAULTS.values()].map(alone), ...together, ...STORMS]

export const SCENARIOS: ReadonlyMap<string, Scenario> = new Map(
  [...scenarios(), random].map(scenario => [scenario.name, scenario])
)
