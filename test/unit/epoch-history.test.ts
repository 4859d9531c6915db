import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { mergeSeen, parseSeenEpoch, type SeenCut, type SeenEpoch, seenKey } from '../../protocols/epoch/history.ts'

const cut: SeenCut = { pauseMs: 12.5, image: imageOf(100) }

function imageOf(pages: number): NonNullable<SeenCut['image']> {
  const bytes = pages * 4096
  return {
    pages: 16_384,
    pagesNonZero: 9_000,
    pagesChanged: pages,
    bytesRaw: bytes,
    bytesData: bytes,
    bytesStored: bytes,
    inFlightFrames: 0
  }
}

const seen = (epoch: number, more: Partial<SeenEpoch> = {}): SeenEpoch => ({
  group: 'g',
  generation: 1,
  epoch,
  outcome: 'committed',
  openedAtMs: 1_000 * epoch,
  tookMs: 100,
  vms: {},
  ...more
})

/** Accounts as peers could give them: of the same few epochs, with the same outcome or not decided yet. */
const accounts = fc
  .array(
    fc.record({
      by: fc.constantFrom('p1', 'p2', 'p3'),
      epoch: fc.integer({ min: 1, max: 4 }),
      generation: fc.integer({ min: 1, max: 2 }),
      open: fc.boolean(),
      tookMs: fc.integer({ min: 0, max: 3 }),
      vm: fc.constantFrom('a', 'b', 'c')
    })
  )
  .map(all => {
    const byPeer = new Map<string, Map<string, SeenEpoch>>()
    for (const { by, epoch, generation, open, tookMs, vm } of all) {
      const epochs = byPeer.get(by) ?? new Map<string, SeenEpoch>()
      byPeer.set(by, epochs)
      const decided = { outcome: 'committed' as const, tookMs }
      const entry = seen(epoch, { generation, vms: { [vm]: cut }, ...(open ? { outcome: 'open' } : decided) })
      epochs.set(seenKey(entry), entry)
    }
    return [...byPeer].map(([by, epochs]) => ({ by, epochs: [...epochs.values()] }))
  })

describe('what several peers have seen of a group’s epochs', () => {
  test('does not depend on the order of their accounts, and names each epoch once, oldest first', () => {
    fc.assert(
      fc.property(accounts, all => {
        const merged = mergeSeen(all)
        const bare = (list: typeof merged) => list.map(epoch => ({ ...epoch, openedAtMs: 0 }))
        expect(bare(mergeSeen(all.toReversed()))).toEqual(bare(merged))
        const names = merged.map(seenKey)
        expect(new Set(names).size).toBe(names.length)
        const numbers = merged.map(({ generation, epoch }) => generation * 100 + epoch)
        expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
      })
    )
  })
  test('is decided where one of them saw it decided, and has every VM that any of them saw', () => {
    fc.assert(
      fc.property(accounts, all => {
        for (const epoch of mergeSeen(all)) {
          const told = all.flatMap(({ epochs }) => epochs.filter(each => seenKey(each) === seenKey(epoch)))
          expect(epoch.outcome === 'open').toBe(told.every(({ outcome }) => outcome === 'open'))
          const vms = new Set(told.flatMap(each => Object.keys(each.vms)))
          expect(Object.keys(epoch.vms).sort()).toEqual([...vms].sort())
        }
      })
    )
  })
  test('has a VM’s pause from who ran it and the reason from who opened the epoch', () => {
    const image = imageOf(5)
    const cause = { by: 'p1', policy: 'interval', why: 'every 10 s' }
    const opener = seen(3, { tookMs: 900, cause, vms: { a: { pauseMs: 9 }, b: { image } } })
    const owner = seen(3, { tookMs: 400, vms: { b: { pauseMs: 4, image } } })
    const accountsOf = [
      { by: 'p2', epochs: [owner] },
      { by: 'p1', epochs: [opener] }
    ]
    expect(mergeSeen(accountsOf)).toEqual([
      { ...opener, vms: { a: { pauseMs: 9 }, b: { pauseMs: 4, image } }, seenBy: ['p1', 'p2'] }
    ])
  })
})

test('an account beyond the limits, or with a word that is not known, is refused', () => {
  expect(parseSeenEpoch(seen(1, { vms: { a: cut } }))).toEqual(seen(1, { vms: { a: cut } }))
  const vms = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`vm${i}`, cut]))
  const bad = [
    { outcome: 'lost' },
    { openedAtMs: -1 },
    { epoch: 1.5 },
    { reason: 'x'.repeat(301) },
    { more: 1 },
    { vms }
  ]
  for (const wrong of bad) expect(() => parseSeenEpoch({ ...seen(1), ...wrong })).toThrow()
})
