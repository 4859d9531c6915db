import { expect, it } from 'vitest'
import { settled } from '../chaos/settled.ts'

const quick = { withinMs: 50, againMs: 1 }

it('what comes to be so by itself is looked at until it is', async () => {
  let looks = 0
  expect(await settled(() => (++looks < 4 ? ['not yet'] : []), quick)).toEqual([])
  expect(looks).toBe(4)
})

it('what does not is told as it was at last, when the time is over', async () => {
  let looks = 0
  expect(await settled(async () => [`look ${++looks}`], quick)).toEqual([`look ${looks}`])
  expect(looks).toBeGreaterThan(1)
})
