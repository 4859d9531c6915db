import type { DetectorSettings } from '../../config/schema.ts'
import type { Clock, ControlBus, FailureDetector, Liveness, Log, Transport } from '../../node/ports.ts'
import type { PeerId, Random } from '../core.ts'
import { type Effect, FailureDetectorCore, type Input } from './core.ts'
import { PROTOCOL, parseSwimMessage } from './messages.ts'

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
}

/** Runs the core on the control bus and a clock. Subscribes to the bus at once; probes from `start` on. */
export function createFailureDetector(options: FailureDetectorOptions): FailureDetector {
  const { self, bus, clock, log, transport } = options
  const core = new FailureDetectorCore(self, options.members, options.settings, options.random)
  const handlers: ((peer: PeerId, liveness: Liveness, why: string) => void)[] = []
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
    } else {
      const { peer, liveness, why } = effect
      log.info({ peer, liveness, why, localHealth: core.localHealth }, 'liveness')
      for (const handler of handlers) handler(peer, liveness, why)
    }
  }

  bus.on(PROTOCOL, parseSwimMessage, (from, message) => step({ kind: 'message', from, message }))
  transport?.onConnection((peer, connected) => step({ kind: 'connection', peer, connected }))

  return {
    alive: () => [self, ...core.view.others.filter(member => member.state !== 'dead').map(member => member.id)].sort(),
    livenessOf: peer => (peer === self ? 'alive' : (core.view.get(peer)?.state ?? 'dead')),
    onChange: handler => void handlers.push(handler),
    start() {
      running = true
      step({ kind: 'start' })
      for (const { id } of core.view.others) {
        if (transport?.connected(id) === false) step({ kind: 'connection', peer: id, connected: false })
      }
    },
    stop() {
      running = false
      cancelTimer()
    }
  }
}
