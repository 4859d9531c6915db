/** When the next epoch is due: each policy against a plain slow reading of what it promises. */
import { Cron } from 'croner'
import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { type EpochPolicy, policySchema, type PolicyOf } from '../../config/policy.ts'
import { check, problemText } from '../../config/words.ts'
import { bestIntervalMs, epochCostMs, estimate } from '../../node/planning/policies/cost-model.ts'
import { type BuiltIn, nextEpoch, policyText, shownHistory } from '../../node/planning/policies/choose.ts'
import { costsOf, quantile } from '../../node/planning/policies/measures.ts'
import type { PolicyNow } from '../../node/planning/policies/policy.ts'
import { intervalsOf } from '../../node/planning/policies/windows.ts'
import type { SeenEpoch } from '../../protocols/epoch/history.ts'
import { imageOf, MIB, seenEpoch } from './epoch-history-support.ts'

const START = Date.UTC(2026, 0, 5, 6) // a Monday

/** Epochs one after the other, some of them aborted, in one or two generations. */
const histories = fc
  .array(
    fc.record({
      gapMs: fc.integer({ min: 0, max: 60_000 }),
      tookMs: fc.integer({ min: 1, max: 20_000 }),
      changed: fc.integer({ min: 0, max: 200 }),
      aborted: fc.boolean(),
      restored: fc.integer({ min: 0, max: 9 })
    }),
    { maxLength: 12 }
  )
  .map(all => {
    let atMs = START
    let generation = 1
    return all.map(({ gapMs, tookMs, changed, aborted, restored }, i): SeenEpoch => {
      const openedAtMs = atMs
      atMs += tookMs + gapMs
      if (restored === 0) generation++
      const vms = { a: { pauseMs: 5, prepareMs: tookMs / 2, image: imageOf(changed * MIB) } }
      const outcome = aborted ? 'aborted' : 'committed'
      return seenEpoch(i + 1, { generation, outcome, openedAtMs, tookMs, vms })
    })
  })

/** As the peer asks: when the last one is over, some time later. */
const moments = fc.tuple(histories, fc.integer({ min: 0, max: 90_000 }), fc.integer({ min: -60_000, max: 600_000 }))

const momentOf = (history: readonly SeenEpoch[], laterMs: number, sinceMs: number): PolicyNow => {
  const last = history.at(-1)
  return { nowMs: (last?.openedAtMs ?? START) + (last?.tookMs ?? 0) + laterMs, sinceMs: START + sinceMs }
}

const overMs = (history: readonly SeenEpoch[]): number => {
  const last = history.at(-1)
  return last === undefined ? 0 : last.openedAtMs + (last.tookMs ?? 0)
}

describe('an interval', () => {
  test('is counted from the start of the last epoch, in whole turns, and none while that is under way', () => {
    fc.assert(
      fc.property(moments, fc.integer({ min: 1, max: 300 }), ([history, laterMs, sinceMs], tenths) => {
        const everyMs = tenths * 100
        const now = momentOf(history, laterMs, sinceMs)
        const base = Math.max(now.sinceMs, history.at(-1)?.openedAtMs ?? 0)
        let slowly = base + everyMs
        while (slowly < overMs(history)) slowly += everyMs
        expect(nextEpoch({ kind: 'interval', everyMs }, history, now)?.atMs).toBe(slowly)
      })
    )
  })
})

describe('by the size of what changed', () => {
  const policy: PolicyOf<'delta-size'> = { kind: 'delta-size', mebibytes: 64, atLeastMs: 1_000, atMostMs: 600_000 }
  test('the interval is as long as it takes to change so much, by the middle one of the last three', () => {
    fc.assert(
      fc.property(moments, ([history, laterMs, sinceMs]) => {
        const costs: { rate: number; intervalMs: number }[] = []
        for (const [i, epoch] of history.entries()) {
          const before = history.slice(0, i).filter(({ outcome }) => outcome === 'committed')
          const last = before.at(-1)
          if (epoch.outcome !== 'committed' || last?.generation !== epoch.generation) continue
          const intervalMs = epoch.openedAtMs - last.openedAtMs
          const pages = epoch.vms['a']?.image?.pagesChanged ?? 0
          costs.push({ rate: (pages * 4096) / intervalMs, intervalMs })
        }
        const lastThree = costs.slice(-3)
        const middle = (values: number[]): number => values.sort((a, b) => a - b)[Math.ceil(values.length / 2) - 1] ?? 0
        const rate = middle(lastThree.map(each => each.rate))
        const usual = middle(lastThree.map(each => each.intervalMs))
        let everyMs = rate === 0 ? 600_000 : (64 * MIB) / rate
        everyMs = Math.min(Math.max(Math.min(everyMs, 2 * usual), 1_000), 600_000)
        if (lastThree.length === 0) everyMs = 1_000
        const now = momentOf(history, laterMs, sinceMs)
        const base = Math.max(now.sinceMs, history.at(-1)?.openedAtMs ?? 0)
        let dueMs = base + everyMs
        while (dueMs < overMs(history) - 1e-6) dueMs += everyMs
        expect(nextEpoch(policy, history, now)?.atMs).toBeCloseTo(dueMs, 3)
      })
    )
  })
  test('with changes at an even pace each epoch comes to have that size', () => {
    const history: SeenEpoch[] = []
    let nowMs = START
    for (let i = 0; i < 20; i++) {
      const atMs = nextEpoch(policy, history, { nowMs, sinceMs: START })?.atMs ?? 0
      const changed = ((atMs - (history.at(-1)?.openedAtMs ?? START)) / 1_000) * 4 * MIB
      history.push(seenEpoch(i + 1, { openedAtMs: atMs, vms: { a: { image: imageOf(changed) } } }))
      nowMs = atMs + 100
    }
    const sizes = costsOf(history).map(({ changedBytes }) => changedBytes / MIB)
    for (const size of sizes.slice(-5)) expect(size).toBeCloseTo(64, 1)
  })
})

describe('windows of time', () => {
  const policy: PolicyOf<'windows'> = {
    kind: 'windows',
    windows: [
      { cron: '0 3 * * *', everyMs: 120_000 },
      { cron: '* 8-16 * * 1-5', everyMs: 10_000 },
      { cron: '*/15 * * * 6', everyMs: 0 }
    ],
    otherwiseMs: 600_000,
    timeZone: 'UTC'
  }
  /** By the words of the expressions, a second at a time. */
  const everyAt = (atMs: number): number => {
    const date = new Date(atMs)
    if (date.getUTCHours() === 3 && date.getUTCMinutes() === 0) return 120_000
    const isWorkday = date.getUTCDay() >= 1 && date.getUTCDay() <= 5
    if (isWorkday && date.getUTCHours() >= 8 && date.getUTCHours() <= 16) return 10_000
    if (date.getUTCDay() === 6 && date.getUTCMinutes() % 15 === 0) return 0
    return 600_000
  }
  test('give the interval of the minute, as a plain reading of a calendar does', () => {
    const seconds = fc.integer({ min: 0, max: 7 * 86_400 })
    fc.assert(
      fc.property(seconds, fc.integer({ min: 0, max: 1_200 }), (start, later) => {
        const history = [seenEpoch(1, { openedAtMs: START + 1_000 * start, tookMs: 0 })]
        const nowMs = START + 1_000 * (start + later)
        let slowly = nowMs
        while (everyAt(slowly) === 0 || slowly < START + 1_000 * start + everyAt(slowly)) slowly += 1_000
        expect(nextEpoch(policy, history, { nowMs, sinceMs: 0 })?.atMs).toBe(slowly)
      }),
      { numRuns: 60 }
    )
  })
  test('go by the clock of their time zone, and have no epoch where none is to be', () => {
    const night = { kind: 'windows' as const, windows: [{ cron: '0 2 * * *', everyMs: 60_000 }], otherwiseMs: 0 }
    const at = (timeZone: string) =>
      nextEpoch({ ...night, timeZone }, [], { nowMs: Date.UTC(2026, 6, 1, 12), sinceMs: 0 })?.atMs
    expect(at('UTC')).toBe(Date.UTC(2026, 6, 2, 2))
    expect(at('Europe/Athens')).toBe(Date.UTC(2026, 6, 1, 23))
    const leap = { ...night, windows: [{ cron: '0 0 29 2 *', everyMs: 60_000 }], timeZone: 'UTC' }
    expect(nextEpoch(leap, [], { nowMs: START, sinceMs: 0 })).toBeUndefined()
  })
})

describe('which window a minute is in', () => {
  const crons = [
    '*/7 8-17 * * 1-5',
    '5-50/9 * 29 2 *',
    '30 1-3 * MAR,OCT SUN#L',
    '0,15 0 L * *',
    '* 23 1 * 1',
    '59 12 ? * 6'
  ]
  test.each(['UTC', 'Europe/Athens', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'America/St_Johns'])(
    'is what the library says of its expression in %s, when clocks are changed too',
    timeZone => {
      const all = crons.map((cron, i) => ({ cron, everyMs: 1_000 * (i + 1) }))
      const everyAt = intervalsOf({ kind: 'windows', windows: all, otherwiseMs: 0, timeZone })
      const slow = crons.map(cron => new Cron(cron, { timezone: timeZone }))
      for (const day of [Date.UTC(2026, 2, 28, 20), Date.UTC(2026, 9, 3, 12), Date.UTC(2028, 1, 28, 12)]) {
        for (let atMs = day; atMs < day + 86_400_000; atMs += 60_000) {
          const which = slow.findIndex(cron => cron.match(new Date(atMs)))
          expect([atMs, everyAt(atMs + 59_999).everyMs]).toEqual([atMs, 1_000 * (which + 1)])
        }
      }
    }
  )
  test('is asked of the library for quarters of hours, and once', () => {
    const match = vi.spyOn(Cron.prototype, 'match')
    const cron = '*/2 5 29 2 *'
    const all = Array.from({ length: 16 }, () => ({ cron, everyMs: 1_000 }))
    const policy = { kind: 'windows' as const, windows: all, otherwiseMs: 0, timeZone: 'Europe/Athens' }
    expect(nextEpoch(policy, [], { nowMs: START, sinceMs: 0 })).toBeUndefined()
    expect(match.mock.calls.length).toBeLessThanOrEqual(16 * (60 + 4 * 25))
    match.mockClear()
    expect(nextEpoch(policy, [], { nowMs: START + 60_000, sinceMs: 0 })).toBeUndefined()
    expect(match.mock.calls.length).toBeLessThanOrEqual(16)
    match.mockRestore()
  })
})

describe('what epochs cost', () => {
  test('is not told by the first of a generation, which is of all RAM, nor by one that was aborted', () => {
    const vms = { a: { image: imageOf(MIB) } }
    const history = [
      seenEpoch(1, { vms }),
      seenEpoch(2, { vms }),
      seenEpoch(3, { vms, outcome: 'aborted' }),
      seenEpoch(4, { vms }),
      seenEpoch(5, { vms, generation: 2 })
    ]
    expect(costsOf(history).map(({ epoch, intervalMs }) => [epoch.epoch, intervalMs])).toEqual([
      [2, 10_000],
      [4, 20_000]
    ])
  })
  test('and what a failure costs have an interval at which both together are the least', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000 }),
        fc.integer({ min: 0, max: 30_000 }),
        fc.integer({ min: 1, max: 400 }),
        (pauseMs, creationMs, hours) => {
          const costs = { pauseMs, creationMs, mergeMs: 20, switchMs: 3_000, recoverMs: 1_000 }
          const everyMs = hours * 3_600_000
          const best = bestIntervalMs(costs, everyMs)
          fc.pre(best > 2 * epochCostMs(costs))
          const at = (ms: number) => estimate(ms, costs, everyMs).availability
          for (const factor of [0.5, 0.9, 1.1, 2]) expect(at(factor * best)).toBeLessThanOrEqual(at(best))
        }
      )
    )
  })
  test('a quantile is the least value that so many are not above', () => {
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 1 }), fc.constantFrom(0.2, 0.5, 0.8, 1), (values, part) => {
        const enough = values.filter(
          value => values.filter(other => other <= value).length >= part * values.length - 1e-9
        )
        expect(quantile(values, part)).toBe(Math.min(...enough))
      })
    )
  })
})

test('a policy is shown the last epochs that are over, and not the one under way', () => {
  const history = Array.from({ length: 100 }, (_, i) => seenEpoch(i + 1))
  expect(shownHistory(history).map(({ epoch }) => epoch)).toEqual(Array.from({ length: 64 }, (_, i) => i + 37))
  const open = seenEpoch(101, { outcome: 'open' })
  expect(shownHistory([...history, open]).at(-1)?.epoch).toBe(100)
  expect(shownHistory([open])).toEqual([])
})

test.each<[object, string]>([
  [{}, 'policy.kind: expected one of "interval", "delta-size", "adaptive", "windows", "own", found nothing'],
  [{ kind: 'interval', everyMs: 5 }, 'policy.everyMs: expected a whole number from 100 to 86400000, found 5'],
  [{ kind: 'delta-size', mebibytes: 0 }, 'policy.mebibytes: expected a number from 0.1 to 1048576, found 0'],
  [{ kind: 'adaptive', lossMS: 9 }, 'policy.lossMS: expected a known key; did you mean lossMs?, found an unknown key'],
  [
    { kind: 'adaptive', atLeastMs: 900, atMostMs: 200 },
    'policy.atMostMs: expected a whole number from atLeastMs (900) on, found 200'
  ],
  [
    { kind: 'windows', windows: [{ cron: '0 0 31 2 *', everyMs: 0 }] },
    'policy.windows[0].cron: expected five fields of cron (minute, hour, day of month, month, day of week), such as "* 8-17 * * 1-5", found "0 0 31 2 *"'
  ],
  [{ kind: 'own', name: '../x' }, 'policy.name: expected 1 to 40 of the characters a-z, 0-9 and -, found "../x"']
])('the policy %j cannot be, and the message says what can', (policy, message) => {
  const shape = check(policySchema, policy)
  expect(shape.ok ? [] : shape.problems.map(problem => `policy.${problemText(problem)}`)).toEqual([message])
})

test('each policy can be told in a line, and a setting that is left out has its default', () => {
  const raw = [
    { kind: 'interval', everyMs: 10_000 },
    { kind: 'delta-size', mebibytes: 64 },
    { kind: 'adaptive' },
    { kind: 'windows', windows: [{ cron: '* 8-16 * * 1-5', everyMs: 500 }] },
    { kind: 'own', name: 'mine', settings: { calm: true } }
  ]
  const policies: EpochPolicy[] = raw.map(each => policySchema.parse(each))
  expect(policies.map(policyText)).toEqual([
    'interval: every 10 s',
    'delta-size: when 64 MiB have changed, every 1 s to 10 min',
    'adaptive: overhead under 5 %, loss under 30 s, every 1 s to 10 min',
    'windows (UTC): "* 8-16 * * 1-5" every 500 ms; otherwise none',
    'own: module mine {"calm":true}'
  ])
  const builtIn = policies.filter((policy): policy is BuiltIn => policy.kind !== 'own')
  for (const policy of builtIn) expect(policySchema.parse(JSON.parse(JSON.stringify(policy)))).toEqual(policy)
})
