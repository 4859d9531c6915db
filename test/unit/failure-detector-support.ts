import { type Effect, FailureDetectorCore } from '../../protocols/failure-detector/core.ts'
import type { SwimMessage, Update } from '../../protocols/failure-detector/messages.ts'
import type { Extensions } from '../../protocols/failure-detector/view.ts'
import { SETTINGS, seeded } from '../sim/swim-world.ts'

export type Send = Extract<Effect, { kind: 'send' }>

/** One core, "me", among silent members "p0", "p1" …, driven by hand. */
export class Bench {
  readonly core: FailureDetectorCore
  nowMs = 0
  timerMs = Number.POSITIVE_INFINITY
  readonly sends: Send[] = []
  readonly changes: Extract<Effect, { kind: 'changed' }>[] = []

  constructor(count: number, extensions: Extensions = { lifeguard: true, allowances: true }) {
    const members = ['me', ...Array.from({ length: count - 1 }, (_, i) => `p${i}`)]
    this.core = new FailureDetectorCore({ self: 'me', members, settings: SETTINGS, random: seeded(1), extensions })
    this.take(this.core.step({ kind: 'start' }, 0))
  }

  take(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'timer') this.timerMs = effect.atMs
      else if (effect.kind === 'send') this.sends.push(effect)
      else if (effect.kind === 'changed') this.changes.push(effect)
    }
  }

  message(from: string, message: SwimMessage): void {
    this.take(this.core.step({ kind: 'message', from, message }, this.nowMs))
  }

  hint(peer: string, connected: boolean): void {
    this.take(this.core.step({ kind: 'connection', peer, connected }, this.nowMs))
  }

  members(...others: readonly string[]): void {
    this.take(this.core.step({ kind: 'members', ids: ['me', ...others] }, this.nowMs))
  }

  /** `from` answers the message. */
  ack({ to, message }: Send, from = to): void {
    this.message(from, { kind: 'ack', seq: seqOf(message), incarnation: 0, updates: [] })
  }

  /** Runs the timers up to then. */
  until(nowMs: number): void {
    while (this.timerMs <= nowMs) {
      this.nowMs = Math.max(this.nowMs, this.timerMs)
      this.take(this.core.step({ kind: 'timer' }, this.nowMs))
    }
    this.nowMs = nowMs
  }

  /** Lets everything come late. */
  stall(ms: number): void {
    this.nowMs += ms
    this.take(this.core.step({ kind: 'timer' }, this.nowMs))
  }

  sent(kind: SwimMessage['kind']): Send[] {
    return this.sends.filter(send => send.message.kind === kind)
  }
}

/** -1 where it has none. */
export const seqOf = (message: SwimMessage): number => ('seq' in message ? message.seq : -1)

export const claim = (peer: string, state: Update['state'], incarnation: number, from: string): Update => ({
  peer,
  state,
  incarnation,
  from
})
export const gossip = (...updates: Update[]): SwimMessage => ({ kind: 'gossip', updates })
