import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Talks } from '../../node/switch/talks.ts'
import { MAX_TALKS, talksSchema, type Talk } from '../../protocols/talks.ts'

const networkOf = (nic: number): string => ['default', 'shared/lan'][nic] ?? 'none'

type Event =
  | {
      readonly kind: 'sent' | 'heard'
      readonly vm: string
      readonly nic: number
      readonly bytes: number
      readonly laterMs: number
    }
  | { readonly kind: 'turn' }

const frame = fc.record({
  kind: fc.constantFrom('sent' as const, 'heard' as const),
  vm: fc.constantFrom('b', 'c'),
  nic: fc.constantFrom(0, 1),
  bytes: fc.integer({ min: 64, max: 1500 }),
  laterMs: fc.constantFrom(0, 1, 40, 1_001)
})
const events = fc.array(fc.oneof({ arbitrary: frame, weight: 5 }, fc.constant({ kind: 'turn' as const })), {
  maxLength: 60
})

/** The same, from a list of all frames with how much each counts. */
function plainly(all: readonly Event[]): Talk[] {
  const rows: Talk[] = []
  for (const vm of ['b', 'c']) {
    for (const nic of [0, 1]) {
      let nowMs = 0
      let askedMs: number | undefined
      const counted = { sent: [0, 0], heard: [0, 0] }
      let [answers, answersMs] = [0, 0]
      all.forEach((event, at) => {
        const weight = 0.5 ** all.slice(at).filter(({ kind }) => kind === 'turn').length
        if (event.kind === 'turn') return
        nowMs += event.laterMs
        if (event.vm !== vm || event.nic !== nic) return
        const [frames = 0, bytes = 0] = counted[event.kind]
        counted[event.kind] = [frames + weight, bytes + weight * event.bytes]
        if (event.kind === 'sent') askedMs ??= nowMs
        else if (askedMs !== undefined) {
          if (nowMs - askedMs <= 1_000)
            [answers, answersMs] = [answers + weight, answersMs + weight * (nowMs - askedMs)]
          askedMs = undefined
        }
      })
      const [[sent = 0, sentBytes = 0], [heard = 0, heardBytes = 0]] = [counted.sent, counted.heard]
      const network = networkOf(nic)
      const answerMs = answers === 0 ? 0 : answersMs / answers
      rows.push({ vm, network, sent, sentBytes, heard, heardBytes, answers, answerMs })
    }
  }
  return rows
}

describe('what a VM says to others', () => {
  it('is what a list of all frames says, of which those of older epochs count half', () => {
    fc.assert(
      fc.property(events, all => {
        const talks = new Talks(networkOf)
        let nowMs = 0
        for (const event of all) {
          if (event.kind === 'turn') talks.age()
          else {
            nowMs += event.laterMs
            if (event.kind === 'sent') talks.sent(event.vm, event.nic, event.bytes, nowMs)
            else talks.heard(event.vm, event.nic, event.bytes, () => nowMs)
          }
        }
        const list = talks.list()
        expect(talksSchema.parse(list)).toEqual(list)
        for (const row of plainly(all)) {
          const is = list.find(({ vm, network }) => vm === row.vm && network === row.network)
          if (is === undefined) expect(row.sent + row.heard).toBeLessThan(1)
          else {
            // What is less than half a frame is forgotten.
            expect(Math.abs(is.sent - row.sent)).toBeLessThanOrEqual(1)
            expect(Math.abs(is.answers - row.answers)).toBeLessThanOrEqual(1)
            expect(Math.abs(is.sentBytes - row.sentBytes)).toBeLessThanOrEqual(1_500)
            expect(Math.abs(is.heardBytes - row.heardBytes)).toBeLessThanOrEqual(1_500)
          }
        }
      })
    )
  })
  it('counts as answered what came back within a second, on average over all answers', () => {
    const talks = new Talks(networkOf)
    let nowMs = 0
    const exchange = (answerMs: number): void => {
      talks.sent('b', 0, 100, nowMs)
      talks.sent('b', 0, 100, nowMs + 1) // of the same question
      nowMs += answerMs
      talks.heard('b', 0, 60, () => nowMs)
      talks.heard('b', 0, 60, () => nowMs + 5) // nobody asked
    }
    for (const answerMs of [2, 4, 6, 1_500]) exchange(answerMs)
    expect(talks.list()).toEqual([
      { vm: 'b', network: 'default', sent: 8, sentBytes: 800, heard: 8, heardBytes: 480, answers: 3, answerMs: 4 }
    ])
  })
  it('is forgotten after some epochs of silence, and bounded to those it spoke with most', () => {
    const talks = new Talks(networkOf)
    for (let vm = 0; vm < 2 * MAX_TALKS; vm++) {
      for (let frame = 0; frame <= vm; frame++) talks.sent(`v${100 + vm}`, 0, 64, 0)
    }
    const list = talks.list()
    expect(list).toHaveLength(MAX_TALKS)
    expect(list[0]).toMatchObject({ vm: `v${100 + MAX_TALKS}`, sent: MAX_TALKS + 1 })
    for (let epoch = 0; epoch < 8; epoch++) talks.age()
    expect(talks.list()).toEqual([])
  })
})
