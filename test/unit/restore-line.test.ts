import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { componentsOf, waitsOf } from '../../node/planning/communication.ts'
import { planRestoreLine, startsWith } from '../../node/planning/restore-line.ts'
import type { Talk } from '../../protocols/talks.ts'

const talk = (vm: string, answers: number, answerMs = 1, network = 'default'): Talk => ({
  vm,
  network,
  sent: 10,
  sentBytes: 1_000,
  heard: 10,
  heardBytes: 1_000,
  answers,
  answerMs
})

const VMS = ['a', 'b', 'c', 'd', 'e']
const drawn = fc.record({
  talks: fc.dictionary(
    fc.constantFrom(...VMS),
    fc.array(fc.tuple(fc.constantFrom(...VMS, 'gone'), fc.integer({ min: 0, max: 4 })), { maxLength: 3 })
  ),
  readyMs: fc.dictionary(fc.constantFrom(...VMS), fc.integer({ min: 0, max: 3_000 })),
  togetherMs: fc.constantFrom(0, 500, 2_000)
})
type Drawn = typeof drawn extends fc.Arbitrary<infer T> ? T : never

const talksOf = ({ talks }: Drawn): Record<string, Talk[]> =>
  Object.fromEntries(
    Object.entries(talks).map(([vm, all]) => [vm, all.map(([other, answers]) => talk(other, answers))])
  )

/** Whether one reaches the other over those that wait, by asking everybody again and again. */
function reaches(from: string, to: string, { talks }: Drawn): boolean {
  const speak = (a: string, b: string): boolean =>
    (talks[a] ?? []).some(([other, answers]) => other === b && answers >= 2)
  let reached = new Set([from])
  for (let step = 0; step < VMS.length; step++) {
    reached = new Set(VMS.filter(vm => [...reached].some(one => one === vm || speak(one, vm) || speak(vm, one))))
  }
  return reached.has(to)
}

describe('the restore line', () => {
  test('starts VMs together exactly if one waits for the other, by itself or by others', () => {
    fc.assert(
      fc.property(drawn, world => {
        const components = componentsOf(VMS, waitsOf(VMS, talksOf(world)))
        expect(components.flat().sort()).toEqual(VMS)
        for (const a of VMS) {
          const own = components.find(each => each.includes(a)) ?? []
          expect(own).toEqual(VMS.filter(b => reaches(a, b, world)))
          expect([...startsWith(a, VMS, talksOf(world)), a].sort()).toEqual(own)
        }
      })
    )
  })
  test('leaves nobody to talk into silence that its bound does not let it wait for, and nobody waits longer', () => {
    fc.assert(
      fc.property(drawn, world => {
        const { readyMs, togetherMs } = world
        const talks = talksOf(world)
        const line = planRestoreLine({ vms: VMS, talks, readyMs, togetherMs })
        const starts = new Map(line.together.flatMap(each => each.starts.map(start => [start.vm, start])))
        expect([...starts.keys()].sort()).toEqual(VMS)
        for (const { vm, atMs, readyMs: ready, without } of starts.values()) {
          if (readyMs[vm] !== undefined) expect(ready).toBe(readyMs[vm])
          expect(atMs).toBeGreaterThanOrEqual(ready)
          expect(atMs - ready).toBeLessThanOrEqual(togetherMs)
          for (const other of startsWith(vm, VMS, talks)) {
            const its = starts.get(other)
            // Who runs alone has waited for as long as it is to, or somebody else of them has.
            if (without.includes(other)) expect(its?.readyMs).toBeGreaterThan(atMs)
            else expect(its?.readyMs).toBeLessThanOrEqual(atMs)
            const firstMs = Math.min(...[vm, ...startsWith(vm, VMS, talks)].map(each => starts.get(each)?.readyMs ?? 0))
            if (without.length > 0) expect(atMs).toBe(Math.max(ready, firstMs + togetherMs))
            else expect(its?.atMs).toBeLessThanOrEqual(atMs)
          }
          if (startsWith(vm, VMS, talks).length === 0) expect(atMs).toBe(ready)
        }
      })
    )
  })
  test('is the same in whatever order VMs and talks are told', () => {
    fc.assert(
      fc.property(drawn, world => {
        const { readyMs, togetherMs } = world
        const talks = talksOf(world)
        const line = planRestoreLine({ vms: VMS, talks, readyMs, togetherMs })
        const turned = Object.fromEntries(Object.entries(talks).map(([vm, all]) => [vm, all.toReversed()]))
        const other = planRestoreLine({ vms: VMS.toReversed(), talks: turned, readyMs, togetherMs })
        expect(other.together.map(({ starts }) => starts)).toEqual(line.together.map(({ starts }) => starts))
      })
    )
  })
  test('says when and why: a web server and its database together, a logger that nobody asks when it is ready', () => {
    const talks = {
      web: [talk('db', 40, 0.8), talk('log', 0)],
      db: [talk('web', 12, 9)],
      log: []
    }
    const readyMs = { web: 300, db: 700, log: 100 }
    expect(planRestoreLine({ vms: ['web', 'db', 'log'], talks, readyMs, togetherMs: 2_000 })).toEqual({
      together: [
        { starts: [{ vm: 'log', readyMs: 100, atMs: 100, without: [] }], waits: [] },
        {
          starts: [
            { vm: 'web', readyMs: 300, atMs: 700, without: [] },
            { vm: 'db', readyMs: 700, atMs: 700, without: [] }
          ],
          waits: [
            { vm: 'db', waitsFor: 'web', network: 'default', answers: 12, answerMs: 9 },
            { vm: 'web', waitsFor: 'db', network: 'default', answers: 40, answerMs: 0.8 }
          ]
        }
      ]
    })
    const bounded = planRestoreLine({ vms: ['web', 'db'], talks, readyMs, togetherMs: 100 })
    expect(bounded.together[0]?.starts).toEqual([
      { vm: 'web', readyMs: 300, atMs: 400, without: ['db'] },
      { vm: 'db', readyMs: 700, atMs: 700, without: [] }
    ])
  })
  test('of images that say nothing every VM starts when it is ready', () => {
    const line = planRestoreLine({ vms: ['b', 'a'], talks: {}, readyMs: { a: 5 }, togetherMs: 2_000 })
    expect(line.together.map(({ starts }) => starts.map(({ vm, atMs }) => [vm, atMs]))).toEqual([
      [['a', 5]],
      [['b', 5]]
    ])
  })
})
