import { describe, expect, it } from 'vitest'
import type { KnownEvent, SeenEvent } from '../demo/events.ts'
import { readEvent } from '../demo/events.ts'
import { makeReport, type Seen } from '../demo/report.ts'
import { plain, reportText } from '../demo/text.ts'
import type { BankReport } from '../guest/console.ts'

const KILL = 10_000
const stats = {
  pages: 9,
  pagesNonZero: 5,
  pagesChanged: 4,
  bytesRaw: 1e6,
  bytesData: 4e5,
  bytesStored: 7e5,
  inFlightFrames: 1
}
const seen = (by: string, event: KnownEvent): SeenEvent => ({ by, event })
const about = (atMs: number, fields: { vm?: string; epoch?: number } = {}) => ({
  atMs,
  group: 'bank',
  vm: '',
  epoch: 1,
  ...fields
})

const audit = (vm: number, extra: Partial<BankReport> = {}): BankReport => {
  const other = 3 - vm
  const none = { gaps: 0, doubles: 0, bad: 0, broken: 0, conns: 2, stallMs: 20 + vm, uptimeMs: 5, id: 1 }
  const channel = new Map([[other, { count: 10, sum: 100 }]])
  return { kind: 'AUDIT', vm, nonce: `nonce${vm}`, money: 1000, sent: channel, received: channel, ...none, ...extra }
}

const epoch = (number: number, atMs: number): SeenEvent[] => [
  seen('p1', { kind: 'epoch.opened', ...about(atMs, { epoch: number }) }),
  ...['vm1', 'vm2'].flatMap((vm, i) => [
    seen(`p${i + 1}`, { kind: 'cut', ...about(atMs + 10, { vm, epoch: number }), pauseMs: 12 + i, cutAtMs: atMs + i }),
    seen(`p${i + 1}`, { kind: 'epoch.durable', ...about(atMs + 300, { vm, epoch: number }), stats })
  ]),
  seen('p3', { kind: 'epoch.committed', ...about(atMs + 350, { epoch: number }), commitMs: 349 }),
  seen('p1', { kind: 'epoch.committed', ...about(atMs + 360, { epoch: number }), commitMs: 359, skewMs: 1.5 })
]

const failure: SeenEvent[] = [
  seen('p2', {
    kind: 'liveness',
    atMs: KILL - 900,
    peer: 'id1',
    liveness: 'dead',
    why: 'a false alarm before the kill'
  }),
  seen('p3', { kind: 'liveness', atMs: KILL + 400, peer: 'id1', liveness: 'suspect', why: 'id2 got no answer' }),
  seen('p2', { kind: 'liveness', atMs: KILL + 900, peer: 'id1', liveness: 'dead', why: 'suspected for 500 ms' }),
  seen('p3', { kind: 'liveness', atMs: KILL + 950, peer: 'id1', liveness: 'dead', why: 'told by p2' }),
  seen('p2', {
    kind: 'takeover.decided',
    ...about(KILL + 1200),
    generation: 2,
    owners: { vm1: 'id3', vm2: 'id2' },
    lost: ['vm1']
  }),
  seen('p2', { kind: 'vm.resumed', ...about(KILL + 1400, { vm: 'vm2' }), generation: 2, spawnToRunMs: 80 }),
  seen('p3', { kind: 'vm.resumed', ...about(KILL + 1500, { vm: 'vm1' }), generation: 2, spawnToRunMs: 90 }),
  seen('p2', {
    kind: 'vm.complete',
    ...about(KILL + 2500, { vm: 'vm2' }),
    generation: 2,
    pagesFaulted: 300,
    pagesPushed: 9000
  }),
  seen('p3', {
    kind: 'vm.complete',
    ...about(KILL + 2600, { vm: 'vm1' }),
    generation: 2,
    pagesFaulted: 400,
    pagesPushed: 8000
  })
]

const good: Seen = {
  group: 'bank',
  peers: [1, 2, 3].map(i => ({ name: `p${i}`, id: `id${i}` })),
  vms: ['vm1', 'vm2'],
  hypervisor: 'QEMU 7.2.22, tcg',
  epochsWanted: 2,
  money: 2000,
  events: [...epoch(1, 5000), ...failure, ...epoch(2, 14_000)],
  kill: { atMs: KILL, peer: 'p1', vms: ['vm1'] },
  before: [audit(1), audit(2)],
  after: [audit(1), audit(2)],
  outageMs: 1700,
  leftovers: [],
  error: undefined
}
const failed = (changed: Partial<Seen>) =>
  makeReport({ ...good, ...changed })
    .checks.filter(check => !check.ok)
    .map(check => check.name)

describe('the report of a demo', () => {
  it('holds every number that was promised, from the events of several peers', () => {
    const report = makeReport(good)
    expect(report.ok).toBe(true)
    expect(report.workload).toMatchObject({
      conserved: true,
      gaps: 0,
      connectionsBroken: 0,
      sameNonce: true,
      stallMs: 22,
      outageMs: 1700
    })
    expect(report.cuts).toEqual([
      { vm: 'vm1', epoch: 1, pauseMs: 12 },
      { vm: 'vm2', epoch: 1, pauseMs: 13 },
      { vm: 'vm1', epoch: 2, pauseMs: 12 },
      { vm: 'vm2', epoch: 2, pauseMs: 13 }
    ])
    expect(report.epochs[0]).toMatchObject({
      number: 1,
      outcome: 'committed',
      skewMs: 1.5,
      commitMs: 349,
      bytesRaw: 2e6,
      bytesStored: 1.4e6
    })
    expect(report.failure).toMatchObject({
      peer: 'p1',
      suspectedMs: 400,
      detectedMs: 900,
      decidedMs: 1200,
      resumedMs: 1500,
      pagesFaulted: 700,
      pagesPushed: 17_000
    })
    expect(report.checks.map(check => check.name)).toEqual([
      'workload.conserved',
      'workload.gaps',
      'workload.connectionsBroken',
      'workload.sameNonce',
      'workload.stallMs',
      'epochs.committed',
      'cuts.pauseMs',
      'failure.detectedMs',
      'failure.decidedMs',
      'failure.resumedMs',
      'failure.pagesFaulted',
      'cleanup.leftovers'
    ])
  })

  it.each<[string, Partial<Seen>, string]>([
    ['money is missing afterwards', { after: [audit(1), audit(2, { money: 999 })] }, 'workload.conserved'],
    ['a transfer came twice', { after: [audit(1, { doubles: 1 }), audit(2)] }, 'workload.gaps'],
    ['a connection broke', { after: [audit(1, { broken: 1 }), audit(2)] }, 'workload.connectionsBroken'],
    ['a VM was booted instead of resumed', { after: [audit(1, { nonce: 'other' }), audit(2)] }, 'workload.sameNonce'],
    ['an epoch is missing', { epochsWanted: 3 }, 'epochs.committed'],
    ['something was left behind', { leftovers: ['socket x'] }, 'cleanup.leftovers']
  ])('fails the one check concerned when %s', (_, changed, name) => {
    expect(failed(changed)).toEqual([name])
  })

  it('fails the bounds when a pause is long or a resume late', () => {
    const slow = good.events.map(({ by, event }) => {
      if (event.kind === 'cut' && event.epoch === 2) return seen(by, { ...event, pauseMs: 61 })
      if (event.kind === 'vm.resumed' && event.vm === 'vm1') return seen(by, { ...event, atMs: KILL + 5001 })
      return seen(by, event)
    })
    expect(failed({ events: slow })).toEqual(['cuts.pauseMs', 'failure.resumedMs'])
  })

  it('does not say that all VMs run while one does not, or ran only in a generation that was given up', () => {
    const events = good.events.filter(({ event }) => !(event.kind === 'vm.resumed' && event.vm === 'vm1'))
    expect(makeReport({ ...good, events }).failure?.resumedMs).toBeNull()
    const again = seen('p3', {
      kind: 'takeover.decided',
      ...about(KILL + 1600),
      generation: 3,
      owners: {},
      lost: ['vm1']
    })
    expect(makeReport({ ...good, events: [...good.events, again] }).failure?.resumedMs).toBeNull()
  })

  it('is whole, and not ok, for a story that ended before anything happened', () => {
    const nothing: Partial<Seen> = {
      events: [],
      kill: undefined,
      before: [],
      after: [],
      error: 'peer p1 ended by itself'
    }
    const report = makeReport({ ...good, ...nothing })
    expect(report).toMatchObject({ ok: false, failure: null, cuts: [], epochs: [], error: 'peer p1 ended by itself' })
    expect(report.checks.filter(check => check.ok).map(check => check.name)).toEqual(['cleanup.leftovers'])
    expect(reportText({ ...good, ...nothing }, report, plain)).toContain('stopped early: peer p1 ended by itself')
  })

  it('has nothing to say about cleaning up where the cluster is kept', () => {
    expect(makeReport({ ...good, leftovers: undefined }).checks.map(check => check.name)).not.toContain(
      'cleanup.leftovers'
    )
  })
})

describe('the text of the report', () => {
  it('tells the failure as a timeline from the kill on, in the order of time', () => {
    const text = reportText(good, makeReport(good), plain)
    const steps = [
      'kill -9: p1 dies, and vm1',
      'p3 suspects p1 (p2 got no answer)',
      'p2 declares dead p1',
      'all back to epoch 1, vm1 to p3',
      'vm2 runs on p2',
      'vm1 runs on p3',
      'vm2 has all its pages (300 on demand, 9,000 pushed)'
    ]
    const places = steps.map(step => text.indexOf(step))
    expect(places).not.toContain(-1)
    expect(places).toEqual(places.toSorted((a, b) => a - b))
    expect(text).not.toContain('false alarm')
    expect(text).toContain('1,500 ms later every VM ran again')
  })

  it('marks every check that failed and names it at the end', () => {
    const changed = { ...good, after: [audit(1, { doubles: 1 }), audit(2)] }
    const text = reportText(changed, makeReport(changed), plain)
    expect(text).toMatch(/✗ workload\.gaps/)
    expect(text).toContain('Not every check held: workload.gaps.')
  })
})

describe('reading events', () => {
  it('skips kinds it does not know and refuses known ones of another shape', () => {
    expect(readEvent({ kind: 'peer.started', atMs: 1 })).toBeUndefined()
    expect(readEvent({ kind: 'toString', atMs: 1 })).toBeUndefined()
    expect(() => readEvent({ kind: 'cut', atMs: 1, group: 'bank', vm: 'vm1', epoch: 1 })).toThrow(
      'pauseMs should be a number'
    )
    expect(() => readEvent(null)).toThrow(TypeError)
  })
})
