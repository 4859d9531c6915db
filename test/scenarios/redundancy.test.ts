/**
 * One of five hosts is lost for good while an epoch is taken, a fresh one takes its place, and another is lost: is every
 * epoch that was committed there, each time, and is all of the redundancy back in between? `npm run bench -- redundancy`
 * does the same with two hosts at a time.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isWhole } from '../../node/edge/redundancy-view.ts'
import { Losses } from './redundancy.ts'

describe('five hosts, of which any one may be lost', () => {
  let losses: Losses
  let stopped = false

  beforeAll(async () => {
    losses = await Losses.start({ k: 2, m: 1, keepLast: 2 })
  }, 240_000)

  afterAll(async () => {
    if (!stopped) await losses?.bank.cluster.stop()
  })

  it('restore every committed epoch when one dies in the middle of the next', async () => {
    await losses.epochs(2)
    await losses.loseDuringEpoch('p5')
    const restored = await losses.restoreAll()
    expect(restored.length).toBeGreaterThanOrEqual(2)
    expect(restored.filter(({ sound }) => !sound)).toEqual([])
  })

  it('get all of their redundancy back with a fresh host in its stead', async () => {
    await losses.replace('p5', 'p6')
    const report = await losses.redundant()
    expect(isWhole(report)).toBe(true)
    expect(report).toMatchObject({ deep: true, silent: [] })
  })

  it('bear the loss of one more, with its VM: every committed epoch is there, and the next one is taken', async () => {
    await losses.loseDuringEpoch('p2')
    const restored = await losses.restoreAll()
    expect(restored.length).toBeGreaterThanOrEqual(2)
    expect(restored.filter(({ sound }) => !sound)).toEqual([])
    await losses.epochs(1)
    stopped = true
    expect(await losses.bank.cluster.stop()).toEqual([])
  })
})
