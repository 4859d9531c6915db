import { describe, expect, it } from 'vitest'
import { type EpochPolicy, policySchema } from '../../config/policy.ts'
import { longestMs, overdueMs } from '../../node/planning/policies/overdue.ts'

const every = (everyMs: number): EpochPolicy => ({ kind: 'interval', everyMs })

describe('a group is overdue', () => {
  it('after three intervals without an epoch, and never within a minute of one', () => {
    expect(overdueMs(every(40_000), 0, 120_000)).toBeUndefined()
    expect(overdueMs(every(40_000), 0, 120_001)).toBe(120_001)
    expect(overdueMs(every(1_000), 0, 61_000)).toBeUndefined()
    expect(overdueMs(every(1_000), 0, 61_001)).toBe(61_001)
  })

  it('never by a clock that went back, without a policy, or where nobody saw an epoch', () => {
    expect(overdueMs(every(1_000), 100_000, 0)).toBeUndefined()
    expect(overdueMs(undefined, 0, 1e12)).toBeUndefined()
    expect(overdueMs(every(1_000), undefined, 1e12)).toBeUndefined()
  })

  it('by the longest time that its policy lets pass, where there is one', () => {
    const parse = (policy: unknown): EpochPolicy => policySchema.parse(policy)
    expect(longestMs(parse({ kind: 'adaptive', atMostMs: 90_000 }))).toBe(90_000)
    expect(longestMs(parse({ kind: 'delta-size', mebibytes: 1, atMostMs: 80_000 }))).toBe(80_000)
    const windows = [{ cron: '* 8-17 * * *', everyMs: 10_000 }]
    expect(longestMs(parse({ kind: 'windows', windows, otherwiseMs: 600_000 }))).toBe(600_000)
    expect(longestMs(parse({ kind: 'windows', windows }))).toBeUndefined()
    expect(longestMs(parse({ kind: 'own', name: 'mine' }))).toBeUndefined()
  })
})
