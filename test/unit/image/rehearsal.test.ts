import { expect, test } from 'vitest'
import { rehearse } from '../../../node/image/rehearsal.ts'

test('a rehearsal runs to its end, and ends early when the thread is needed', async () => {
  await rehearse(() => true)
  let asked = 0
  await rehearse(() => ++asked <= 2)
  expect(asked).toBeLessThan(8)
})
