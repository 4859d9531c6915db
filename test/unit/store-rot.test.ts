/** A short run of `npm run bench -- rot`, which turns ten thousand bits. */
import { expect, it } from 'vitest'
import { rot } from '../bench/rot.ts'

it('bits that turn and files that are cut are all found, rebuilt from the other stores, and never served', async () => {
  const seen = await rot(150, () => {})
  expect(seen).toMatchObject({ unfound: [], unrepaired: [], served: [] })
  expect(seen.found).toBeGreaterThan(50)
  // In more stores than there is parity for: what is lost is said to be, the rest is rebuilt.
  expect(seen.beyond).toMatchObject({ silent: 0 })
  expect(seen.beyond.repaired).toBeGreaterThan(0)
  expect(seen.beyond.lost).toBeGreaterThan(0)
  expect(seen.beyond.said).toMatch(/has \d whole symbols within reach and needs 3/)
}, 60_000)
