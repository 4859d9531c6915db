import { describe, expect, it } from 'vitest'
import { groupOf, sinceMs } from '../../node/edge/cli-why.ts'
import { whyText } from '../../node/edge/why.ts'
import { episodesOf } from '../../node/edge/why-episodes.ts'
import { outcomeOf } from '../../node/edge/why-outcome.ts'
import { Words } from '../../node/edge/why-words.ts'
import type { Fact, Told } from '../../protocols/decisions/facts.ts'
import { death, leaseWait, made, refutation, START_MS, storyOf, suspicion, takeover, told } from './why-stories.ts'

const text = (entries: readonly Told[], fields: Parameters<typeof storyOf>[1] = {}, all = true): string =>
  whyText(storyOf(entries, fields), { all, zone: 'UTC' })

/** What stands first in each episode. */
const outcomes = (entries: readonly Told[]): string[] => {
  const words = new Words(storyOf(entries))
  return episodesOf(entries, 'vm1').map(episode => outcomeOf(episode, 'vm1', words))
}

const byTime = (...parts: readonly (readonly Told[])[]): Told[] => parts.flat().sort((a, b) => a.atMs - b.atMs)
const about = { group: 'bank', generation: 1 }
const waits = (why: 'no-majority' | 'no-host' | 'lease', afterMs: number): Told =>
  told('id-p2', afterMs, { kind: 'takeover-waits', ...about, why, retryMs: 500, text: 'x' })

describe('the story of a takeover', () => {
  it('tells its outcome first, then what led to it, by whom, and how long after the cause', () => {
    const moved = { owner: 'id-p3', generation: 2, epoch: 7, removed: false }
    expect(`\n${text(byTime(suspicion, death, leaseWait, takeover), { record: moved })}\n`).toBe(`
VM vm1 of group bank is owned by p3, generation 2, epoch 7 committed.
Told by p2 and p3; times are of the clock of p2.
Not told by p1 (not connected).

2026-03-01 02:14:03  Moved from p1 to p3 and taken back to epoch 7, because p1 was declared dead. It runs again in
                     generation 2.
  02:14:03.120      0 ms  p2  suspects p1: no connection, 1 of 1 others that were asked say the same; dead in 1.2 s at
                              the latest, unless it refutes (heard by p3 4 ms later)
  02:14:03.127     +7 ms  p3  suspects p1 as well: dead in 393 ms, unless it refutes (heard by p2 4 ms later)
  02:14:03.524   +404 ms  p2  declares p1 dead: not refuted for 404 ms, suspected by p2 and p3 (so does p3 2 ms later)
  02:14:03.524   +404 ms  p2  sees that vm1 lost p1: a takeover is due now
  02:14:03.526   +406 ms  p3  sees that vm1 lost p1: a takeover is due in 60 ms, being survivor 2
  02:14:03.526   +406 ms  p2  plans generation 2: vm1 (128 MiB) to p3 (the least full; RAM promised: 0 MiB, p2 128 MiB);
                              1 VM stays
  02:14:03.541   +421 ms  p2  asks the voters (ballot 10041): p1 silent, p2 yes, p3 no (a lease runs 301 ms more); no
                              majority, since leases still run (2 rounds, 14 ms)
  02:14:03.541   +421 ms  p2  waits 301 ms until the lease of the old owner has run out
  02:14:03.861   +741 ms  p2  asks the voters (ballot 10043): p1 silent, p2 yes, p3 yes; a majority has accepted (2
                              rounds, 14 ms)
  02:14:03.861   +741 ms  p2  learns that generation 2 is decided: vm1 from p1 to p3, the others stay; all go back to
                              epoch 7 (so does p3 3 ms later)
  02:14:03.861   +741 ms  p2  has its plan decided: generation 2
  02:14:03.893   +773 ms  p3  has its lease of generation 2 for 981 ms, granted by p2 and p3
  02:14:04.093   +973 ms  p3  renews its lease of generation 2 80 times in 16.0 s, with at least 701 ms left
  02:14:04.310  +1190 ms  p3  says that vm1 runs again from epoch 7, 402 ms after its start
  02:14:05.950  +2830 ms  p3  says that vm1 has all its pages
`)
  })

  it('begins a new episode with each cause, and keeps what is no cause with the one before', () => {
    const back = told('id-p2', 45_000, { kind: 'refuted', peer: 'id-p1', was: 'dead', afterMs: 44_476 })
    const again: Fact = { kind: 'suspected', peer: 'id-p3', by: 'id-p2', why: 'no ack', deadInMs: 3_000 }
    const entries = byTime(made, suspicion, death, leaseWait, takeover, [back, told('id-p2', 50_000, again)])
    expect(outcomes(entries)).toEqual([
      'Made at p1.',
      'Moved from p1 to p3 and taken back to epoch 7, because p1 was declared dead. It runs again in generation 2.',
      'Not moved so far: p3 is suspected only, and may refute.'
    ])
    expect(text(entries)).toContain('hears from p1 that it is alive, 44.5 s after it was declared dead')
  })

  it('goes on while the VM does not run again, whatever happens next', () => {
    const decided = takeover.slice(0, 4)
    const next: Fact = { kind: 'suspected', peer: 'id-p3', by: 'id-p2', why: 'no ack', deadInMs: 3_000 }
    expect(outcomes(byTime(suspicion, death, decided, [told('id-p2', 1_000, next)]))).toHaveLength(1)
  })

  describe('of a second move in short order', () => {
    const at = (afterMs: number, by: string, fact: Fact): Told => told(by, 20_000 + afterMs, fact)
    const second = { group: 'bank', generation: 2 }
    const lost = { kind: 'takeover-due', ...second, lost: ['vm1'], dead: ['id-p3'], rank: 0, waitMs: 0 } as const
    const suspects = { kind: 'suspected', peer: 'id-p3', by: 'id-p2', why: 'no ack', deadInMs: 400 } as const
    const dies = { kind: 'declared-dead', peer: 'id-p3', by: 'id-p2', suspectedBy: ['id-p2'], afterMs: 400 } as const
    const generation = {
      kind: 'generation',
      group: 'bank',
      generation: 3,
      epoch: 7,
      owners: { vm1: 'id-p2', vm2: 'id-p2' },
      displaced: { vm1: 'id-p3' },
      how: 'changed'
    } as const
    const first = [suspicion, death, leaseWait, takeover] as const

    it('names its cause, also where the dead member is back before the new generation is decided', () => {
      const back: Fact = { kind: 'refuted', peer: 'id-p3', was: 'dead', afterMs: 90 }
      const entries = [at(0, 'id-p2', suspects), at(400, 'id-p2', dies), at(401, 'id-p2', lost)]
      const told = byTime(...first, [...entries, at(490, 'id-p2', back), at(700, 'id-p2', generation)])
      expect(outcomes(told).at(-1)).toMatch(
        /^Moved from p3 to p2 and taken back to epoch 7, because p3 was declared dead\./
      )
      expect(outcomes(told)).toHaveLength(2)
    })

    it('names both causes where the second host dies before the VM is told to run there', () => {
      const [runs, ...rest] = takeover.slice(-2) as [Told, Told]
      const late = [runs, ...rest].map(each => ({ ...each, atMs: START_MS + 20_500 }))
      const entries = [at(0, 'id-p2', suspects), at(400, 'id-p2', dies), at(401, 'id-p2', lost)]
      const told = byTime(...first.slice(0, 3), takeover.slice(0, -2), entries, late, [at(700, 'id-p2', generation)])
      expect(outcomes(told)).toEqual([
        'Moved from p1 to p2 and taken back to epoch 7, because p1 and p3 were declared dead. Nobody who answered has told yet that it runs there.'
      ])
    })
  })

  it('shows a second suspicion by the same peer as a line of its own', () => {
    const [own, heard] = suspicion as [Told, Told]
    const again = { ...own, seq: 90, atMs: own.atMs + 300, lastAtMs: own.atMs + 300 }
    const lines = text(byTime([own, heard], refutation.slice(0, 1), [again])).match(/p2 {2}suspects p1: no connection/g)
    expect(lines).toHaveLength(2)
  })

  it('says of a VM whose own host lived which other VM of its group was lost', () => {
    const story = storyOf(byTime(suspicion, death, leaseWait, takeover), { vm: 'vm2' })
    expect(whyText(story, { zone: 'UTC' })).toContain(
      'Not moved, but taken back to epoch 7 at p2 with its whole group, because p1, which ran vm1, was'
    )
  })
})

describe('a VM that was not moved', () => {
  it('because the suspicion was refuted', () => {
    const [outcome] = outcomes(byTime(suspicion, refutation))
    expect(outcome).toBe('Not moved: p1 was suspected, and refuted it after 210 ms.')
  })

  it('because the lease of its dead owner still runs', () => {
    const [outcome] = outcomes(byTime(suspicion, death, leaseWait))
    expect(outcome).toBe('Not moved so far: p1 was declared dead, but its lease still ran when p2 tried to take over.')
  })

  it('because there is no majority, or no host, whichever stood in the way last', () => {
    const noMajority = byTime(suspicion, death, leaseWait, [waits('no-majority', 5_600)])
    expect(outcomes(noMajority)).toEqual([
      'Not moved so far: p1 was declared dead, but no majority of voters answered p2, which tried to take over.'
    ])
    expect(outcomes([...noMajority, waits('no-host', 6_200)])).toEqual([
      'Not moved so far: p1 was declared dead, but p2 knew no living host with room for its VMs.'
    ])
  })

  it('because its owner was back before anything was decided', () => {
    const back = (by: string) => told(by, 900, { kind: 'refuted', peer: 'id-p1', was: 'dead', afterMs: 376 })
    expect(outcomes(byTime(suspicion, death, leaseWait, [back('id-p2'), back('id-p3')]))).toEqual([
      'Not moved: p1 was declared dead, but its lease still ran when p2 tried to take over; it was back before anything was decided.'
    ])
  })

  it('but was paused while its host could not renew the lease', () => {
    const lease = { kind: 'lease', ...about, leftMs: 0, granted: [], vms: ['vm1'], newer: 0 } as const
    const lapsing = told('id-p1', 0, { ...lease, event: 'lapsing' })
    expect(outcomes([lapsing])).toEqual([
      'Not moved: paused, because p1 cannot renew its lease with a majority of voters.'
    ])
    expect(outcomes([lapsing, told('id-p1', 1_300, { ...lease, event: 'regained' })])).toEqual([
      'Not moved: paused for 1.3 s, because p1 could not renew its lease with a majority, until it could.'
    ])
  })

  it('because nothing happened', () => {
    expect(text([])).toContain('Nothing was noted in this time that bears on where it runs.')
    const renewed = made.slice(2)
    expect(outcomes(renewed)).toEqual(['Not moved: nothing has happened that could move it.'])
  })
})

describe('a VM that was started again', () => {
  const failed = told('id-p1', 0, { kind: 'vm-failed', ...about, vm: 'vm1', why: 'QEMU ended with exit code 1' })
  const due = told('id-p1', 1, { kind: 'restart-due', ...about, why: 'vm-failed', waitMs: 1_000, failures: 1 })

  it('because it failed, where it was or elsewhere', () => {
    const next = { group: 'bank', generation: 2, epoch: 7, how: 'changed' } as const
    const here = told('id-p1', 1_050, {
      kind: 'generation',
      ...next,
      owners: { vm1: 'id-p1', vm2: 'id-p2' },
      displaced: {}
    })
    expect(outcomes([failed, due, here])).toEqual([
      'Not moved, but taken back to epoch 7 at p1 with its whole group, because vm1 failed at p1 (QEMU ended with exit code 1). Nobody who answered has told yet that it runs there.'
    ])
    const elsewhere = [
      told('id-p1', 1_001, { kind: 'gives-up', ...about, failures: 3 }),
      told('id-p1', 1_050, {
        kind: 'generation',
        ...next,
        owners: { vm1: 'id-p2', vm2: 'id-p2' },
        displaced: { vm1: 'id-p1' }
      })
    ]
    expect(outcomes([failed, due, ...elsewhere])[0]).toMatch(
      /^Moved from p1 to p2 and taken back to epoch 7, because p1 failed to run the group's VMs 3 times\./
    )
  })

  it('waits where no generation can be decided', () => {
    const text = 'no majority of the 3 voters answered'
    const stuck = told('id-p1', 6_001, { kind: 'restart-waits', ...about, text }, { times: 4, lastAfterMs: 26_000 })
    expect(outcomes([failed, due, stuck])).toEqual([
      `Not moved so far: vm1 failed at p1 (QEMU ended with exit code 1); no new generation yet: ${text}.`
    ])
  })

  it('because its peer was restarted, or a person asked for it', () => {
    const restarted: Fact = { kind: 'restart-due', ...about, why: 'peer-restarted', waitMs: 0, failures: 0 }
    const next: Fact = {
      kind: 'generation',
      group: 'bank',
      generation: 2,
      epoch: 7,
      owners: { vm1: 'id-p1', vm2: 'id-p2' },
      displaced: {},
      how: 'changed'
    }
    expect(outcomes([told('id-p1', 0, restarted), told('id-p1', 40, next)])[0]).toMatch(
      /because the peer on p1 was restarted, and its VMs had ended with it\./
    )
    const asked: Fact = { ...restarted, why: 'by-hand' }
    expect(outcomes([told('id-p2', 0, asked), told('id-p1', 40, next)])[0]).toMatch(
      /^Not moved, but taken back to epoch 7 at p1 .* because a person asked p2 for it \(diapause restore, or vm start\)\./
    )
  })
})

describe('what stands around a story', () => {
  it('says whose clock is wrong, who had more to tell, and who is no member any more', () => {
    const tellers = [
      { peer: 'id-p2', left: 0, aheadMs: 0 },
      { peer: 'id-p3', left: 12, aheadMs: -3_400 }
    ]
    const shown = text(byTime(suspicion), { tellers, names: { 'id-p2': 'p2', 'id-p3': 'p3' } })
    expect(shown).toContain('The clock of p3 is 3.4 s behind; what p3 tells is shown by that much later.')
    expect(shown).toContain('p3 has 12 older entries that did not fit into its answer.')
    const long = '12D3KooWQ2sZtT1MnZ5vLw6Yq9f8s7d6g5h4j3k2l1'
    expect(text(byTime(suspicion), { silent: [{ peer: long, why: 'not connected' }] })).toContain('…j3k2l1 (not')
  })

  it('shows the last episodes only, unless asked for more', () => {
    const lease = { kind: 'lease', ...about, leftMs: 0, granted: [], vms: ['vm1'], newer: 0 } as const
    const many = Array.from({ length: 5 }, (_, i) => [
      told('id-p1', i * 10_000, { ...lease, event: 'lapsing' }),
      told('id-p1', i * 10_000 + 1_300, { ...lease, event: 'regained' })
    ]).flat()
    const count = (shown: string): number => shown.match(/Not moved: paused/g)?.length ?? 0
    expect(count(text(many, {}, false))).toBe(3)
    expect(text(many, {}, false)).toContain('Not shown: 2 earlier episodes (--all shows them).')
    expect(count(whyText(storyOf(many), { long: true }))).toBe(5)
    expect(count(text(many, {}, true))).toBe(5)
  })

  it('shows what came to nothing, and lines that are always the same, only when asked for all', () => {
    const again = (part: readonly Told[]) => part.map(each => ({ ...each, atMs: each.atMs - 80_000 }))
    const entries = byTime(again(suspicion), again(refutation), suspicion, death, leaseWait, takeover)
    const [shown, all] = [text(entries, {}, false), text(entries, {}, true)]
    expect(shown).toContain('Not shown: 1 episode in which nothing came of it (--all shows them).')
    expect(shown).not.toMatch(/refuted it|renews its lease|as well/)
    for (const line of ['p2  suspects p1', 'declares p1 dead', 'plans generation 2', 'a majority has accepted']) {
      expect(shown).toContain(line)
    }
    expect(shown.split('\n').length).toBeLessThan(all.split('\n').length - 8)
    for (const line of [/refuted it after/, /renews its lease/, /as well/]) expect(all).toMatch(line)
    // The last is what one asks about.
    expect(text(byTime(suspicion, refutation), {}, false)).toContain('Not moved: p1 was suspected, and refuted it')
  })

  it('has times of the zone that it is read in', () => {
    const story = storyOf([told('id-p2', 5, { kind: 'peer-stopped', peer: 'id-p2' })])
    expect(whyText(story, { zone: 'UTC' })).toContain('02:14:03.005')
    expect(whyText(story, { zone: 'Asia/Kolkata' })).toContain('07:44:03.005')
    expect(START_MS % 1_000).toBe(0)
  })
})

describe('the command', () => {
  it('takes a time with a unit, and says so where it is something else', () => {
    expect(['90s', '10m', '4h', '7d'].map(sinceMs)).toEqual([90_000, 600_000, 14_400_000, 604_800_000])
    for (const wrong of ['', '10', 'm', '-1m', '1.5h', '0s', '10 m', '1w', '9999999d']) {
      expect(() => sinceMs(wrong), wrong).toThrow(
        expect.objectContaining({ name: 'UsageError', code: 'SINCE_INVALID' })
      )
    }
  })

  it('finds the one group that has the VM', () => {
    const vms = [{ id: 'vm1', mac: '', memoryMiB: 1, kernel: '', initrd: '', append: '' }]
    const record = { version: 1, generation: 1, owners: {}, lastEpoch: 0, open: null, committed: null, removed: false }
    const groups = ['a', 'b'].map(id => ({ ...record, id, vms }))
    expect(groupOf('vm1', groups.slice(0, 1))).toBe('a')
    expect(() => groupOf('vm1', groups)).toThrow(/several groups have a VM "vm1" \(a, b\): --group GROUP/)
    expect(() => groupOf('vm2', groups)).toThrow(expect.objectContaining({ code: 'VM_UNKNOWN' }))
  })
})
