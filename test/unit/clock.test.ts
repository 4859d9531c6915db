import { afterEach, describe, expect, test, vi } from 'vitest'
import { bootAhead, wallMs } from '../../node/host/clock.ts'
import { SleepClock } from '../../node/host/sleep-clock.ts'

/** A machine whose clocks are moved by hand. Every look at a clock takes `lookMs`. */
class Machine {
  awakeMs = 5_000
  sleptMs = 77_777.7
  setMs = 1e12
  lookMs = 0.003
  looks = 0
  /** What happens in the middle of the next looks at CLOCK_BOOTTIME. */
  readonly disturb: (() => void)[] = []
  readonly monotonicMs = (): number => this.awakeMs
  readonly wallMs = (): number => this.setMs + this.awakeMs + this.sleptMs
  readonly uptimeMs = (): number => {
    this.looks += 1
    this.awakeMs += this.lookMs
    const ms = Math.floor((this.awakeMs + this.sleptMs) / 10) * 10
    this.disturb.shift()?.()
    this.awakeMs += this.lookMs
    return ms
  }
  readonly clock = new SleepClock({
    monotonicMs: this.monotonicMs,
    wallMs: this.wallMs,
    ahead: exact => bootAhead(exact, this)
  })

  get ms(): number {
    return this.awakeMs + this.sleptMs
  }
}

describe('the clock of a machine that sleeps', () => {
  test('has the time slept in the first call after waking, to a fraction of a millisecond', () => {
    const machine = new Machine()
    for (const sleptMs of [60, 10_000, 35.5, 7_200_000]) {
      const [realMs, clockMs] = [machine.ms, machine.clock.now()]
      machine.sleptMs += sleptMs
      const seenMs = machine.clock.now() - clockMs
      expect(Math.abs(machine.ms - realMs - seenMs)).toBeLessThan(0.5)
    }
  })

  test('has it after 100 ms where the wall clock was set back by just that time', () => {
    const machine = new Machine()
    const [realMs, clockMs] = [machine.ms, machine.clock.now()]
    machine.sleptMs += 3_000
    machine.setMs -= 3_000
    machine.awakeMs += 100
    expect(machine.clock.now() - clockMs).toBeGreaterThan(machine.ms - realMs - 0.5)
  })

  test('never runs ahead, whatever interrupts a look, and never goes back', () => {
    const machine = new Machine()
    const beganMs = machine.ms - machine.clock.now()
    const chances = [0.5, 3, 12, 40, 250, 2_000]
    let lastMs = 0
    for (let i = 0; i < 2_000; i++) {
      const ms = chances[i % 6] ?? 0
      machine.disturb.push(
        () => {},
        () => (i % 3 === 0 ? (machine.awakeMs += ms) : (machine.sleptMs += i % 3 === 1 ? ms : 0))
      )
      if (i % 5 === 0) machine.setMs += (i % 2 === 0 ? 1 : -1) * ms
      machine.awakeMs += (i % 11) * 7
      const nowMs = machine.clock.now()
      expect(nowMs).toBeGreaterThanOrEqual(lastMs)
      expect(machine.ms - nowMs).toBeGreaterThanOrEqual(beganMs - 1)
      lastMs = nowMs
    }
    machine.disturb.length = 0
    // One undisturbed sleep later nothing is missing but what came before the first look.
    machine.sleptMs += 50
    expect(machine.ms - machine.clock.now()).toBeLessThan(beganMs + 1)
  })

  test('counts sleeps that are too short to be seen once they come to 10 ms', () => {
    const machine = new Machine()
    const behindMs = machine.ms - machine.clock.now()
    for (let i = 0; i < 1_000; i++) {
      machine.sleptMs += 3
      machine.awakeMs += 1
      expect(machine.ms - machine.clock.now() - behindMs).toBeLessThan(14)
    }
  })

  test('looks at the slow clock only every 100 ms', () => {
    const machine = new Machine()
    const { looks } = machine
    for (let i = 0; i < 10_000; i++) {
      machine.awakeMs += 0.1
      machine.clock.now()
    }
    expect(machine.looks - looks).toBeLessThanOrEqual(10)
  })

  test('is the plain one where CLOCK_BOOTTIME makes no steps', () => {
    const stuck = { monotonicMs: () => (nowMs += 1), uptimeMs: () => 0 }
    let nowMs = 0
    expect(bootAhead(true, stuck).mostMs).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('the wall clock', () => {
  afterEach(() => {
    vi.restoreAllMocks()
  })

  test('is what the system says where the clock was set or the machine slept, with the fractions of the other clock', () => {
    const system = vi.spyOn(Date, 'now')
    const monotonic = vi.spyOn(performance, 'now')
    const at = (systemMs: number, monotonicMs: number): number => {
      system.mockReturnValue(systemMs)
      monotonic.mockReturnValue(monotonicMs)
      return wallMs()
    }
    const beganMs = at(2e12, 1_000)
    expect(Math.abs(beganMs - 2e12)).toBeLessThanOrEqual(20)
    expect(at(2e12, 1_000.25) - beganMs).toBeCloseTo(0.25, 3)
    expect(at(2e12 - 3_600_000, 1_001)).toBe(2e12 - 3_600_000)
    expect(at(2e12 + 3_600_000, 1_002)).toBe(2e12 + 3_600_000)
    expect(at(2e12 + 3_600_015, 1_002.5)).toBe(2e12 + 3_600_000.5)
  })
})
