import { describe, expect, it } from 'vitest'
import type { Sample } from '../chaos/bounds.ts'
import { type SoakSeen, soakChecks } from '../chaos/soak-judge.ts'

const steady = { rssMiB: 200, anonMiB: 150, heapMiB: 40, heapTakenMiB: 50, externalMiB: 20 }

/** Half an hour, a sample every five seconds: `rss` and `descriptors` by the minute that it is. */
function soak(change: Partial<Record<'rssMiB' | 'descriptors' | 'loopMeanMs', (minute: number) => number>>): SoakSeen {
  const samples = Array.from({ length: 360 }, (_, i): Sample => {
    const minute = Math.floor(i / 12)
    const { rssMiB = () => steady.rssMiB, descriptors = () => 90, loopMeanMs = () => 22 } = change
    const seen = { rssMiB: rssMiB(minute), descriptors: descriptors(minute), loopMeanMs: loopMeanMs(minute) }
    return {
      peer: 'p1',
      pid: 7,
      restores: 0,
      atMs: i * 5_000,
      ...steady,
      ...seen,
      disk: 0.1,
      storedMiB: 40,
      vms: 1,
      answerMs: 3,
      loopP99Ms: 80
    }
  })
  return { minutes: 30, intervalMs: 10_000, peers: ['p1'], samples, epochs: 180, broken: [] }
}

const failed = (seen: SoakSeen): string[] => soakChecks(seen).flatMap(({ ok, name }) => (ok ? [] : [name]))

describe('a soak', () => {
  it('holds where what a peer takes stands still after its fifth minute, whatever it took before', () => {
    expect(failed(soak({ rssMiB: minute => (minute < 4 ? 100 + minute : 200 + (minute % 3)) }))).toEqual([])
  })

  it('is red where memory of a peer is a tenth more at the end than in its fifth minute, or descriptors half of it', () => {
    expect(failed(soak({ rssMiB: minute => 200 + minute }))).toEqual(['soak.rssGrowth p1'])
    expect(failed(soak({ descriptors: minute => 90 + 2 * minute }))).toEqual(['soak.descriptorsGrowth p1'])
  })

  it('is red where a peer is later and later with its work, and where it takes more than any may at any moment', () => {
    expect(failed(soak({ loopMeanMs: minute => 22 + minute / 2 }))).toEqual(['soak.loopDelayGrowth p1'])
    const { samples, ...seen } = soak({})
    const once = samples.map((each, i) => (i === 100 ? { ...each, answerMs: 9_000 } : each))
    expect(failed({ ...seen, samples: once })).toEqual(['soak: bounds broken'])
  })

  it('is red where a peer was not seen in its last minute, and where epochs did not come', () => {
    const seen = soak({})
    expect(failed({ ...seen, samples: seen.samples.slice(0, 300) })).toContain('soak.rssGrowth p1')
    expect(failed({ ...seen, epochs: 100 })).toEqual(['soak: epochs committed'])
  })

  it('is red where a peer was never seen at all', () => {
    const [bounds, ...growth] = failed({ ...soak({}), peers: ['p1', 'p2'] })
    expect(bounds).toBe('soak: bounds broken')
    expect(growth).toEqual(['rss', 'descriptors', 'loopDelay', 'stored'].map(name => `soak.${name}Growth p2`))
  })

  it('takes the median of a minute: one moment says nothing', () => {
    const { samples, ...seen } = soak({})
    const last = samples.length - 1
    expect(
      failed({ ...seen, samples: samples.map((each, i) => (i === last ? { ...each, rssMiB: 700 } : each)) })
    ).toEqual([])
  })
})
