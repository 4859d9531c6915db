import { expect, it } from 'vitest'
import type { Clock } from '../../node/ports.ts'
import { Nic } from '../../node/switch/nic.ts'

/** One timer at a time, that the test lets run out. */
class TestClock implements Clock {
  fire: (() => void) | undefined
  now = (): number => 0
  after(_ms: number, fn: () => void): () => void {
    this.fire = fn
    return () => {
      this.fire = undefined
    }
  }
}

async function openNic() {
  const clock = new TestClock()
  const told: boolean[] = []
  const link = {
    write: () => {},
    recent: () => [],
    stoodStill: () => {},
    drained: async () => {},
    close: async () => {}
  }
  let setWritable: (writable: boolean) => void = () => {}
  const changed = (): void => void told.push(nic.stuck)
  const nic: Nic = new Nic(0, clock, {
    packet: () => {},
    changed,
    dirty: () => {},
    mayAct: () => true,
    broken: () => {}
  })
  await nic.listen('', async (_path, _clock, events) => {
    setWritable = events.writable
    return link
  })
  return { nic, clock, told, setWritable }
}

it('a NIC whose VM takes nothing for long is stuck, until it takes something', async () => {
  const { nic, clock, told, setWritable } = await openNic()
  nic.setReading(true)
  setWritable(true)
  expect(clock.fire).toBe(undefined)
  setWritable(false)
  clock.fire?.()
  expect(told).toEqual([false, false, true])
  setWritable(true)
  expect([nic.stuck, clock.fire]).toEqual([false, undefined])
})

it('a NIC is not stuck while its VM is not to read, nor by the time that it was not', async () => {
  const { nic, clock, setWritable } = await openNic()
  setWritable(true)
  setWritable(false)
  expect(clock.fire).toBe(undefined)
  nic.setReading(true)
  clock.fire?.()
  expect(nic.stuck).toBe(true)
  nic.setReading(false)
  expect([nic.stuck, clock.fire]).toEqual([false, undefined])
  nic.setReading(true)
  expect([nic.stuck, typeof clock.fire]).toEqual([false, 'function'])
})
