import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Recall } from '../../../node/image/recall.ts'
import { PAGE } from './support.ts'

const filled = (value: number): Buffer => Buffer.alloc(PAGE, value)

describe('pages that wait for their anchors', () => {
  test('are settled once each with what they held last, unless they pass again or the capture is void', async () => {
    const step = fc.oneof(
      { weight: 20, arbitrary: fc.record({ offer: fc.nat(300), value: fc.nat(255) }) },
      { weight: 4, arbitrary: fc.record({ withdraw: fc.nat(300) }) },
      { weight: 4, arbitrary: fc.constant('turn' as const) },
      { weight: 1, arbitrary: fc.constant('congestion' as const) }
    )
    const runs = fc.asyncProperty(
      fc.array(step, { maxLength: 600 }),
      fc.constantFrom('all', 'some', 'fails'),
      fc.boolean(),
      async (steps, reads, cancels) => {
        const waiting = new Map<number, number>()
        let wrong = 0
        const recall = new Recall(
          async function* (pages) {
            for (const page of pages) {
              if (page % 7 === 0) await sleep(0)
              if (reads === 'fails' && page % 5 === 4) throw new Error('no peer answers')
              if (reads === 'all' || page % 2 === 0) yield { page, bytes: filled(page % 256) }
            }
          },
          (page, bytes, anchor) => {
            if (waiting.get(page) !== bytes[0] || (anchor !== undefined && anchor[0] !== page % 256)) wrong++
            waiting.delete(page)
            return anchor !== undefined
          }
        )
        for (const each of steps) {
          if (each === 'turn') await sleep(0)
          else if (each === 'congestion') await recall.congestion()
          else if ('withdraw' in each) {
            recall.withdraw(each.withdraw)
            waiting.delete(each.withdraw)
          } else {
            recall.withdraw(each.offer)
            waiting.delete(each.offer)
            if (recall.offer(each.offer, filled(each.value))) waiting.set(each.offer, each.value)
          }
        }
        if (cancels) recall.cancel()
        const left = waiting.size
        await recall.drain()
        expect(wrong).toBe(0)
        expect(waiting.size).toBe(cancels ? left : 0)
      }
    )
    await fc.assert(runs, { numRuns: 60 })
  })

  test('are settled without an anchor where nobody answers, and no more are taken', async () => {
    const settled: (Uint8Array | undefined)[] = []
    const recall = new Recall(
      async function* () {
        yield await new Promise<never>(() => {})
      },
      (_, __, anchor) => {
        settled.push(anchor)
        return false
      }
    )
    expect(recall.offer(1, filled(1))).toBe(true)
    await recall.drain()
    expect(settled).toEqual([undefined])
    expect(recall.offer(2, filled(2))).toBe(false)
  })

  test('are no more taken when what was read is more than it was worth, and are as long as it is less', async () => {
    const taken = async (bytesAPage: number, worth: boolean): Promise<number> => {
      const recall = new Recall(
        async function* (pages, spent) {
          spent(pages.length * bytesAPage)
          for (const page of pages) yield { page, bytes: filled(1) }
        },
        () => worth
      )
      let count = 0
      for (let page = 0; page < 5_000; page++) {
        if (recall.offer(page, filled(2))) count++
        await recall.congestion()
      }
      await recall.drain()
      return count
    }
    expect(await taken(2 * PAGE, false)).toBeLessThan(800)
    expect(await taken(16 * PAGE, true)).toBeLessThan(800)
    expect(await taken(PAGE, true)).toBe(5_000)
  })
})
