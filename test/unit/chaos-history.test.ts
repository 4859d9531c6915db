import { describe, expect, it } from 'vitest'
import { CLEARLY_MS, History, type RecordSeen } from '../chaos/history.ts'

const LATER = CLEARLY_MS + 1
const at = (epoch: number, atMs: number) => ({ epoch, atMs })
const decided = (generation: number, epoch: number, atMs: number, owners: Record<string, string> = {}) => ({
  generation,
  epoch,
  atMs,
  owners
})

describe('a committed epoch', () => {
  it('is there where what comes after it begins from it, or from a later one', () => {
    const history = new History()
    history.onCommitted(at(6, 1_000))
    history.onCommitted(at(7, 5_000))
    history.onDecided(decided(2, 7, 20_000))
    history.onCommitted(at(8, 24_000))
    history.onRuns({ generation: 3, epoch: 8, vm: 'vm1', host: 'h1', atMs: 40_000 })
    expect(history.lost()).toEqual([])
    expect(history.committed).toBe(8)
  })

  it('is lost where a takeover begins from an older one, also if its number is used again', () => {
    const history = new History()
    history.onCommitted(at(6, 1_000))
    history.onCommitted(at(7, 5_000))
    history.onDecided(decided(2, 6, 20_000))
    history.onCommitted(at(7, 24_000))
    history.onCommitted(at(8, 28_000))
    expect(history.lost()).toEqual(['generation 2 began from epoch 6, and 7 was committed before'])
  })

  it('is lost where a VM goes on from an older one, and nobody lived to tell of the takeover', () => {
    const history = new History()
    history.onCommitted(at(7, 5_000))
    history.onRuns({ generation: 2, epoch: 6, vm: 'vm1', host: 'h1', atMs: 20_000 })
    history.onRuns({ generation: 2, epoch: 7, vm: 'vm2', host: 'h2', atMs: 20_000 })
    expect(history.lost()).toEqual(['generation 2 began from epoch 6, and 7 was committed before'])
  })

  it('is lost where a VM boots', () => {
    const history = new History()
    history.onCommitted(at(7, 5_000))
    history.onRuns({ generation: 2, epoch: 0, vm: 'vm1', host: 'h1', atMs: 20_000 })
    expect(history.lost()).toEqual(['generation 2 began from no epoch, and 7 was committed before'])
  })

  it('may be told a little before a takeover that was decided before it', () => {
    const lost = (afterMs: number): string[] => {
      const history = new History()
      history.onCommitted(at(7, 5_000))
      history.onDecided(decided(2, 6, 5_000 + afterMs))
      return history.lost()
    }
    expect(lost(CLEARLY_MS)).toEqual([])
    expect(lost(LATER)).toHaveLength(1)
  })

  it('is not missed by a takeover whose peer stood still before it could tell, if a later one was told', () => {
    const history = new History()
    history.onDecided(decided(3, 6, 1_000))
    history.onCommitted(at(7, 9_000))
    history.onDecided(decided(2, 6, 30_000))
    expect(history.lost()).toEqual([])
  })

  it('is lost where its number is told to be aborted, whatever came first', () => {
    const [one, other] = [new History(), new History()]
    one.onCommitted(at(7, 1))
    one.onAborted(7)
    other.onAborted(7)
    other.onAborted(8)
    other.onCommitted(at(7, 1))
    const lost = ['epoch 7 was told to be committed, and to be aborted']
    expect([one.lost(), other.lost()]).toEqual([lost, lost])
  })
})

describe('a group that was taken back', () => {
  const taken = (): History => {
    const history = new History()
    for (const epoch of [5, 6, 7]) history.onCommitted(at(epoch, epoch * 1_000))
    history.onBack({ generation: 4, epoch: 5, lastEpoch: 8 })
    return history
  }

  it('begins from that epoch, or from what was committed since', () => {
    const history = taken()
    history.onRuns({ generation: 4, epoch: 5, vm: 'vm1', host: 'h1', atMs: 20_000 })
    history.onDecided(decided(5, 5, 25_000))
    history.onAborted(6)
    history.onCommitted(at(9, 30_000))
    history.onDecided(decided(6, 9, 40_000))
    expect(history.lost()).toEqual([])
  })

  it('has lost an epoch where it begins from one before', () => {
    const history = taken()
    history.onRuns({ generation: 4, epoch: 4, vm: 'vm1', host: 'h1', atMs: 20_000 })
    history.onCommitted(at(9, 30_000))
    history.onDecided(decided(5, 5, 40_000))
    expect(history.lost()).toEqual([
      'generation 4 began from epoch 4, and 5 was committed before',
      'generation 5 began from epoch 5, and 9 was committed before'
    ])
  })

  it('does not excuse what was lost before', () => {
    const history = taken()
    history.onDecided(decided(3, 6, 12_000))
    expect(history.lost()).toEqual(['generation 3 began from epoch 6, and 7 was committed before'])
  })
})

describe('the record', () => {
  const committed = (epoch: number, image: string) => ({
    epoch,
    generation: 1,
    previousEpoch: epoch - 1,
    images: { vm1: image }
  })
  const before: RecordSeen = {
    version: 50,
    generation: 3,
    lastEpoch: 8,
    committed: committed(7, 'c'),
    kept: [committed(6, 'b')],
    held: [{ epoch: 3, images: { vm1: 'a' }, by: 'somebody' }]
  }
  const lost = (now: Partial<RecordSeen>): string[] => {
    const history = new History()
    history.onRecord(before, {}, 1_000)
    history.onRecord({ ...before, ...now }, {}, 9_000)
    return history.lost()
  }

  it('may have newer numbers, and forget epochs', () => {
    const next = { version: 90, generation: 5, lastEpoch: 12, committed: committed(12, 'z'), kept: [], held: [] }
    expect(lost({})).toEqual([])
    expect(lost(next)).toEqual([])
  })

  it('has lost a write where a number of it is smaller', () => {
    expect(lost({ version: 49 })).toEqual(['the record was of version 50, and is of 49'])
    expect(lost({ generation: 2 })).toEqual(['the record was of generation 3, and is of 2'])
    expect(lost({ lastEpoch: 7 })).toEqual(['the record was of lastEpoch 8, and is of 7'])
  })

  it('has lost an epoch where another has its number, wherever it is named', () => {
    const other = (epoch: number) => [`epoch ${epoch} has another image of vm1 than it had`]
    expect(lost({ committed: committed(7, 'x') })).toEqual(other(7))
    expect(lost({ committed: committed(9, 'x'), kept: [committed(7, 'x')] })).toEqual(other(7))
    expect(lost({ kept: [committed(6, 'x')] })).toEqual(other(6))
    expect(lost({ held: [{ epoch: 3, images: { vm1: 'x' }, by: 'somebody' }] })).toEqual(other(3))
    expect(lost({ committed: { ...committed(7, 'c'), generation: 2 } })).toEqual([
      'epoch 7 is of generation 2, and was of 1'
    ])
  })

  it('remembers images of epochs that records before the last one named', () => {
    const history = new History()
    history.onRecord(before, {}, 1_000)
    history.onRecord({ ...before, version: 51, kept: [] }, {}, 2_000)
    history.onRecord({ ...before, version: 52, kept: [committed(6, 'x')] }, {}, 3_000)
    expect(history.lost()).toEqual(['epoch 6 has another image of vm1 than it had'])
  })

  it('says of an image that is only held by one VM’s reader nothing about those of others', () => {
    expect(lost({ held: [{ epoch: 7, images: {}, by: 'somebody' }] })).toEqual([])
    expect(lost({ held: [{ epoch: 7, images: { vm2: 'y' }, by: 'somebody' }] })).toEqual([])
    const forgets = { held: [{ epoch: 7, images: { vm2: 'y' }, by: 'somebody' }], committed: committed(9, 'z') }
    const history = new History()
    for (const now of [before, { ...before, ...forgets }, { ...before, ...forgets, kept: [committed(7, 'x')] }])
      history.onRecord(now, {}, 1_000)
    expect(history.lost()).toEqual(['epoch 7 has another image of vm1 than it had'])
  })

  it('tells a commit that no event told', () => {
    const history = new History()
    history.onRecord(before, {}, 1_000)
    history.onDecided(decided(4, 6, 20_000))
    expect(history.lost()).toEqual(['generation 4 began from epoch 6, and 7 was committed before'])
  })
})

describe('owners', () => {
  it('are told by decisions, by who runs a VM, and by records', () => {
    const history = new History()
    history.onRuns({ generation: 1, epoch: 0, vm: 'vm1', host: 'h1', atMs: 100 })
    history.onDecided(decided(2, 0, 200, { vm1: 'h2', vm2: 'h1' }))
    history.onRuns({ generation: 2, epoch: 0, vm: 'vm1', host: 'h2', atMs: 300 })
    history.onRecord({ version: 9, generation: 4, lastEpoch: 0, committed: null }, { vm1: 'h3' }, 900)
    expect([...history.generations].sort(([a], [b]) => a - b)).toEqual([
      [1, { toldMs: 100, owners: { vm1: 'h1' } }],
      [2, { toldMs: 200, owners: { vm1: 'h2', vm2: 'h1' } }],
      [4, { toldMs: undefined, owners: { vm1: 'h3' } }]
    ])
    expect(history.newest).toBe(4)
    expect([...history.disputes('vm1'), ...history.disputes('vm2')]).toEqual([])
  })

  it('were decided before the next ones, however late that is told', () => {
    const history = new History()
    history.onDecided(decided(3, 0, 500, { vm1: 'h3' }))
    history.onDecided(decided(2, 0, 9_000, { vm1: 'h2' }))
    expect(history.generations.get(2)?.toldMs).toBe(500)
    expect(history.generations.get(3)?.toldMs).toBe(500)
  })

  it('are in dispute where another host runs the VM than was decided, which does not make it right', () => {
    const history = new History()
    history.onDecided(decided(2, 0, 200, { vm1: 'h2' }))
    history.onRuns({ generation: 2, epoch: 0, vm: 'vm1', host: 'h1', atMs: 300 })
    expect(history.disputes('vm1')).toEqual(['in generation 2 vm1 runs as h1’s, and was h2’s before'])
    expect(history.generations.get(2)?.owners).toEqual({ vm1: 'h2' })
  })

  it('are in dispute where two hosts run the VM in one generation, and nobody told of the decision', () => {
    const history = new History()
    for (const host of ['h1', 'h2', 'h2']) history.onRuns({ generation: 2, epoch: 0, vm: 'vm1', host, atMs: 300 })
    expect(history.disputes('vm1')).toEqual(['in generation 2 vm1 runs as h2’s, and was h1’s before'])
    expect(history.disputes('vm2')).toEqual([])
  })

  it('are in dispute where one generation is decided twice, differently', () => {
    const history = new History()
    history.onDecided(decided(2, 0, 200, { vm1: 'h2', vm2: 'h1' }))
    history.onDecided(decided(2, 0, 200, { vm1: 'h2', vm2: 'h1' }))
    expect(history.disputes('vm2')).toEqual([])
    history.onDecided(decided(2, 0, 200, { vm1: 'h2', vm2: 'h3' }))
    expect(history.disputes('vm2')).toEqual(['in generation 2 vm2 was decided to be h3’s, and was h1’s before'])
  })

  it('are in dispute where the record names another', () => {
    const history = new History()
    history.onRuns({ generation: 2, epoch: 0, vm: 'vm1', host: 'h1', atMs: 300 })
    history.onRecord({ version: 9, generation: 2, lastEpoch: 0, committed: null }, { vm1: 'h3' }, 900)
    expect(history.disputes('vm1')).toEqual(['in generation 2 vm1 is in the record as h3’s, and was h1’s before'])
  })
})
