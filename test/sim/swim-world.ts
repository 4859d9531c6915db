/**
 * A small deterministic world of failure detectors: one seed decides delays, losses, starvation. Time is virtual.
 * Nodes run the production core; a starved node handles messages and timers only when its next turn comes.
 */
import type { DetectorSettings } from '../../config/schema.ts'
import type { Liveness } from '../../node/ports.ts'
import { type Effect, FailureDetectorCore, type Input } from '../../protocols/failure-detector/core.ts'

export const SETTINGS: DetectorSettings = {
  periodMs: 200,
  probeTimeoutMs: 100,
  indirectProbes: 3,
  suspicionMinMs: 400,
  suspicionMaxMs: 1_200
}

/** mulberry32 */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

interface Event {
  readonly atMs: number
  readonly order: number
  run(): void
}

interface Node {
  readonly id: string
  core: FailureDetectorCore
  running: boolean
  /** Increases at each restart: events of an earlier life are void. */
  life: number
  timer: number
  /** Until then nothing is handled. */
  stoppedUntilMs: number
  sent: number
}

export interface Observed {
  readonly atMs: number
  readonly by: string
  readonly peer: string
  readonly liveness: Liveness
  readonly why: string
}

export class SwimWorld {
  nowMs = 0
  readonly nodes: Node[] = []
  readonly observed: Observed[] = []
  loss = 0
  /** False where messages from one to the other are lost. */
  reachable: (from: string, to: string) => boolean = () => true
  readonly #random: () => number
  readonly #settings: DetectorSettings
  #events: Event[] = []
  #order = 0

  constructor(seed: number, count: number, settings: DetectorSettings = SETTINGS) {
    this.#random = seeded(seed)
    this.#settings = settings
    const ids = Array.from({ length: count }, (_, i) => `n${i}`)
    for (const id of ids) {
      const core = new FailureDetectorCore(id, ids, settings, this.#random)
      this.nodes.push({ id, core, running: true, life: 0, timer: 0, stoppedUntilMs: 0, sent: 0 })
    }
    for (const node of this.nodes) this.at(this.#random() * 50, () => this.#step(node, { kind: 'start' }))
  }

  node(id: string): Node {
    return this.nodes.find(node => node.id === id) as Node
  }

  at(atMs: number, run: () => void): void {
    const event = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, run }
    let low = 0
    let high = this.#events.length
    while (low < high) {
      const middle = (low + high) >> 1
      const other = this.#events[middle] as Event
      // Latest first, so that the next one is popped from the end.
      if (other.atMs > event.atMs || (other.atMs === event.atMs && other.order > event.order)) low = middle + 1
      else high = middle
    }
    this.#events.splice(low, 0, event)
  }

  run(untilMs: number): void {
    for (;;) {
      const next = this.#events.at(-1)
      if (next === undefined || next.atMs > untilMs) break
      this.#events.pop()
      this.nowMs = next.atMs
      next.run()
    }
    this.nowMs = untilMs
  }

  /** The process is gone; with `visible`, the others' connections to it break a moment later. */
  kill(id: string, visible: boolean): void {
    const node = this.node(id)
    node.running = false
    node.life++
    if (visible) this.#hint(id, false)
  }

  /** A new life, which remembers nothing. */
  restart(id: string, visible: boolean): void {
    const node = this.node(id)
    const ids = this.nodes.map(other => other.id)
    node.core = new FailureDetectorCore(id, ids, this.#settings, this.#random)
    node.running = true
    node.stoppedUntilMs = 0
    this.at(this.nowMs, () => this.#step(node, { kind: 'start' }))
    if (visible) this.#hint(id, true)
  }

  /** Handles nothing until then; what comes meanwhile waits, as in socket buffers. */
  pause(id: string, forMs: number): void {
    this.node(id).stoppedUntilMs = this.nowMs + forMs
  }

  hint(at: string, peer: string, connected: boolean): void {
    this.#input(this.node(at), { kind: 'connection', peer, connected })
  }

  livenessAt(at: string, of: string): Liveness {
    return this.node(at).core.view.get(of)?.state ?? 'alive'
  }

  /** What all running nodes believe of each other is equal and right. */
  agreed(): boolean {
    const running = this.nodes.filter(node => node.running)
    return running.every(node =>
      node.core.view.others.every(member => member.state === (this.node(member.id).running ? 'alive' : 'dead'))
    )
  }

  #hint(id: string, connected: boolean): void {
    for (const other of this.nodes) {
      if (other.id === id || !other.running) continue
      this.at(this.nowMs + 1 + this.#random() * 10, () =>
        this.#input(other, { kind: 'connection', peer: id, connected })
      )
    }
  }

  #input(node: Node, input: Input): void {
    const life = node.life
    if (!node.running) return
    if (this.nowMs < node.stoppedUntilMs) {
      this.at(node.stoppedUntilMs + 1, () => {
        if (node.life === life) this.#input(node, input)
      })
      return
    }
    this.#step(node, input)
  }

  #step(node: Node, input: Input): void {
    for (const effect of node.core.step(input, this.nowMs)) this.#apply(node, effect)
  }

  #apply(node: Node, effect: Effect): void {
    if (effect.kind === 'changed') {
      const { peer, liveness, why } = effect
      this.observed.push({ atMs: this.nowMs, by: node.id, peer, liveness, why })
    } else if (effect.kind === 'timer') {
      const timer = ++node.timer
      this.at(effect.atMs, () => this.#fire(node, timer))
    } else {
      node.sent++
      const target = this.node(effect.to)
      const life = target.life
      if (this.#random() < this.loss || !this.reachable(node.id, effect.to)) return
      this.at(this.nowMs + 0.5 + this.#random() * 4, () => {
        if (target.life === life) this.#input(target, { kind: 'message', from: node.id, message: effect.message })
      })
    }
  }

  #fire(node: Node, timer: number): void {
    if (node.timer !== timer || !node.running) return
    // A stopped process finds its timers first on waking, then the messages.
    if (this.nowMs < node.stoppedUntilMs) this.at(node.stoppedUntilMs, () => this.#fire(node, timer))
    else this.#step(node, { kind: 'timer' })
  }
}
