import { describe, expect, it } from 'vitest'
import type { VerifyReport } from '../../node/edge/redundancy-view.ts'
import { FAULTS } from '../chaos/faults/list.ts'
import { lacking, spoilt, spoiltBy, surplus, triesDisks, unmended, wantedOf } from '../chaos/redundancy.ts'

const image = (vm: string, epoch: number, tolerates = 2) => ({
  group: 'bank',
  vm,
  epoch,
  streams: 1,
  columns: 3,
  missing: 0,
  tolerates
})
const full: VerifyReport = {
  images: [image('vm1', 7), image('vm2', 7)],
  streams: 2,
  missing: [],
  damaged: [],
  unreadable: [],
  silent: [],
  deep: true
}
const wanted = [
  { vm: 'vm1', epoch: 7 },
  { vm: 'vm2', epoch: 7 }
]
const damaged = ['p2', 'p1', 'p2'].map((member, column) => ({ stream: 's', grid: 0, column, member }))

describe('redundancy', () => {
  it('is full where every image is there and could bear what it should', () => {
    expect(lacking(full, 2, wanted)).toBe('')
  })

  it('is not where an image is not named, none is, or nothing is kept that could be', () => {
    expect(lacking({ ...full, images: [image('vm1', 7)] }, 2, wanted)).toBe('nothing is said of vm2 at epoch 7')
    expect(lacking({ ...full, images: [image('vm1', 7), image('vm2', 6)] }, 2, wanted)).not.toBe('')
    expect(lacking({ ...full, images: [] }, 2, wanted)).toContain('nothing is said of vm1 at epoch 7; nothing')
    expect(lacking(full, 2, [])).toBe('no epoch is kept')
  })

  it('is not where columns are missing or damaged, nobody can read one, somebody is silent, or an image bears less', () => {
    const missing = [{ stream: 's', column: 1, holder: 'p3' }]
    expect(lacking({ ...full, missing }, 2, wanted)).toBe('1 columns are missing at p3')
    expect(lacking({ ...full, damaged }, 2, wanted)).toBe('3 columns are damaged at p1, p2')
    expect(lacking({ ...full, unreadable: [{ what: 'stream s', why: 'EIO' }] }, 2, wanted)).toBe(
      'stream s cannot be read: EIO'
    )
    expect(lacking({ ...full, silent: ['p2'] }, 2, wanted)).toBe('p2 did not answer')
    expect(lacking({ ...full, images: [image('vm1', 7), image('vm2', 7, 1)] }, 2, wanted)).toBe(
      'vm2 at epoch 7 bears the loss of 1'
    )
  })

  it('is asked of images that were kept before and after', () => {
    const epoch = (number: number) => ({ epoch: number, generation: 1, images: { vm1: 'a', vm2: 'b' } })
    const record = (committed: number, ...kept: number[]) => ({
      version: 1,
      generation: 1,
      lastEpoch: 9,
      committed: { ...epoch(committed), previousEpoch: 0 },
      kept: kept.map(epoch)
    })
    expect(wantedOf(record(7, 5, 6), record(8, 6, 7))).toEqual([
      { vm: 'vm1', epoch: 6 },
      { vm: 'vm2', epoch: 6 },
      { vm: 'vm1', epoch: 7 },
      { vm: 'vm2', epoch: 7 }
    ])
    const none = { version: 1, generation: 1, lastEpoch: 0, committed: null }
    expect(wantedOf(none, record(8))).toEqual([])
    expect(wantedOf(record(8), none)).toEqual([])
  })
})

describe('what is stored', () => {
  it('is damaged by faults of shards at the hosts that they hit, and else by the product', () => {
    expect(spoilt(full, [])).toEqual([])
    expect(spoilt({ ...full, damaged }, ['p1', 'p2'])).toEqual([])
    expect(spoilt({ ...full, damaged }, ['p2', 'p3'])).toEqual([
      '1 columns are damaged at p1, and no fault has done that'
    ])
    expect(spoilt({ ...full, damaged }, [])).toEqual(['3 columns are damaged at p1, p2, and no fault has done that'])
  })

  it('is damaged by rot and by files that end early, and by nothing else that is done to hosts', () => {
    const hit = [...FAULTS.keys()].filter(fault => spoiltBy([{ fault, host: 1 }]).length > 0)
    expect(hit.sort()).toEqual(['rot', 'truncation'])
    const steps = ['rot', 'register-rot', 'failing-disk', 'truncation'].map((fault, host) => ({ fault, host }))
    expect(spoiltBy(steps)).toEqual(['p1', 'p4'])
  })

  it('is what kept images need, and what epochs on their way may: no stream more', () => {
    const of = (streams: number) =>
      surplus(
        [
          { host: 'h1', streams: 2 },
          { host: 'h2', streams }
        ],
        full
      )
    expect(of(2 + 8)).toEqual([])
    expect(of(2 + 9)).toEqual(['h2 has 11 streams, and kept images need 2'])
    expect(of(Number.NaN)).toHaveLength(1)
  })

  it('is not full while a host knows of damage that it has not mended, or does not say', () => {
    expect(unmended([{ host: 'h1', damaged: 0 }])).toBe('')
    const hosts = ['h1', 'h2', 'h3'].map((host, i) => ({ host, damaged: [2, 0, NaN][i] ?? 0 }))
    expect(unmended(hosts)).toBe('h1 has not mended 2 columns; h3 has not mended NaN columns')
  })

  it('is read again after faults of disks and power', () => {
    expect([...FAULTS.keys()].filter(triesDisks).sort()).toEqual([
      'all-power-loss',
      'failing-disk',
      'failing-fsync',
      'full-disk',
      'hung-disk',
      'power-loss',
      'rack-power-loss',
      'read-only-disk',
      'slow-disk'
    ])
  })
})
