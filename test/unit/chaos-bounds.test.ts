import { describe, expect, it } from 'vitest'
import { bounded, type Sample } from '../chaos/bounds.ts'
import { unasked } from '../chaos/ends.ts'
import { FAULTS } from '../chaos/faults/list.ts'

describe('what a peer takes', () => {
  const samples = (rss: (i: number) => number, stored: (i: number) => number = () => 40): Sample[] =>
    Array.from({ length: 60 }, (_, i) => ({
      peer: 'p1',
      atMs: 1_000 * i,
      rssMiB: rss(i),
      anonMiB: 80,
      heapMiB: 40,
      heapTakenMiB: 60,
      externalMiB: 20,
      descriptors: 80,
      disk: 0.2,
      storedMiB: stored(i),
      answerMs: 10
    }))
  const found = (...given: Parameters<typeof samples>) => bounded(['p1'], samples(...given))

  it('may go up and down', () => {
    expect(found(i => 150 + 40 * Math.sin(i))).toEqual([])
  })

  it('may not be more than its bound, at any time', () => {
    expect(found(i => (i === 7 ? 5_000 : 150))).toEqual(['p1: resident memory (MiB) is 5000, above 768'])
  })

  it('may not grow and grow', () => {
    expect(found(i => 100 + 5 * i)).toEqual([expect.stringContaining('p1: resident memory (MiB) grew from')])
  })

  it('may be some images more on its disk, as many as streams allow, and not one more with every epoch', () => {
    const steady = () => 150
    expect(found(steady, i => (i < 5 ? 40 : i < 22 ? 80 : 122))).toEqual([])
    expect(found(steady, i => 40 + 4 * i)).toEqual([expect.stringContaining('p1: what it stores (MiB) grew from')])
  })

  it('is not bounded where nobody has seen it', () => {
    expect(
      bounded(
        ['p1', 'p2'],
        samples(() => 150)
      )
    ).toEqual(['p2: what it takes was never seen'])
  })
})

describe('the end of a peer', () => {
  const steps = [{ fault: 'failing-disk', host: 1, atMs: 0, lastsMs: 5_000, seed: 1 }]

  it('is its own where nobody has ended it', () => {
    expect(unasked({ host: 'h1', how: 'exit code 1', asked: false }, steps)).toEqual([
      'the peer of h1 ended by itself: exit code 1'
    ])
    expect(unasked({ host: 'h1', how: 'SIGSEGV', asked: false }, steps)).toHaveLength(1)
  })

  it('is not where it was killed, told to stop, or has lost what it stands on', () => {
    expect(unasked({ host: 'h1', how: 'SIGKILL', asked: false }, steps)).toEqual([])
    expect(unasked({ host: 'h1', how: 'exit code 0', asked: true }, steps)).toEqual([])
    expect(unasked({ host: 'h2', how: 'exit code 1', asked: false }, steps)).toEqual([])
  })

  it('is excused by faults that there are, and by none of networks, kills and clocks', () => {
    const excused = [...FAULTS.keys()].filter(fault => {
      const [step] = steps
      return unasked({ host: 'h2', how: 'SIGSEGV', asked: false }, step ? [{ ...step, fault }] : []).length === 0
    })
    expect(excused.sort()).toEqual([
      'failing-disk',
      'failing-fsync',
      'full-disk',
      'hung-disk',
      'no-descriptors',
      'read-only-disk',
      'register-rot',
      'register-truncation',
      'short-of-memory'
    ])
  })
})
