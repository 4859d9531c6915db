import { describe, expect, it } from 'vitest'
import { delayChecks, type DelayRow, readerDisagrees, shareChecks, sharesOf } from '../bench/loss.ts'
import { measureDelays, quantile } from '../bench/loss-delay.ts'
import { delayPlot, sharePlot } from '../bench/loss-plot.ts'
import { copiesOf, expectedLoss, lostShare } from '../bench/loss-share.ts'
import { generator } from '../sim/kernel.ts'

const seven = { nodes: 7, k: 3, m: 2 }
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

describe('what is lost of an image', () => {
  it('is nothing with a code while at most m nodes are gone, and on average the same in any layout beyond', () => {
    const shares = sharesOf(seven, 400)
    expect(shareChecks(shares).filter(({ ok }) => !ok)).toEqual([])
    expect(shares.filter(({ scheme, mean }) => scheme === 'replication' && mean === 0)).toEqual([])
    expect(sharePlot(shares)).toContain('7 nodes: mean')
  })

  it('is of images that take the same bytes: at 5/3 two thirds of what is replicated have a second copy', () => {
    const copies = range(600).map(copiesOf(seven))
    expect(copies.reduce((sum, count) => sum + count, 0)).toBe(1_000)
    expect([Math.min(...copies), Math.max(...copies)]).toEqual([1, 2])
    const even = range(600).map(copiesOf({ nodes: 7, k: 2, m: 2 }))
    expect(new Set(even)).toEqual(new Set([2]))
  })

  it('is as the formula says, by counting all ways to lose three of five', () => {
    expect(expectedLoss({ nodes: 5, k: 3, m: 2 }, 2)).toBe(0)
    expect(expectedLoss({ nodes: 5, k: 3, m: 2 }, 3)).toBeCloseTo(3 / 5, 12)
    expect(lostShare('diagonal', { nodes: 5, k: 3, m: 2 }, 3, generator(1))).toBeCloseTo(3 / 5, 12)
  })

  it('is what the real reader cannot read, and no more', async () => {
    expect(await readerDisagrees(4)).toBe(0)
  })
})

describe('the delay of reads', () => {
  it('stays near that of a healthy cluster with the forced timeout, and does not without', async () => {
    const rows: DelayRow[] = []
    for (const fault of ['none', 'slow', 'hung', 'gone'] as const) {
      for (const [kind, forcedTimeoutMs] of [
        ['with', 10],
        ['without', Infinity]
      ] as const) {
        const condition = { fault, forcedTimeoutMs, hedge: 0 }
        rows.push({
          ...condition,
          name: `${fault}, ${kind}`,
          delays: await measureDelays({ ...condition, reads: 600, seed: 3 })
        })
      }
    }
    expect(delayChecks(rows).filter(({ ok }) => !ok)).toEqual([])
    const hung = rows.find(({ name }) => name === 'hung, without')
    expect(quantile(hung?.delays.hitMs ?? [], 0.5)).toBeGreaterThan(10_000)
    expect(delayPlot(rows)).toContain('it is hung')
  })

  it('is the same at each run of a seed', async () => {
    const run = () => measureDelays({ fault: 'slow', forcedTimeoutMs: 10, hedge: 1, reads: 60, seed: 5 })
    expect((await run()).allMs).toEqual((await run()).allMs)
  })
})
