import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  CutProfile,
  delayOf,
  type Expected,
  FEWEST_CUTS,
  MAX_LEAD_DELAY_MS,
  quantile,
  REMEMBERED_CUTS
} from '../../protocols/epoch/cut-profile.ts'

const profileOf = (cuts: Record<string, readonly (readonly [prepareMs: number, leadMs: number])[]>): CutProfile => {
  const profile = new CutProfile()
  for (const [vm, all] of Object.entries(cuts))
    for (const [prepareMs, leadMs] of all) profile.note(vm, { prepareMs, leadMs })
  return profile
}
const times = (count: number, prepareMs: number, leadMs: number) => Array(count).fill([prepareMs, leadMs] as const)

/** The plan as one would find it by trying: waits a millisecond longer while some other VM is later in any case. */
function delayByTrying(vm: string, expected: ReadonlyMap<string, Expected>, capMs: number): number {
  const worstMs = expected.get(vm)?.worstMs ?? Number.POSITIVE_INFINITY
  let delay = 0
  const isLast = (ms: number): boolean => [...expected].every(([, other]) => ms + worstMs > other.bestMs)
  while (delay < capMs && !isLast(delay + 1)) delay++
  return delay
}

const expectation = fc
  .tuple(fc.nat(200), fc.nat(200))
  .map(([bestMs, more]): Expected => ({ bestMs, worstMs: bestMs + more }))
const group = fc
  .array(expectation, { minLength: 1, maxLength: 6 })
  .map(all => new Map(all.map((each, i) => [`vm${i}`, each])))

describe('the plan of a group', () => {
  test('is what trying every delay finds', () => {
    fc.assert(
      fc.property(group, fc.nat(300), (expected, capMs) => {
        for (const vm of expected.keys()) expect(delayOf(vm, expected, capMs)).toBe(delayByTrying(vm, expected, capMs))
      })
    )
  })
  test('lets at least one VM begin at once, and nobody be done after the one that takes longest', () => {
    fc.assert(
      fc.property(group, expected => {
        const delays = [...expected.keys()].map(vm => delayOf(vm, expected, Number.POSITIVE_INFINITY))
        expect(Math.min(...delays)).toBe(0)
        const longest = Math.max(...[...expected.values()].map(({ worstMs }) => worstMs))
        for (const [i, { worstMs }] of [...expected.values()].entries())
          expect((delays[i] as number) + worstMs).toBeLessThanOrEqual(longest)
      })
    )
  })
  test('brings VMs whose times are certain to their cuts at the same moment', () => {
    const certain = fc.array(fc.nat(1_000), { minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(certain, all => {
        const expected = new Map(all.map((ms, i) => [`vm${i}`, { bestMs: ms, worstMs: ms }]))
        const cuts = all.map((ms, i) => ms + delayOf(`vm${i}`, expected, Number.POSITIVE_INFINITY))
        expect(new Set(cuts).size).toBe(1)
      })
    )
  })
})

describe('a profile of past cuts', () => {
  test('says nothing before a VM has been cut often enough', () => {
    const profile = profileOf({ fast: times(FEWEST_CUTS - 1, 10, 1), slow: times(FEWEST_CUTS, 900, 90) })
    expect(profile.prepareDelayMs('fast', ['fast', 'slow'], 1_000)).toBe(0)
    expect(profile.leadDelayMs('fast', ['fast', 'slow'])).toBe(0)
    profile.note('fast', { prepareMs: 10, leadMs: 1 })
    expect(profile.prepareDelayMs('fast', ['fast', 'slow'], 1_000)).toBe(890)
    expect(profile.leadDelayMs('fast', ['fast', 'slow'])).toBe(89)
  })
  test('does not take the first cut, of all RAM, for what the next ones will be like', () => {
    const profile = profileOf({ a: [[3_000, 300], ...times(3, 60, 12)], b: [[1_000, 100], ...times(3, 60, 12)] })
    expect(profile.prepareDelayMs('b', ['a', 'b'], 5_000)).toBe(0)
    expect(profile.leadDelayMs('b', ['a', 'b'])).toBe(0)
  })
  test('does not let a VM wait that has ever been as slow as the slowest at its best', () => {
    const profile = profileOf({ a: times(4, 500, 10), b: [...times(3, 50, 10), [600, 10]] })
    expect(profile.prepareDelayMs('b', ['a', 'b'], 5_000)).toBe(0)
  })
  test('follows a VM that has become slower or faster', () => {
    const profile = profileOf({ a: times(20, 500, 50), b: times(20, 100, 10) })
    expect(profile.prepareDelayMs('b', ['a', 'b'], 5_000)).toBe(400)
    for (let cut = 0; cut < REMEMBERED_CUTS; cut++) profile.note('a', { prepareMs: 100, leadMs: 10 })
    expect(profile.prepareDelayMs('b', ['a', 'b'], 5_000)).toBe(0)
    expect(profile.leadDelayMs('b', ['a', 'b'])).toBe(0)
  })
  test('knows only the VMs of the group as it is now, and after a takeover none', () => {
    const profile = profileOf({ a: times(4, 500, 50), b: times(4, 100, 10) })
    expect(profile.prepareDelayMs('b', ['b'], 5_000)).toBe(0)
    profile.forget()
    expect(profile.prepareDelayMs('b', ['a', 'b'], 5_000)).toBe(0)
  })
  test('lets nobody wait longer than the caps', () => {
    const profile = profileOf({ a: times(4, 60_000, 9_000), b: times(4, 10, 1) })
    expect(profile.prepareDelayMs('b', ['a', 'b'], 2_500)).toBe(2_500)
    expect(profile.leadDelayMs('b', ['a', 'b'])).toBe(MAX_LEAD_DELAY_MS)
  })
})

test('a quantile is the least value that enough of them do not exceed', () => {
  const naive = (values: readonly number[], at: number): number =>
    Math.min(...values.filter(value => values.filter(each => each <= value).length >= at * values.length))
  const values = fc.array(fc.nat(20), { minLength: 1, maxLength: 9 })
  fc.assert(
    fc.property(values, fc.constantFrom(0, 0.25, 0.5, 1), (list, at) => {
      expect(quantile(list, at)).toBe(naive(list, at))
    })
  )
})
