import { describe, expect, it } from 'vitest'
import { planText } from '../../node/edge/cli-plan.ts'
import type { Overview } from '../../node/edge/overview-view.ts'
import { listedVms, vmListText } from '../../node/edge/vm-list.ts'
import { verdictOf } from '../../node/dashboard/model/verdict.ts'
import { type ObstacleFacts, obstacleTo } from '../../node/planning/obstacles.ts'
import { type Obstacle, outlookSchema } from '../../protocols/overview/outlook.ts'

const TRIO = ['oak', 'elm', 'ash']
/** 5 columns over 3 hosts, of which it takes 3. */
const stream = { k: 3, places: [['oak'], ['elm'], ['ash'], ['oak'], ['elm']] }
const healthy: ObstacleFacts = {
  voters: TRIO,
  living: TRIO,
  images: [{ vm: 'a', streams: [stream] }],
  hasHomeless: false
}
const witnesses = ['wit', 'wat']

describe('what would keep a group from coming back if a host died', () => {
  it('is nothing where the others are a majority, and have enough columns and room', () => {
    for (const lost of TRIO) expect(obstacleTo(lost, healthy)).toBeUndefined()
  })

  it('is that no majority would live, where another voter is dead already', () => {
    const facts = { ...healthy, living: ['oak', 'elm'] }
    expect(obstacleTo('oak', facts)).toEqual({ kind: 'no-majority', live: 1, voters: 3 })
    expect(obstacleTo('oak', { ...facts, voters: ['elm'] })?.kind).not.toBe('no-majority')
    expect(obstacleTo('oak', { ...healthy, voters: ['oak', 'elm'] })).toMatchObject({ live: 1, voters: 2 })
  })

  it('is that too few columns would be left, of the VM that lacks most', () => {
    const facts = { ...healthy, voters: ['elm', ...witnesses], living: ['oak', 'elm', ...witnesses] }
    expect(obstacleTo('oak', facts)).toEqual({ kind: 'columns', vm: 'a', left: 2, columns: 5, needs: 3 })
    const worse = { vm: 'b', streams: [stream, { k: 3, places: [['elm'], ['oak'], ['oak'], ['oak'], []] }] }
    expect(obstacleTo('oak', { ...facts, images: [...facts.images, worse] })).toMatchObject({ vm: 'b', left: 1 })
    const rebuilt = { k: 3, places: [['oak'], ['elm'], ['ash', 'elm'], ['oak'], ['elm']] }
    expect(obstacleTo('oak', { ...facts, images: [{ vm: 'a', streams: [rebuilt] }] })).toBeUndefined()
  })

  it('is that no host has room', () => {
    expect(obstacleTo('oak', { ...healthy, hasHomeless: true })).toEqual({ kind: 'no-room' })
  })
})

const NO_MAJORITY: Obstacle = { kind: 'no-majority', live: 1, voters: 3 }
const COLUMNS: Obstacle = { kind: 'columns', vm: 'a', left: 2, columns: 5, needs: 3 }
const outlook = (why: Obstacle | undefined) =>
  ({
    backMs: null,
    never: true,
    why,
    parts: { detectMs: null, decideMs: null, runsMs: null },
    bySettings: [],
    lossMs: 2_000,
    missed: []
  }) as const

function overview(why: Obstacle | undefined): Overview {
  const vm = (id: string) => ({
    group: 'bank',
    vm: id,
    owner: 'p1',
    state: 'running' as const,
    memoryMiB: 128,
    cpus: 1,
    leaseRemainingMs: 500,
    outlook: outlook(why)
  })
  const group = { id: 'bank', generation: 1, epoch: 7, open: null, kept: 1, outputCommit: false, openFlow: false }
  const member = {
    id: 'p1',
    name: 'oak',
    address: '',
    role: 'storage' as const,
    votes: true,
    self: true,
    leaving: false,
    liveness: 'alive' as const,
    connected: true,
    usedMemoryMiB: 0,
    report: null
  }
  const code = { k: 3, m: 2, storage: 3, tolerates: 1, domains: [] }
  return { cluster: 'c', by: 'p1', nowMs: 0, code, members: [member], groups: [group], vms: [vm('a'), vm('b')] }
}

describe('people are told why a VM would not come back', () => {
  it('in the list of VMs', () => {
    const said = (why?: Obstacle) =>
      vmListText(listedVms(overview(why)))
        .split('\n')
        .slice(1)
    expect(said(NO_MAJORITY)[0]).toContain('NOT BACK: no majority of voters without oak (1 of 3 would live)')
    expect(said(COLUMNS)[0]).toContain('NOT BACK: 2 of its 5 columns would be at hand, it takes 3')
    expect(said(COLUMNS)[1]).toContain("NOT BACK: 2 of a's 5 columns would be at hand, it takes 3")
    expect(said()[0]).toContain('NOT BACK: no host has room')
  })

  it('and that one without an epoch boots anew, and all that it did is lost', () => {
    const { groups, vms, ...all } = overview(undefined)
    const said = (backMs: number | null, epoch: number) => {
      const outlooks = vms.map(vm => ({ ...vm, outlook: { ...outlook(undefined), never: undefined, backMs } }))
      const listed = listedVms({ ...all, groups: groups.map(group => ({ ...group, epoch })), vms: outlooks })
      return vmListText(listed).split('\n')[1]
    }
    expect(said(null, 0)).toMatch(/ boots anew, all is lost$/)
    expect(said(2_500, 0)).toMatch(/ boots anew in about 2\.5 s, all is lost$/)
    expect(said(null, 7)).toMatch(/ back, when was not measured, losing 2\.0 s$/)
  })

  it('in a plan, in the place of where VMs go and when they start', () => {
    const loss = { host: 'oak', vms: ['a'], moves: [], homeless: [], obstacle: COLUMNS, together: [] }
    const times = { detectMs: null, decideMs: null, totalMs: null, unmeasured: [] }
    expect(planText([{ group: 'bank', epoch: 7, losses: [{ ...loss, ...times }] }])).toBe(
      "group bank (back to epoch 7)\n  if oak died:\n    NOT BACK: 2 of a's 5 columns would be at hand, it takes 3, and the group stays down"
    )
  })

  it('on the dashboard', () => {
    const said = (why?: Obstacle) => verdictOf(overview(why)).reasons.map(({ text }) => text)
    expect(said(NO_MAJORITY)).toEqual(['Without their hosts no majority is left to bring bank/a and bank/b back.'])
    expect(said(COLUMNS)).toEqual(['Without their hosts too few columns are left to bring bank/a and bank/b back.'])
    expect(said()).toEqual(['No other host has room for bank/a and bank/b.'])
  })

  it('as far as it is understood: of a newer member the reason may be one that this one does not know', () => {
    expect(outlookSchema.parse(outlook(COLUMNS))).toMatchObject({ never: true, why: COLUMNS })
    const newer = outlookSchema.parse({ ...outlook(undefined), why: { kind: 'asleep' } })
    expect(newer).toMatchObject({ never: true, why: undefined })
  })
})
