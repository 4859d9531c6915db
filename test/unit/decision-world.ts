/** Peers of a decision log on a bus in memory, in the time of a clock that stands still until it is told to go on. */
import { createDecisionLog, type DecisionLog } from '../../node/agents/decisions.ts'
import type { Clock, ControlBus, Log } from '../../node/ports.ts'
import type { DecisionStore } from '../../protocols/decisions/chronicle.ts'

export const VOTERS = ['p1', 'p2', 'p3']

export class DecisionWorld {
  /** Monotonic, and what the wall clock shows. */
  nowMs = 1_000_000
  readonly warnings: string[] = []
  readonly #timers = new Set<{ readonly atMs: number; readonly fn: () => void }>()
  readonly #receivers = new Map<string, (from: string, message: unknown) => void>()
  /** Peer → 'silent': nothing comes of what is sent to it; 'gone': it cannot be sent to. */
  readonly #away = new Map<string, 'silent' | 'gone'>()

  readonly clock: Clock = {
    now: () => this.nowMs,
    after: (ms, fn) => {
      const timer = { atMs: this.nowMs + ms, fn }
      this.#timers.add(timer)
      return () => this.#timers.delete(timer)
    }
  }

  readonly log: Log = {
    debug() {},
    info: (_, message) => void this.warnings.push(message),
    warn: (_, message) => void this.warnings.push(message),
    error: (_, message) => void this.warnings.push(message)
  }

  pass(ms: number): void {
    this.nowMs += ms
    for (const timer of [...this.#timers].sort((a, b) => a.atMs - b.atMs)) {
      if (timer.atMs <= this.nowMs && this.#timers.delete(timer)) timer.fn()
    }
  }

  /** Millisecond by millisecond, with turns for messages and promises in each; until `done` or so long. */
  async run(ms: number, done: () => boolean = () => false): Promise<void> {
    for (let i = 0; i < ms && !done(); i++) {
      this.pass(1)
      await this.turns()
    }
  }

  async turns(): Promise<void> {
    for (let turn = 0; turn < 6; turn++) await new Promise(setImmediate)
  }

  /** Messages arrive in a later turn, as copies. */
  bus(self: string): ControlBus {
    return {
      self,
      send: (to, protocol, message) => {
        if (this.#away.get(to) === 'gone' || !VOTERS.includes(to)) return false
        const copy: unknown = structuredClone(message)
        setImmediate(() => {
          const lost = this.#away.has(to) || this.#away.has(self)
          if (!lost) this.#receivers.get(`${to} ${protocol}`)?.(self, copy)
        })
        return true
      },
      on: (protocol, parse, handler) =>
        void this.#receivers.set(`${self} ${protocol}`, (from, message) => handler(from, parse(message)))
    }
  }

  leave(peer: string, how: 'silent' | 'gone'): void {
    this.#away.set(peer, how)
  }

  comeBack(peer: string): void {
    this.#away.delete(peer)
  }

  peer(self: string, store?: DecisionStore, aheadMs = 0): Promise<DecisionLog> {
    return createDecisionLog({
      self,
      bus: this.bus(self),
      clock: this.clock,
      wallMs: () => this.nowMs + aheadMs,
      log: this.log,
      store,
      version: '1.2.3',
      members: () => VOTERS.map(id => ({ id, name: `host-${id}` })),
      voters: () => VOTERS
    })
  }
}
