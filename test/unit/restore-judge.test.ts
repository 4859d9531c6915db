import { describe, expect, it } from 'vitest'
import { checksOf, median, type Round, type SizeSeen, tableOf } from '../bench/restore-judge.ts'
import type { Way } from '../bench/restore-vm.ts'

function round(runMs: number, pagesFaulted: number, faultMs?: readonly number[]): Round {
  const delivered = faultMs && { ramHash: '', faultMs, missing: 0, twice: 0 }
  return {
    runMs,
    answerMs: runMs + 20,
    answer: { kind: 'status', pages: 1, hash: Number.NaN },
    bytesBefore: 2_500_000,
    completed: { completeMs: runMs + 1_000, pagesFaulted, pagesPushed: 9, delivered }
  }
}

const RUN_MS: Readonly<Record<Way, number>> = { plain: 200, 'working set': 150, standby: 20 }
const FAULTS: Readonly<Record<Way, number>> = { plain: 100, 'working set': 10, standby: 0 }

/** All bounds hold, just so. */
function size(memoryMiB: number, times = 1): SizeSeen {
  const rounds = (way: Way) => [100, 1, 1.1].map(part => round(RUN_MS[way] * part * times, FAULTS[way]))
  const local = [{ runMs: 900, answerMs: 1_000 }]
  return {
    memoryMiB,
    rounds: { plain: rounds('plain'), 'working set': rounds('working set'), standby: rounds('standby') },
    looked: { plain: round(9_999, 100, [1, 2, 3, 40]), 'working set': round(9_999, 10, [5]) },
    incoming: local,
    loadvm: [{ runMs: 2_000, answerMs: 2_100 }]
  }
}

const failed = (seen: readonly SizeSeen[]) =>
  checksOf(seen)
    .filter(({ ok }) => !ok)
    .map(({ name }) => name)

describe('restores of several sizes', () => {
  it('are judged by medians, and pass where all bounds hold', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(failed([size(256), size(1_024), size(4_096, 1.19)])).toEqual([])
  })

  it('fail where the largest VM is back later than 1.2 times the smallest', () => {
    expect(failed([size(256), size(1_024), size(4_096, 1.2)])).toEqual([
      'plain: first instruction, 4096 MiB by 256',
      'working set: first instruction, 4096 MiB by 256'
    ])
  })

  it('fail where one is not back in time, waits for too many pages, or is no faster than a full load', () => {
    const seen = size(1_024)
    const slow = {
      ...seen,
      rounds: { ...seen.rounds, 'working set': [round(400, 11)], standby: [round(30, 0)] },
      looked: {}
    }
    expect(failed([slow])).toEqual([
      'working set: first instruction, 1024 MiB',
      'standby: first instruction, 1024 MiB',
      'working set: part of faults that it saves, 1024 MiB',
      "working set: first instruction, QEMU's full load by it, 1024 MiB"
    ])
  })

  it('are told beside what QEMU takes for a full load, faults by the round that was looked at', () => {
    const [, , plain, , , incoming] = tableOf([size(256)])
    expect(plain).toMatch(/plain +256 +220 +240 +1,220 +100 +3\.0 +40\.0 +2\.5/)
    expect(incoming).toMatch(/-incoming +256 +900 +1,000 +900/)
  })
})
