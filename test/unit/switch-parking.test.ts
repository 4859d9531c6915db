import { expect, test } from 'vitest'
import { Parking } from '../../node/switch/parking.ts'
import { JumpingClock } from './jumping-clock.ts'

/** Two of these are on different levels. */
const FRAME = new Uint8Array(1500)

function parkingOf(...known: string[]) {
  const clock = new JumpingClock()
  const parking = new Parking(clock, group => known.includes(group))
  const add = (from: string, group: string, source = 'x', packet = FRAME): number =>
    parking.add({
      from,
      group,
      generation: 1,
      record: { source, destination: 'y', colour: 0, sequence: 1, nic: 0, packet }
    })
  return { clock, parking, add }
}

test('who names ever new groups has what is parked for no more than its share of them', () => {
  const { parking, add } = parkingOf()
  let dropped = 0
  for (let at = 0; at < 30_000; at++) dropped += add('mallory', `g${at}`)
  expect(dropped).toBe(30_000 - 1024)
  expect(add('alice', 'g0')).toBe(0)
  expect(parking.take('g0').map(({ from }) => from)).toEqual(['mallory', 'alice'])
  expect(parking.take('g29999')).toEqual([])
  expect(add('mallory', 'another')).toBe(0) // one of its channels is free again
  expect(add('mallory', 'one more')).toBe(1)
})

test('what is of a group that nobody has heard of goes after a minute, and the rest stays', async () => {
  const { clock, parking, add } = parkingOf('known')
  add('alice', 'known')
  add('alice', 'unknown')
  await clock.until(35_000)
  add('alice', 'unknown later')
  await clock.until(65_000)
  expect(parking.take('unknown')).toEqual([])
  await clock.until(95_000)
  expect(parking.take('unknown later')).toHaveLength(1) // younger than a minute when it was looked at
  add('alice', 'unknown later')
  await clock.until(240_000)
  expect(parking.take('unknown later')).toEqual([])
  expect(parking.take('known')).toHaveLength(1)
})

test('beyond what there is room for the newest frame of the channel that has most goes', () => {
  const { parking, add } = parkingOf()
  const small = new Uint8Array(100)
  for (let at = 0; at < 1_000; at++) expect(add('alice', 'quiet', `vm${at}`, small)).toBe(0)
  for (let at = 0; at < 7_192; at++) expect(add('bob', 'loud', 'x', small)).toBe(0)
  for (let at = 0; at < 500; at++) expect(add('bob', 'loud', 'x', small)).toBe(1)
  for (let at = 0; at < 24; at++) expect(add('alice', 'quiet', `late${at}`, small)).toBe(1)
  expect(parking.take('quiet')).toHaveLength(1_024)
  expect(parking.take('loud')).toHaveLength(8_192 - 1_024)
  expect(parking.take('loud')).toEqual([])
})

test('bytes are bounded as frames are, and of equally full channels the one that just grew loses', () => {
  const { parking, add } = parkingOf()
  const large = new Uint8Array(60_000)
  let dropped = 0
  for (let at = 0; at < 400; at++) dropped += add('alice', `g${at}`, 'x', large)
  const kept = Math.floor((16 << 20) / 60_200)
  expect(dropped).toBe(400 - kept)
  expect(parking.take('g0')).toHaveLength(1)
  expect(parking.take('g399')).toEqual([])
})
