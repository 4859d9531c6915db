import { describe, expect, it } from 'vitest'
import type { Clock } from '../../node/ports.ts'
import { Alarm } from '../../protocols/alarm.ts'

/** A clock that stands still until it is moved; `started` counts the timers. */
class HandClock implements Clock {
  nowMs = 0
  started = 0
  #timers = new Map<number, { atMs: number; fn: () => void }>()

  now(): number {
    return this.nowMs
  }

  after(ms: number, fn: () => void): () => void {
    const id = this.started++
    this.#timers.set(id, { atMs: this.nowMs + ms, fn })
    return () => void this.#timers.delete(id)
  }

  moveTo(nowMs: number): void {
    this.nowMs = nowMs
    for (const [id, { atMs, fn }] of Array.from(this.#timers)) {
      if (atMs > nowMs) continue
      this.#timers.delete(id)
      fn()
    }
  }
}

function bench(): { clock: HandClock; alarm: Alarm; rungAtMs: number[] } {
  const clock = new HandClock()
  const rungAtMs: number[] = []
  return { clock, alarm: new Alarm(clock, () => rungAtMs.push(clock.now())), rungAtMs }
}

describe('an alarm', () => {
  it('rings once, not before its time', () => {
    const { clock, alarm, rungAtMs } = bench()
    alarm.set(10.5)
    clock.moveTo(10)
    expect(rungAtMs).toEqual([])
    clock.moveTo(11)
    clock.moveTo(50)
    expect(rungAtMs).toEqual([11])
  })

  it('takes the last time that was set, and none at infinity', () => {
    const { clock, alarm, rungAtMs } = bench()
    alarm.set(10)
    alarm.set(20)
    clock.moveTo(15)
    alarm.set(Number.POSITIVE_INFINITY)
    clock.moveTo(30)
    expect(rungAtMs).toEqual([])
    alarm.set(25) // past already
    clock.moveTo(30)
    expect(rungAtMs).toEqual([30])
  })

  it('starts no timer for the time that is set already, but does when it has rung', () => {
    const { clock, alarm, rungAtMs } = bench()
    alarm.set(10)
    alarm.set(10)
    expect(clock.started).toBe(1)
    clock.moveTo(10)
    alarm.set(10)
    clock.moveTo(10)
    expect(rungAtMs).toEqual([10, 10])
  })
})
