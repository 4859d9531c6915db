import { describe, expect, test } from 'vitest'
import { SETTINGS, SwimWorld } from '../sim/swim-world.ts'

const SEEDS = Array.from({ length: 30 }, (_, i) => i + 1)

const deaths = (world: SwimWorld) => world.observed.filter(seen => seen.liveness === 'dead')

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number
}

describe('failure detection by seed', () => {
  test('nothing is said about members that are well (SWIM 3.1)', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.run(20_000)
      expect({ seed, observed: world.observed }).toEqual({ seed, observed: [] })
    }
  })

  test('a killed process is suspected within 100 ms and declared dead within a second, everywhere', () => {
    const times: number[] = []
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.run(8_000)
      world.kill('n2', true)
      world.run(8_100)
      for (const at of ['n0', 'n1', 'n3', 'n4'])
        expect({ seed, at, is: world.livenessAt(at, 'n2') }).toMatchObject({ is: 'suspect' })
      world.run(9_000)
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
      for (const death of deaths(world)) times.push(death.atMs - 8_000)
    }
    expect(median(times)).toBeLessThan(500)
  })

  test('a host that vanishes without a word is found by probing, within two rounds of it (SWIM 4.3)', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.run(8_000)
      world.kill('n2', false)
      const twoRoundsMs = 2 * 4 * SETTINGS.periodMs * 2
      world.run(8_000 + twoRoundsMs + 2.5 * SETTINGS.suspicionMaxMs)
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
    }
  })

  test('10 % loss: nobody well is dead for longer than a refutation takes, and a crash is still found', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.loss = 0.1
      world.run(60_000)
      const falseDeaths = deaths(world).length
      for (const dead of deaths(world)) {
        const back = world.observed.find(
          s => s.by === dead.by && s.peer === dead.peer && s.liveness === 'alive' && s.atMs > dead.atMs
        )
        expect({ seed, dead, tookMs: (back?.atMs ?? Infinity) - dead.atMs }).toSatisfy(
          (x: { tookMs: number }) => x.tookMs < 3_000
        )
      }
      expect(falseDeaths).toBeLessThan(3)
      world.kill('n1', false)
      world.run(70_000)
      for (const at of ['n0', 'n2', 'n3', 'n4'])
        expect({ seed, at, is: world.livenessAt(at, 'n1') }).toMatchObject({ is: 'dead' })
    }
  })

  test('after a partition has healed all views agree (SWIM 4.2: refutation by incarnation)', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 7)
      world.run(8_000)
      const minority = new Set(['n0', 'n1'])
      world.reachable = (from, to) => minority.has(from) === minority.has(to)
      world.run(18_000)
      expect(world.livenessAt('n5', 'n0')).toBe('dead')
      expect(world.livenessAt('n0', 'n5')).toBe('dead')
      expect(world.livenessAt('n5', 'n6')).toBe('alive')
      world.reachable = () => true
      world.run(32_000)
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
    }
  })

  test('one broken path between two members accuses neither (SWIM 3.1: indirect probes)', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.reachable = (from, to) => !(from + to === 'n0n1' || from + to === 'n1n0')
      world.run(30_000)
      expect({ seed, deaths: deaths(world) }).toMatchObject({ deaths: [] })
    }
  })

  test('a process that is stopped for ten seconds accuses nobody on waking, and is alive to all soon after', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.run(8_000)
      world.pause('n3', 10_000)
      world.run(17_900)
      for (const at of ['n0', 'n1', 'n2', 'n4']) expect(world.livenessAt(at, 'n3')).toBe('dead')
      world.run(25_000)
      expect({ seed, accused: world.observed.filter(seen => seen.by === 'n3' && seen.peer !== 'n3') }).toMatchObject({
        accused: []
      })
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
    }
  })

  test('a starved member blames itself and not the others (Lifeguard: local health)', () => {
    let blamed = 0
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 10)
      world.run(2_000)
      let worst = 0
      for (let atMs = 2_000; atMs < 22_000; atMs += 260) {
        world.at(atMs, () => world.pause('n0', 200))
        world.at(atMs + 201, () => {
          worst = Math.max(worst, world.node('n0').core.localHealth)
        })
      }
      world.run(22_000)
      expect(worst).toBeGreaterThan(0)
      blamed += deaths(world).filter(seen => seen.peer !== 'n0').length
      world.run(40_000)
      expect({ seed, agreed: world.agreed(), health: world.node('n0').core.localHealth }).toMatchObject({
        agreed: true,
        health: 0
      })
    }
    expect(blamed).toBe(0)
  })

  test('a member that is killed and started again is alive with a higher incarnation', () => {
    for (const seed of SEEDS) {
      const world = new SwimWorld(seed, 5)
      world.run(3_000)
      world.kill('n4', true)
      world.run(6_000)
      expect(world.livenessAt('n0', 'n4')).toBe('dead')
      world.restart('n4', true)
      world.run(7_000)
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
      expect(world.node('n0').core.view.get('n4')?.incarnation).toBeGreaterThan(0)
    }
  })

  test('messages per member and period do not depend on the size of the cluster', () => {
    const cost = (count: number): number => {
      const world = new SwimWorld(7, count)
      world.run(10_000)
      const sent = world.nodes.reduce((sum, node) => sum + node.sent, 0)
      return sent / count / (10_000 / SETTINGS.periodMs)
    }
    const costs = [5, 50, 200].map(cost)
    for (const messages of costs) expect(messages).toBeCloseTo(2, 0)
    expect(Math.max(...costs) / Math.min(...costs)).toBeLessThan(1.05)
  })

  test('200 members learn of a crash within two seconds', () => {
    const world = new SwimWorld(3, 200)
    world.run(2_000)
    world.kill('n77', true)
    world.run(4_000)
    expect(world.agreed()).toBe(true)
  })

  test('the same seed gives the same run', () => {
    const runOf = (seed: number): string => {
      const world = new SwimWorld(seed, 6)
      world.loss = 0.3
      world.run(20_000)
      return JSON.stringify(world.observed)
    }
    expect(runOf(5)).toBe(runOf(5))
    expect(runOf(5)).not.toBe(runOf(6))
  })
})
