import { describe, expect, it } from 'vitest'
import { BeatLog, type Stint } from '../chaos/beat-log.ts'
import { CLEARLY_MS, type Generations } from '../chaos/history.ts'
import {
  booted,
  committed,
  copies,
  heard as heardNow,
  hypervisors,
  money,
  readable,
  shortestSilence
} from '../chaos/promises.ts'

const NONCE = '00000000000000aa'

/** Beats at 50 ms: "h1 1 2 3" is three beats from h1. */
function heard(...words: string[]): readonly Stint[] {
  const log = new BeatLog(new Map(['h1', 'h2', 'h3'].map(host => [`lan-${host}`, host])))
  let atMs = 1_000
  for (const word of words) {
    const [host, ...numbers] = word.split(' ')
    for (const seq of numbers) {
      log.take(
        `${Math.floor(atMs / 1000)}.${String((atMs % 1000) * 1e6).padStart(9, '0')} lan-${host} 1 ${NONCE} ${seq}`
      )
      atMs += 50
    }
  }
  return log.stints('vm1')
}

/** Generations from 1 on, "h1" or "h1 1000": when it was told. "?": whose it was nobody told. */
const owners = (...all: string[]): Generations =>
  new Map(
    all.map((each, i) => {
      const [host = '', toldMs] = each.split(' ')
      const generation = { toldMs: toldMs === undefined ? undefined : Number(toldMs) }
      return [i + 1, { ...generation, owners: host === '?' ? {} : { vm1: host } }]
    })
  )

describe('stints', () => {
  it('are one as long as numbers grow at one host, also where beats are lost', () => {
    expect(heard('h1 1 2 5 6')).toMatchObject([
      { host: 'h1', beats: 4, firstSeq: 1n, lastSeq: 6n, fromMs: 1_000, untilMs: 1_150 }
    ])
  })

  it('end where another host is heard, or a number comes again', () => {
    expect(heard('h1 1 2', 'h2 3', 'h1 4 5', 'h1 5 6').map(({ host, beats }) => [host, beats])).toEqual([
      ['h1', 2],
      ['h2', 1],
      ['h1', 2],
      ['h1', 2]
    ])
  })

  it('are made of nothing but lines of the observer', () => {
    expect(() => new BeatLog(new Map()).take('1.000000000 lan-h1 1 00000000000000aa 7')).toThrow(TypeError)
    expect(() => new BeatLog(new Map([['lan-h1', 'h1']])).take('nonsense')).toThrow(TypeError)
  })
})

describe('who is heard', () => {
  const last = heard('h1 1 2', 'h2 3 4').at(-1)

  it('is so from the host that is to run it, until just now', () => {
    expect(heardNow('vm1', last, 'h2', 1_200)).toEqual([])
    expect(heardNow('vm1', last, 'h2', 7_000)).toEqual(['vm1 was not heard for 5850 ms'])
    expect(heardNow('vm1', last, 'h1', 1_200)).toEqual(['vm1 is heard from h2, and is to run on h1'])
    expect(heardNow('vm1', last, undefined, 1_200)).toHaveLength(1)
  })

  it('is nobody where the observer is deaf', () => {
    expect(heardNow('vm1', undefined, 'h2', 1_200)).toEqual(['vm1 was never heard'])
  })
})

describe('never two copies', () => {
  it('holds where a VM is heard from its owners, one after the other', () => {
    const stints = heard('h1 1 2 3', 'h2 2 3 4', 'h1 4 5')
    expect(copies('vm1', stints, owners('h1', 'h2', 'h1'), 3)).toEqual([])
  })

  it('holds where a generation was over before anybody heard of it, and where a VM went back on its host', () => {
    expect(copies('vm1', heard('h1 1 2', 'h3 2 3'), owners('h1', 'h2', 'h3'), 3)).toEqual([])
    expect(copies('vm1', heard('h1 1 2 3', 'h1 2 3'), owners('h1', 'h1'), 2)).toEqual([])
  })

  it('is broken where the old owner speaks when the new one has spoken', () => {
    const broken = copies('vm1', heard('h1 1 2 3', 'h2 2', 'h1 4', 'h2 3 4'), owners('h1', 'h2'), 2)
    expect(broken).toEqual([expect.stringContaining('vm1 was heard from h1 (stint 3)')])
  })

  it('is broken where two copies on one host are heard by turns', () => {
    expect(copies('vm1', heard('h1 1 2 3', 'h1 2', 'h1 4', 'h1 3'), owners('h1', 'h1'), 2)).toHaveLength(1)
  })

  it('gives the benefit of the doubt where nobody told of a generation, and of one only', () => {
    const known = owners('h1', '?', 'h1')
    expect(copies('vm1', heard('h1 1 2', 'h2 2 3', 'h1 3 4'), known, 3)).toEqual([])
    expect(copies('vm1', heard('h1 1 2', 'h2 2 3', 'h1 3 4', 'h2 4'), known, 3)).toHaveLength(1)
    expect(copies('vm1', heard('h1 1 2', 'h2 2 3', 'h1 3 4'), new Map(), 3)).toEqual([])
  })

  it('is broken where a copy would be of a generation that was decided long after it spoke', () => {
    const stints = heard('h1 1 2 3', 'h2 2', 'h1 4', 'h2 3 4')
    expect(copies('vm1', stints, owners('h1 500', 'h2 1100', 'h1 1250', 'h2 1300'), 4)).toEqual([])
    expect(copies('vm1', stints, owners('h1 500', 'h2 1100', 'h1 9000', 'h2 9500'), 4)).toEqual([
      expect.stringContaining('vm1 was heard from h1 (stint 3)')
    ])
    // Nor of one of which nobody told, between others that were decided long after.
    expect(copies('vm1', stints, owners('h1 500', 'h2 1100', 'h3 9000', '?', '?'), 5)).toHaveLength(1)
    expect(copies('vm1', stints, owners('h1 500', 'h2 1100', '?', 'h2 9500'), 4)).toHaveLength(1)
    expect(copies('vm1', stints, owners('h1 500', 'h2 1100', '?', 'h2 1300'), 4)).toEqual([])
  })

  it('forgives peers that tell of a generation a little late', () => {
    const stints = heard('h1 1 2 3', 'h2 2 3')
    const late = (ms: number) => owners('h1 500', `h2 ${(stints[1] as Stint).fromMs + ms}`)
    expect(copies('vm1', stints, late(CLEARLY_MS), 2)).toEqual([])
    expect(copies('vm1', stints, late(CLEARLY_MS + 1), 2)).toHaveLength(1)
  })

  it('is broken where a copy speaks on when the VM was told to be another host’s, before that one has spoken', () => {
    const stints = heard('h1 1 2 3', 'h2 2 3')
    expect(copies('vm1', stints, owners('h1 500', 'h2 1100'), 2)).toEqual([])
    expect(copies('vm1', stints, owners('h1 500', 'h2 1099'), 2)).toEqual([
      expect.stringContaining('vm1 was heard from h1 (stint 1)')
    ])
    expect(copies('vm1', stints, owners('h1 500', 'h1 1040', 'h2 1120'), 3)).toEqual([])
  })

  it('says how long the new owner had spoken when the old one was heard, in the same words whenever it is asked', () => {
    const first = copies('vm1', heard('h1 1 2 3', 'h2 2 3', 'h1 4'), owners('h1', 'h2'), 2)
    expect(first).toEqual([
      "vm1 was heard from h1 (stint 3) when it was another host's: h1 3x 1-3, h2 2x 2-3, then h1 from 4, 100 ms after h2 had begun to speak"
    ])
    expect(copies('vm1', heard('h1 1 2 3', 'h2 2 3', 'h1 4 5 6', 'h2 4'), owners('h1', 'h2'), 2)).toEqual(first)
  })

  it('is told from a boot', () => {
    const [one] = heard('h1 1 2')
    expect(booted('vm1', [one as Stint])).toEqual([])
    expect(booted('vm1', [one as Stint, { ...(one as Stint), nonce: 'another' }])).toEqual(['vm1 has booted again'])
  })

  it('knows the silence between two owners', () => {
    expect(shortestSilence(heard('h1 1 2', 'h2 2', 'h2 1 2'))).toBe(50)
    expect(shortestSilence(heard('h1 1 2', 'h1 1'))).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('money', () => {
  const audit = { gaps: 0, broken: 0, faults: [], nonces: ['a', 'b'] }

  it('is conserved where the audit finds nothing', () => {
    expect(money(audit, ['a', 'b'])).toEqual([])
  })

  it('is not where coins, transfers, connections or memories are lost', () => {
    expect(money({ ...audit, faults: ['the VMs hold 1 instead of 2'] }, ['a', 'b'])).toHaveLength(1)
    expect(money({ ...audit, gaps: 2 }, ['a', 'b'])).toEqual(['2 transfers lost or doubled'])
    expect(money({ ...audit, broken: 1 }, ['a', 'b'])).toEqual(['1 connections broke'])
    expect(money(audit, ['a', 'c'])).toEqual(['a VM has booted again'])
  })
})

describe('a committed epoch', () => {
  it('is lost where the group knows of an older one, or of none', () => {
    expect(committed(7, 7)).toEqual([])
    expect(committed(7, 9)).toEqual([])
    expect(committed(7, 6)).toHaveLength(1)
    expect(committed(7, undefined)).toHaveLength(1)
  })
})

describe('hypervisors', () => {
  it('of owners before are left where there is more than one of a VM, wherever they are', () => {
    expect(hypervisors(['vm1', 'vm2'], ['vm1', 'vm2'])).toEqual([])
    expect(hypervisors(['vm1', 'vm2'], ['vm2', 'vm1', 'vm2', 'vm2'])).toEqual([
      'vm2 has 3, of which 2 are left of owners before'
    ])
  })
})

describe('kept images', () => {
  it('are lost where not even with all hosts there are enough columns', () => {
    const image = (tolerates: number) => ({ vm: 'vm1', epoch: 7, tolerates })
    expect(readable([image(2), image(0)])).toEqual([])
    expect(readable([image(2), image(-1)])).toEqual(['vm1 at epoch 7 cannot be read any more'])
  })
})
