/**
 * A small deterministic world of failure detectors: one seed decides delays, losses, starvation. Time is virtual.
 * Nodes run the production core; a starved node handles messages and timers only when its next turn comes.
 */
import { configSchema, type DetectorSettings } from '../../config/schema.ts'
import type { Liveness } from '../../node/ports.ts'
import type { PeerId, Random } from '../../protocols/core.ts'
import { type Effect, FailureDetectorCore, type Input } from '../../protocols/failure-detector/core.ts'
import type { SwimMessage } from '../../protocols/failure-detector/messages.ts'
import type { Extensions } from '../../protocols/failure-detector/view.ts'
import { EventQueue } from './swim-queue.ts'

/** What a peer has unless told otherwise. */
export const SETTINGS: DetectorSettings = configSchema.shape.detector.parse(undefined)

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

export interface SwimNode {
  readonly id: PeerId
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
  readonly by: PeerId
  readonly peer: PeerId
  readonly liveness: Liveness
  readonly why: string
}

export interface WorldOptions {
  readonly settings?: DetectorSettings
  readonly extensions?: Extensions
  readonly idOf?: (index: number) => PeerId
  /** Takes what is observed; unless given, `observed` keeps it. */
  readonly onObserved?: (seen: Observed) => void
  readonly onSent?: (message: SwimMessage) => void
}

export class SwimWorld {
  nowMs = 0
  readonly nodes: SwimNode[] = []
  readonly observed: Observed[] = []
  readonly random: Random
  loss = 0
  /** False where messages from one to the other are lost. */
  reachable: (from: PeerId, to: PeerId) => boolean = () => true
  readonly #options: WorldOptions
  readonly #settings: DetectorSettings
  readonly #byId = new Map<PeerId, SwimNode>()
  readonly #queue = new EventQueue()
  #members: PeerId[]

  /** All are started within 50 ms, and connected to each other. */
  constructor(seed: number, count: number, options: WorldOptions = {}) {
    this.random = seeded(seed)
    this.#options = options
    this.#settings = options.settings ?? SETTINGS
    this.#members = Array.from({ length: count }, (_, i) => options.idOf?.(i) ?? `n${i}`)
    for (const id of this.#members) this.#start(id, this.random() * 50)
  }

  node(id: PeerId): SwimNode {
    return this.#byId.get(id) as SwimNode
  }

  at(atMs: number, run: () => void): void {
    this.#queue.push(Math.max(atMs, this.nowMs), run)
  }

  run(untilMs: number): void {
    while (this.#queue.nextMs <= untilMs) {
      this.nowMs = this.#queue.nextMs
      this.#queue.pop()?.run()
    }
    this.nowMs = untilMs
  }

  /** The process is gone; with `visible`, the others' connections to it break a moment later. */
  kill(id: PeerId, visible: boolean): void {
    const node = this.node(id)
    node.running = false
    node.life++
    if (visible) this.#hint(id, false)
  }

  /** A new life, which remembers nothing. */
  restart(id: PeerId, visible: boolean): void {
    this.#start(id, this.nowMs)
    if (visible) this.#hint(id, true)
  }

  /** Handles nothing until then; what comes meanwhile waits, as in socket buffers. */
  pause(id: PeerId, forMs: number): void {
    this.node(id).stoppedUntilMs = this.nowMs + forMs
  }

  /** Each running node learns of the new members at a moment of its own; new ones are started, removed ones run on. */
  setMembers(ids: readonly PeerId[]): void {
    const added = ids.filter(id => !this.#byId.has(id))
    this.#members = [...ids]
    for (const node of this.nodes) {
      this.at(this.nowMs + this.random() * 100, () => this.#input(node, { kind: 'members', ids }))
    }
    for (const id of added) this.#start(id, this.nowMs + this.random() * 100)
  }

  hint(at: PeerId, peer: PeerId, connected: boolean): void {
    this.#input(this.node(at), { kind: 'connection', peer, connected })
  }

  livenessAt(at: PeerId, of: PeerId): Liveness {
    return this.node(at).core.view.get(of)?.state ?? 'alive'
  }

  /** What all running members believe of each other is equal and right. */
  agreed(): boolean {
    const members = new Set(this.#members)
    const running = this.nodes.filter(node => node.running && members.has(node.id))
    return running.every(
      ({ core: { view } }) =>
        view.others.length === members.size - 1 &&
        view.others.every(member => member.state === (this.node(member.id).running ? 'alive' : 'dead'))
    )
  }

  #start(id: PeerId, atMs: number): void {
    const core = new FailureDetectorCore({
      self: id,
      members: this.#members,
      settings: this.#settings,
      random: this.random,
      ...(this.#options.extensions === undefined ? {} : { extensions: this.#options.extensions })
    })
    let node = this.#byId.get(id)
    if (node === undefined) {
      node = { id, core, running: true, life: 0, timer: 0, stoppedUntilMs: 0, sent: 0 }
      this.#byId.set(id, node)
      this.nodes.push(node)
    }
    Object.assign(node, { core, running: true, stoppedUntilMs: 0 })
    const started = node
    this.at(atMs, () => {
      this.#step(started, { kind: 'start' })
      for (const peer of this.#members) {
        if (this.node(peer).running) this.#step(started, { kind: 'connection', peer, connected: true })
      }
    })
  }

  #hint(id: PeerId, connected: boolean): void {
    for (const other of this.nodes) {
      if (other.id === id || !other.running) continue
      this.at(this.nowMs + 1 + this.random() * 10, () =>
        this.#input(other, { kind: 'connection', peer: id, connected })
      )
    }
  }

  #input(node: SwimNode, input: Input): void {
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

  #step(node: SwimNode, input: Input): void {
    for (const effect of node.core.step(input, this.nowMs)) this.#apply(node, effect)
  }

  #apply(node: SwimNode, effect: Effect): void {
    if (effect.kind === 'send') {
      node.sent++
      this.#options.onSent?.(effect.message)
      this.#send(node.id, effect.to, effect.message)
    } else if (effect.kind === 'timer') {
      const timer = ++node.timer
      this.at(effect.atMs, () => this.#fire(node, timer))
    } else if (effect.kind === 'changed') {
      const { peer, liveness, why } = effect
      const seen = { atMs: this.nowMs, by: node.id, peer, liveness, why }
      if (this.#options.onObserved === undefined) this.observed.push(seen)
      else this.#options.onObserved(seen)
    }
  }

  #send(from: PeerId, to: PeerId, message: SwimMessage): void {
    const target = this.node(to)
    const life = target.life
    if (this.random() < this.loss || !this.reachable(from, to)) return
    this.at(this.nowMs + 0.5 + this.random() * 4, () => {
      if (target.life === life) this.#input(target, { kind: 'message', from, message })
    })
  }

  #fire(node: SwimNode, timer: number): void {
    if (node.timer !== timer || !node.running) return
    // A stopped process finds its timers first on waking, then the messages.
    if (this.nowMs < node.stoppedUntilMs) this.at(node.stoppedUntilMs, () => this.#fire(node, timer))
    else this.#step(node, { kind: 'timer' })
  }
}
