/** The measures of `npm run sim -- --scenario detection`, small. */
import { describe, expect, test } from 'vitest'
import { measureCrashes } from '../sim/detection-crashes.ts'
import { measureFalseDeaths } from '../sim/detection-false.ts'
import { measureLoad } from '../sim/detection-load.ts'
import { EventQueue } from '../sim/swim-queue.ts'
import { SETTINGS, seeded } from '../sim/swim-world.ts'

const OURS = { lifeguard: true, allowances: true }

describe('the measures of failure detection', () => {
  test('a peer sends two messages a period, the same at 5 and 50 peers, some more where messages are lost', () => {
    const [few, many] = [measureLoad(1, 5, OURS), measureLoad(1, 50, OURS)]
    expect(few.quiet.messages).toBeCloseTo(2_000 / SETTINGS.periodMs, 1)
    expect(many.quiet.messages).toBeCloseTo(few.quiet.messages, 1)
    expect(many.quiet.bytes / few.quiet.bytes).toBeCloseTo(1, 2)
    expect(many.loss.messages).toBeGreaterThan(many.quiet.messages)
    expect(many.loss.messages).toBeLessThan(1.3 * many.quiet.messages)
  })

  test('every crash is known to all, a killed process sooner than a vanished host, and nobody else is accused', () => {
    const killed = measureCrashes(1, 10, 'killed', 20, OURS)
    const vanished = measureCrashes(1, 10, 'vanished', 20, OURS)
    for (const { crashes, missed, falseDeaths } of [killed, vanished]) {
      expect({ crashes, missed, falseDeaths }).toEqual({ crashes: 20, missed: 0, falseDeaths: 0 })
    }
    expect(killed.firstMs.median).toBeGreaterThan(SETTINGS.suspicionMinMs)
    expect(killed.lastMs.p99).toBeLessThan(2 * SETTINGS.suspicionMinMs)
    expect(vanished.firstMs.median).toBeGreaterThan(killed.lastMs.p99)
    expect(vanished.lastMs.p99).toBeLessThan(4_000)
  })

  test('starved peers make plain SWIM wrong, Lifeguard keeps them from accusing others, ours says nothing', () => {
    const wrong = (lifeguard: boolean, allowances: boolean) =>
      measureFalseDeaths(1, 30, 20_000, { kind: 'starved', stopMs: 512 }, { lifeguard, allowances })
    const swim = wrong(false, false)
    expect(swim.wellPerHour).toBeGreaterThan(100)
    expect(wrong(true, false).wellPerHour).toBeLessThan(swim.wellPerHour / 50)
    expect(wrong(true, true)).toMatchObject({ deathsPerHour: 0, viewsPerHour: 0, longestMs: 0 })
  })

  test('a live member is not dead to anybody for longer than a refutation takes, and views are right in the end', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const lossy = measureFalseDeaths(seed, 8, 60_000, { kind: 'loss', loss: 0.25 }, OURS)
      expect(lossy.longestMs).toBeLessThan(3_000)
      expect(lossy.convergedMs).toBeLessThan(10_000)
    }
  })
})

test('events of a world come by time, and in order where times are equal', () => {
  const random = seeded(1)
  const queue = new EventQueue()
  const put: { atMs: number; order: number }[] = []
  const came: typeof put = []
  for (let order = 0; order < 500; order++) {
    const event = { atMs: Math.floor(random() * 50), order }
    put.push(event)
    queue.push(event.atMs, () => came.push(event))
  }
  while (queue.nextMs < Number.POSITIVE_INFINITY) queue.pop()?.run()
  expect(came).toEqual(put.sort((a, b) => a.atMs - b.atMs || a.order - b.order))
})
