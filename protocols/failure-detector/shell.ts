import type { DetectorSettings } from '../../config/schema.ts'
import type { Clock, ControlBus, FailureDetector, Liveness, Log, Transport } from '../../node/ports.ts'
import type { PeerId, Random } from '../core.ts'
import type { Note } from '../decisions/facts.ts'
import { type Effect, FailureDetectorCore, type Input } from './core.ts'
import { PROTOCOL, parseSwimMessage } from './messages.ts'
import { type ToldChange, ToldChanges } from './told.ts'

export interface FailureDetectorOptions {
  readonly self: PeerId
  /** Ids of all members; oneself among them or not. */
  readonly members: readonly PeerId[]
  readonly bus: ControlBus
  readonly clock: Clock
  readonly random: Random
  readonly settings: DetectorSettings
  readonly log: Log
  /** Its connections are hints: a broken one makes a probe at once. */
  readonly transport?: Pick<Transport, 'connected' | 'onConnection'>
  /** For the decision log: who suspects whom, and what became of it. */
  readonly note?: Note
  /** For people: changes as the log has them, bounded for each member. */
  readonly onTold?: (change: ToldChange) => void
}

export interface FailureDetectorShell extends FailureDetector {
  /**
   * `ids`: all members from now on, oneself among them or not. New ones count as alive, with more time than usual until
   * they have been up for a while; those who are gone are forgotten. No change is reported of either. To be called after
   * the transport's, whose connections are asked for.
   */
  setMembers(ids: readonly PeerId[]): void
}

/** Runs the core on the control bus and a clock. Subscribes to the bus at once; probes from `start` on. */
export function createFailureDetector(options: FailureDetectorOptions): FailureDetectorShell {
  const { self, members, settings, random, bus, clock, log, transport, note, onTold } = options
  const core = new FailureDetectorCore({ self, members, settings, random })
  const handlers: ((peer: PeerId, liveness: Liveness, why: string) => void)[] = []
  const told = new ToldChanges(clock, change => {
    log.info({ ...change, localHealth: core.localHealth }, 'liveness')
    onTold?.(change)
  })
  let running = false
  let cancelTimer = (): void => {}

  const step = (input: Input): void => {
    if (!running) return
    for (const effect of core.step(input, clock.now())) apply(effect)
  }

  const apply = (effect: Effect): void => {
    if (effect.kind === 'send') {
      bus.send(effect.to, PROTOCOL, effect.message)
    } else if (effect.kind === 'timer') {
      cancelTimer()
      cancelTimer = clock.after(Math.max(0, effect.atMs - clock.now()), () => step({ kind: 'timer' }))
    } else if (effect.kind === 'note') {
      note?.(effect.fact)
    } else {
      const { peer, liveness, why } = effect
      told.take({ peer, liveness, why })
      for (const handler of handlers) handler(peer, liveness, why)
    }
  }

  const hint = (ids: readonly PeerId[]): void => {
    if (transport === undefined) return
    for (const peer of ids) step({ kind: 'connection', peer, connected: transport.connected(peer) })
  }

  bus.on(PROTOCOL, parseSwimMessage, (from, message) => step({ kind: 'message', from, message }))
  transport?.onConnection((peer, connected) => step({ kind: 'connection', peer, connected }))

  return {
    alive: () => [self, ...core.view.others.filter(member => member.state !== 'dead').map(member => member.id)].sort(),
    livenessOf: peer => (peer === self ? 'alive' : (core.view.get(peer)?.state ?? 'dead')),
    onChange: handler => void handlers.push(handler),
    setMembers(ids) {
      const added = ids.filter(id => id !== self && core.view.get(id) === undefined)
      for (const effect of core.step({ kind: 'members', ids }, clock.now())) if (running) apply(effect)
      hint(added)
    },
    start() {
      running = true
      step({ kind: 'start' })
      hint(core.view.others.map(member => member.id))
    },
    stop() {
      running = false
      cancelTimer()
      told.stop()
    }
  }
}
