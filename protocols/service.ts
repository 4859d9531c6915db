import { DiapauseError, messageOf } from '../node/errors.ts'
import type { ControlBus, Log, Transport } from '../node/ports.ts'
import type { PeerId } from './core.ts'
import { clusterHash, decodeEnvelope, encodeMessage, envelopeHeader } from './envelope.ts'

export interface BusStats {
  readonly delivered: number
  /** Messages not delivered, by the code of the reason; `PARSE` where the protocol's parser refused. */
  readonly dropped: Readonly<Record<string, number>>
}

export interface CountedBus extends ControlBus {
  stats(): BusStats
}

interface Subscription {
  deliver(from: PeerId, message: unknown): void
}

/**
 * Small typed messages over the control channel of `transport`, whose control handler this sets. A message that is
 * malformed, unknown or of another cluster is counted, logged (the 1st, 2nd, 4th, 8th … of each kind) and dropped; a
 * handler that throws is logged. Neither closes the stream: one protocol's mistake must not silence the others.
 * `later` runs something in a later turn of the event loop; a simulator has turns of its own.
 */
export function createControlBus(
  transport: Transport,
  log: Log,
  cluster: string,
  later: (run: () => void) => void = setImmediate
): CountedBus {
  const hash = clusterHash(cluster)
  const headers = new Map<string, Uint8Array>()
  const subscriptions = new Map<string, Subscription>()
  const dropped: Record<string, number> = {}
  let delivered = 0

  const drop = (from: PeerId, code: string, why: string): void => {
    const count = (dropped[code] ?? 0) + 1
    dropped[code] = count
    if ((count & (count - 1)) === 0) log.warn({ from, code, why, count }, 'dropped a control message')
  }

  const receive = (from: PeerId, bytes: Uint8Array): void => {
    let opened: ReturnType<typeof decodeEnvelope>
    try {
      opened = decodeEnvelope(bytes, hash, protocol => subscriptions.has(protocol))
    } catch (error) {
      drop(from, error instanceof DiapauseError ? error.code : 'ENVELOPE', messageOf(error))
      return
    }
    delivered++
    subscriptions.get(opened.protocol)?.deliver(from, opened.message)
  }

  transport.handle('control', receive)

  return {
    self: transport.self,
    send(to, protocol, message) {
      let header = headers.get(protocol)
      if (header === undefined) {
        header = envelopeHeader(hash, protocol)
        headers.set(protocol, header)
      }
      const payload = encodeMessage(message)
      if (to !== transport.self) return transport.send(to, 'control', [header, payload])
      // The same bytes and the same checks as from outside, in a later turn.
      const bytes = Buffer.concat([header, payload])
      later(() => receive(transport.self, bytes))
      return true
    },
    on<T>(protocol: string, parse: (message: unknown) => T, handler: (from: PeerId, message: T) => void) {
      if (subscriptions.has(protocol)) throw new TypeError(`protocol ${protocol} has a handler already`)
      subscriptions.set(protocol, {
        deliver(from, message) {
          let parsed: T
          try {
            parsed = parse(message)
          } catch (error) {
            drop(from, 'PARSE', `${protocol}: ${messageOf(error)}`)
            return
          }
          try {
            handler(from, parsed)
          } catch (error) {
            log.error({ from, protocol, error: messageOf(error) }, 'a control handler failed')
          }
        }
      })
    },
    stats: () => ({ delivered, dropped: { ...dropped } })
  }
}
