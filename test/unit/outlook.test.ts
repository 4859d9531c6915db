import { describe, expect, it } from 'vitest'
import { outlookOf, partsBySettings, withLoss } from '../../node/planning/outlook.ts'

const settings = { detectMs: 600, decideMs: 400 }
const unknown = { detectMs: null, decideMs: null, runsMs: null }
const at = { nowMs: 100_000, sinceMs: 93_000 }

describe('what it would mean for a VM if its host died', () => {
  it('is the sum of the parts as they were measured, and what was committed last', () => {
    const outlook = outlookOf(undefined, { detectMs: 500, decideMs: 300, runsMs: 200 }, settings, at)
    expect(outlook).toMatchObject({ backMs: 1_000, lossMs: 7_000, bySettings: [], missed: [] })
  })

  it('takes detection and decision from the settings before there was a failover, and says so', () => {
    const outlook = outlookOf(undefined, { ...unknown, runsMs: 200 }, settings, at)
    expect(outlook).toMatchObject({ backMs: 1_200, bySettings: ['detectMs', 'decideMs'] })
    expect(outlookOf(undefined, unknown, settings, at).backMs).toBeNull()
  })

  it('misses what is more than its objective allows, and nothing that is not known', () => {
    const objective = { backMs: 1_000, lossMs: 7_000 }
    const measured = { detectMs: 500, decideMs: 300, runsMs: 200 }
    expect(outlookOf(objective, measured, settings, at).missed).toEqual([])
    expect(outlookOf(objective, { ...measured, runsMs: 201 }, settings, at).missed).toEqual(['backMs'])
    expect(outlookOf(objective, measured, settings, { ...at, nowMs: 100_001 }).missed).toEqual(['lossMs'])
    expect(outlookOf(objective, unknown, settings, at).missed).toEqual([])
    const why = { kind: 'no-majority', live: 1, voters: 3 } as const
    const never = outlookOf(objective, measured, settings, { ...at, obstacle: why })
    expect(never).toMatchObject({ backMs: null, never: true, why, missed: ['backMs'] })
    expect(outlookOf({ lossMs: 7_000 }, measured, settings, { ...at, obstacle: why }).missed).toEqual([])
    expect(outlookOf({ lossMs: 1 }, measured, settings, { nowMs: 5, sinceMs: 9 }).lossMs).toBe(0)
  })
})

it('what is lost is told anew for another moment, and whether that is too much', () => {
  const measured = { detectMs: 500, decideMs: 300, runsMs: 201 }
  const objective = { backMs: 1_000, lossMs: 7_000 }
  const outlook = outlookOf(objective, measured, settings, at)
  expect(withLoss(outlook, objective, 7_001)).toMatchObject({
    backMs: 1_001,
    lossMs: 7_001,
    missed: ['backMs', 'lossMs']
  })
  expect(withLoss(withLoss(outlook, objective, 7_001), objective, 10)).toEqual({ ...outlook, lossMs: 10 })
})

it('settings say that a lease must have run out, if that is later than the detection', () => {
  const swim = { periodMs: 200, suspicionMinMs: 400 }
  expect(partsBySettings(swim, { durationMs: 1_000, driftPerMille: 20 })).toEqual({ detectMs: 600, decideMs: 420 })
  expect(partsBySettings(swim, { durationMs: 100, driftPerMille: 20 }).decideMs).toBe(0)
})
