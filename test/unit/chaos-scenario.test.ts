import { describe, expect, it } from 'vitest'
import { FAULTS } from '../chaos/faults/list.ts'
import { actionsOf, planRound, type Step } from '../chaos/scenario.ts'
import { random, SCENARIOS, scenarios } from '../chaos/scenarios.ts'
import { STORMS } from '../chaos/storms.ts'

const rounds = (seed: number, hosts: number): Step[][] =>
  Array.from({ length: 200 }, (_, number) => planRound(random, seed, { number, hosts }))

describe('the plan of a scenario', () => {
  it('is the same for the same seed, whatever rounds were planned before', () => {
    for (const scenario of SCENARIOS.values()) {
      const turn = { number: 2, hosts: 5 }
      const alone = planRound(scenario, 77, turn)
      planRound(scenario, 77, { number: 0, hosts: 5 })
      expect(planRound(scenario, 77, turn)).toEqual(alone)
      expect(alone.length).toBeGreaterThan(0)
    }
  })

  it('is another for another seed and for another round', () => {
    const texts = [1, 2, 3].flatMap(seed =>
      [0, 1, 2].map(number => JSON.stringify(planRound(random, seed, { number, hosts: 3 })))
    )
    expect(new Set(texts).size).toBe(texts.length)
  })

  it('names faults that there are, on hosts that there are, each as long as it may last', () => {
    for (const scenario of SCENARIOS.values()) {
      for (let number = 0; number < 20; number++) {
        for (const { fault, host, atMs, lastsMs } of planRound(scenario, 5, { number, hosts: 3 })) {
          expect(scenario.faults).toContain(fault)
          expect([0, 1, 2]).toContain(host)
          expect(atMs).toBeGreaterThanOrEqual(0)
          expect(lastsMs).toBeLessThanOrEqual(FAULTS.get(fault)?.lasts.mostMs ?? -1)
        }
      }
    }
  })

  it('hits every host in turn where one fault comes alone', () => {
    for (const scenario of scenarios().filter(({ faults }) => faults.length === 1 && faults[0] !== 'kill-host')) {
      const hit = new Set<number>()
      for (let number = 0; number < 40; number++)
        for (const step of planRound(scenario, 9, { number, hosts: 3 })) hit.add(step.host)
      expect(hit).toEqual(new Set([0, 1, 2]))
    }
  })
})

describe('the random mix', () => {
  it('has every fault sooner or later', () => {
    const names = new Set(rounds(1, 3).flatMap(steps => steps.map(({ fault }) => fault)))
    expect(names).toEqual(new Set(FAULTS.keys()))
  })

  it('does one thing at a time at a host, broken links besides, and nothing else while all are hit', () => {
    for (const steps of [...rounds(3, 3), ...rounds(4, 5)]) {
      for (const [i, a] of steps.entries()) {
        for (const b of steps.slice(i + 1)) {
          const kinds = [a, b].map(({ fault }) => FAULTS.get(fault))
          const overlap = a.atMs <= b.atMs + b.lastsMs && b.atMs <= a.atMs + a.lastsMs
          if (!overlap || kinds.some(kind => kind?.links)) continue
          expect(a.host).not.toBe(b.host)
          expect(kinds.map(kind => kind?.reach)).toEqual(['one', 'one'])
        }
      }
    }
  })

  it('damages what is stored at most once in a round', () => {
    for (const steps of rounds(6, 3))
      expect(steps.filter(({ fault }) => FAULTS.get(fault)?.harms).length).toBeLessThanOrEqual(1)
  })
})

describe('a storm', () => {
  it('has a dozen faults in a round and more, and hits every host', () => {
    for (const storm of STORMS) {
      const rounds = Array.from({ length: 40 }, (_, number) => planRound(storm, 8, { number, hosts: 3 }))
      for (const steps of rounds) expect(steps.length).toBeGreaterThanOrEqual(12)
      expect(new Set(rounds.flat().map(({ host }) => host))).toEqual(new Set([0, 1, 2]))
    }
  })

  it('takes power from no host that has none', () => {
    const power = STORMS.filter(({ faults }) => faults.includes('power-loss'))
    expect(power.length).toBeGreaterThan(0)
    for (const steps of power.flatMap(storm =>
      Array.from({ length: 40 }, (_, number) => planRound(storm, 8, { number, hosts: 3 }))
    ))
      for (const [i, { host, atMs }] of steps.entries())
        for (const before of steps.slice(0, i).filter(other => other.host === host))
          expect(before.atMs + before.lastsMs).toBeLessThan(atMs)
  })
})

describe('the order of a round', () => {
  const step = (fault: string, atMs: number, lastsMs: number): Step => ({ fault, atMs, lastsMs, host: 0, seed: 1 })
  const words = (steps: Step[]) => actionsOf(steps).map(({ step: { fault }, heals }) => (heals ? `-${fault}` : fault))

  it('undoes each fault after its time, and one that lasts no time at once', () => {
    expect(words([step('a', 0, 50), step('b', 10, 0), step('c', 20, 100)])).toEqual(['a', 'b', '-b', 'c', '-a', '-c'])
  })
})
