/** What a member can do by what it says of notices: they are hints, and whoever sends one is believed. */
import { describe, expect, it } from 'vitest'
import type { NoticeKind } from '../../config/notices.ts'
import { CLAIM_MS, GATHER_MS, NoticeCore, type NoticeInput } from '../../protocols/notifications/core.ts'
import {
  MAX_TEXT,
  type Notice,
  type NotificationMessage,
  parseNotificationMessage
} from '../../protocols/notifications/messages.ts'

const TARGET = 'pager'
const failover: Notice = { key: 'failover/shop/7', kind: 'failover', state: 'once', text: 'It moved.', atMs: 1 }

/** An honest peer with a target; what it tells people is in `told`. */
function peer() {
  const core = new NoticeCore('self', [{ name: TARGET, on: ['failover'] as NoticeKind[], perHour: 3_600 }])
  const told: string[] = []
  const step = (input: NoticeInput, nowMs: number): void => {
    for (const effect of core.step(input, nowMs))
      if (effect.kind === 'deliver') told.push(...effect.notices.map(({ text }) => text))
  }
  step({ kind: 'alive', peers: ['self', 'liar'] }, 0)
  return {
    told,
    sees: (notice: Notice, nowMs: number) => step({ kind: 'notice', notice }, nowMs),
    hears: (message: NotificationMessage, nowMs: number) =>
      step({ kind: 'message', from: 'liar', message: parseNotificationMessage(message) }, nowMs),
    waits: (nowMs: number) => step({ kind: 'timer' }, nowMs)
  }
}

const marks = [{ key: failover.key, state: failover.state }]

describe('a member that lies about notices', () => {
  it('has others tell people what it likes, in so many characters of its own', () => {
    const { told, hears, waits } = peer()
    const text = 'Call this number. '.padEnd(MAX_TEXT, '.')
    hears({ kind: 'notice', notice: { ...failover, key: 'made up', text } }, 0)
    waits(GATHER_MS)
    expect(told).toEqual([text])
    const longer = { ...failover, text: `${text}.` }
    expect(() => hears({ kind: 'notice', notice: longer }, 0)).toThrow(/1000/)
  })

  it('keeps from people what it says beforehand was told', () => {
    const { told, sees, hears, waits } = peer()
    hears({ kind: 'told', target: TARGET, marks }, 0)
    sees(failover, 1)
    waits(GATHER_MS + 1)
    waits(CLAIM_MS)
    expect(told).toEqual([])
    const honest = peer()
    honest.sees(failover, 1)
    honest.waits(GATHER_MS + 1)
    expect(honest.told).toEqual([failover.text])
  })

  it('keeps it from them for as long as it says again that it is at it', () => {
    const { told, sees, hears, waits } = peer()
    sees(failover, 0)
    let nowMs = 1
    for (let i = 0; i < 100; i++, nowMs += CLAIM_MS - 1) {
      hears({ kind: 'claim', target: TARGET, marks }, nowMs)
      waits(nowMs + CLAIM_MS - 1)
    }
    expect(told).toEqual([])
    waits(nowMs + CLAIM_MS)
    expect(told).toEqual([failover.text])
  })
})
