import { describe, expect, it } from 'vitest'
import type { GroupGraph } from '../../node/edge/graph-view.ts'
import type { GridStream } from '../../node/edge/grid-view.ts'
import type { EpochPast } from '../../node/edge/history-view.ts'
import type { Overview, OverviewMember, OverviewVm } from '../../node/edge/overview-view.ts'
import { linesOf, standingsOf } from '../../node/dashboard/model/circle.ts'
import { epochText, joinEpochs, rowOf, stretchOf } from '../../node/dashboard/model/epochs.ts'
import { codewordOf, gridSummary, symbolsOf } from '../../node/dashboard/model/grid.ts'
import { ageOf, bytesOf, durationOf, listOf, sinceOf } from '../../node/dashboard/model/text.ts'
import { verdictOf } from '../../node/dashboard/model/verdict.ts'
import { diagonalMembers } from '../../node/erasure/grid.ts'

const member = (name: string, more: Partial<OverviewMember> = {}): OverviewMember => ({
  id: name,
  name,
  address: '',
  role: 'storage',
  votes: true,
  self: false,
  leaving: false,
  liveness: 'alive',
  connected: true,
  usedMemoryMiB: 0,
  report: null,
  ...more
})
const vm = (name: string, more: Partial<OverviewVm> = {}): OverviewVm => ({
  group: 'bank',
  vm: name,
  owner: 'a',
  state: 'running',
  memoryMiB: 64,
  cpus: 1,
  leaseRemainingMs: 900,
  ...more
})
const overview = (more: Partial<Overview> = {}): Overview => ({
  cluster: 'c',
  by: 'a',
  nowMs: 0,
  code: { k: 2, m: 1, storage: 3, tolerates: 1, domains: [] },
  members: ['a', 'b', 'c'].map(name => member(name)),
  groups: [],
  vms: [vm('x'), vm('y')],
  ...more
})

describe('the verdict', () => {
  it('is one calm sentence while nothing is wrong', () => {
    expect(verdictOf(overview())).toEqual({
      tone: 'good',
      text: 'All 2 VMs run. Any 1 of 3 members may vanish without loss.',
      reasons: []
    })
  })

  it('says the worst first', () => {
    const members = [member('a'), member('b', { liveness: 'dead' }), member('c')]
    const { tone, text, reasons } = verdictOf(overview({ members, vms: [vm('x'), vm('y', { state: 'starting' })] }))
    expect([tone, text]).toEqual(['bad', 'b is dead.'])
    expect(reasons.map(reason => reason.text)).toEqual(['b is dead.', 'bank/y on the way back.'])
  })

  it('says that nothing can be decided before all else', () => {
    const members = [member('a'), member('b', { liveness: 'dead' }), member('c', { liveness: 'dead' })]
    expect(verdictOf(overview({ members })).text).toContain('No majority: 1 of 3 voters')
  })

  it('says that nothing is saved any more, and no word of safety', () => {
    const group = { id: 'bank', generation: 1, epoch: 4, open: null, kept: 1, outputCommit: false, openFlow: false }
    const { tone, text } = verdictOf(overview({ vms: [vm('vm1')], groups: [{ ...group, overdueMs: 600_000 }] }))
    expect(tone).toBe('bad')
    expect(text).toMatch(/^bank was saved last 10 min 0 s ago: /)
    expect(verdictOf(overview({ vms: [vm('vm1')], groups: [group] })).tone).toBe('good')
  })

  it('names no more VMs than one reads', () => {
    const vms = Array.from({ length: 30 }, (_, i) => vm(`v${i}`, { state: 'lost' }))
    expect(verdictOf(overview({ vms })).text).toBe('bank/v0, bank/v1, bank/v2 and 27 more lost their host.')
  })
})

describe('the diagonal grid as it is drawn', () => {
  it('is said to be there where columns are known, and not where none is', () => {
    const none = { group: 'g', epoch: 1, generation: 1, lookedMs: 0, members: [], images: [], unreadable: [] }
    expect(gridSummary(none, 3_000)).toBe('no column is known · looked 3 s ago')
    const columns = [{ column: 0, planned: 'p1', places: ['p1'], state: 'there' }] as const
    const image = { vm: 'a', tolerates: 0, streams: [{ stream: 's', k: 1, m: 0, grids: 1, columns }] }
    expect(gridSummary({ ...none, images: [image] }, 0)).toBe('all 1 columns are there')
  })

  const stream: GridStream = {
    stream: 's',
    k: 3,
    m: 2,
    grids: 1,
    columns: [0, 1, 2, 3, 4, 5].map(column => ({
      column,
      state: column === 1 ? 'lost' : 'there',
      planned: 'a',
      places: []
    }))
  }

  it('has each symbol on the diagonal where the erasure code puts it', () => {
    for (let diagonal = 0; diagonal < 6; diagonal++) {
      const drawn = symbolsOf(stream).filter(symbol => symbol.diagonal === diagonal)
      const places = drawn.map(({ column, row }) => ({ column, row })).toSorted((a, b) => a.row - b.row)
      expect(places).toEqual(diagonalMembers({ columns: 6, k: 3, m: 2 }, diagonal))
    }
  })

  it('costs each codeword that a lost column touches one symbol', () => {
    const there = [0, 1, 2, 3, 4, 5].map(diagonal => codewordOf(stream, diagonal).there)
    expect(there.toSorted((a, b) => a - b)).toEqual([4, 4, 4, 4, 4, 5])
  })
})

describe('the epochs of a group', () => {
  const past = (epoch: number, more: Partial<EpochPast> = {}): EpochPast => ({
    epoch,
    generation: 1,
    outcome: 'committed',
    kept: false,
    committed: false,
    holds: [],
    vms: [],
    ...more
  })

  it('are told by the VM that stood still longest and by what all stored', () => {
    const vms = [
      { vm: 'x', pauseMs: 3, storedBytes: 1_024 },
      { vm: 'y', pauseMs: 9.44, storedBytes: 2_048 }
    ]
    const row = rowOf(past(7, { tookMs: 812, vms }))
    expect(row).toMatchObject({ pauseMs: 9.44, slowest: 'y', storedBytes: 3_072, changedBytes: undefined })
    expect(epochText(row)).toBe('epoch 7 · committed after 812 ms · longest pause 9.4 ms (y) · 3.0 KiB stored')
  })

  it('are drawn with some time around a lone one, and from the first to the last of more', () => {
    expect(stretchOf(100, 100)).toEqual([70, 130])
    expect(stretchOf(100, 110)).toEqual([100, 110])
  })

  it('are replaced by what is known newer, also where a generation counts from 1 again', () => {
    const known = [past(6), past(7, { outcome: 'open' })].map(rowOf)
    const names = (fresh: readonly EpochPast[]): string[] =>
      joinEpochs(known, fresh).map(({ key, outcome }) => `${key} ${outcome}`)
    expect(names([past(7), past(8)])).toEqual(['1.6 committed', '1.7 committed', '1.8 committed'])
    expect(names([past(1, { generation: 2 })])).toEqual(['1.6 committed', '1.7 open', '2.1 committed'])
    expect(names([])).toEqual(['1.6 committed', '1.7 open'])
  })
})

describe('who speaks with whom', () => {
  const edge = { network: 'default', sent: 4, sentBytes: 400, answers: 3, answerMs: 1 }
  const start = (name: string) => ({ vm: name, on: 'a', readyMs: 1, atMs: 2, without: [] })
  const graph: GroupGraph = {
    group: 'bank',
    epoch: 3,
    vms: ['c', 'a', 'b'].map(name => ({ vm: name, host: 'h', hostName: 'h', told: true })),
    edges: [
      { ...edge, from: 'a', to: 'b', waits: true },
      { ...edge, from: 'a', to: 'gone', waits: false }
    ],
    together: [
      { starts: [start('a'), start('b')], waits: [] },
      { starts: [start('c')], waits: [] }
    ]
  }

  it('has those that start together side by side, and lines only between VMs that are there', () => {
    const standings = standingsOf(graph, 100)
    expect(standings.map(({ vm: name, part }) => [name, part])).toEqual([
      ['c', -1],
      ['a', 0],
      ['b', 0]
    ])
    expect(linesOf(graph, standings).map(({ words }) => words)).toEqual([
      'a → b on default: 4 frames; a waits for b: 3 answers after 1.0 ms'
    ])
  })
})

describe('numbers as words', () => {
  it('are short and have their units', () => {
    expect([412.4, 4_230, 200_000, 7_500_000, 280_000_000].map(durationOf)).toEqual([
      '412 ms',
      '4.2 s',
      '3 min 20 s',
      '2 h 5 min',
      '3 d 5 h'
    ])
    expect([300, 4_999, 61_000].map(ageOf)).toEqual(['now', '4 s', '1 min'])
    // Below nothing: the clock of whoever committed it is ahead.
    expect([300, 4_999, -4_999, undefined].map(sinceOf)).toEqual([
      'in the last second',
      'in the last 4 s',
      'since',
      'since'
    ])
    expect([912, 1_536, 200 * 2 ** 20].map(bytesOf)).toEqual(['912 B', '1.5 KiB', '200 MiB'])
    expect([listOf([]), listOf(['a']), listOf(['a', 'b', 'c'])]).toEqual(['', 'a', 'a, b and c'])
  })
})
