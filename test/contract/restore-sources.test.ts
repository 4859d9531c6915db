/** A few rounds of `npm run bench -- sources`, which does fifty. */
import { expect, it } from 'vitest'
import { measureSources } from '../bench/sources.ts'

it('a VM is restored with the RAM of its cut although a host that serves it is killed; with too few left it is told', async () => {
  const { checks, text } = await measureSources(() => {}, { rounds: '2' })
  expect(text).toEqual([])
  expect(checks.filter(({ ok }) => !ok)).toEqual([])
}, 240_000)
