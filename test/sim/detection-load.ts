/** What failure detection costs each peer on the network. */
import { clusterHash, encodeMessage, envelopeHeader } from '../../protocols/envelope.ts'
import { PROTOCOL, type SwimMessage } from '../../protocols/failure-detector/messages.ts'
import { FRAME_HEADER_BYTES } from '../../protocols/stream.ts'
import { type Extensions } from '../../protocols/failure-detector/view.ts'
import { SwimWorld } from './swim-world.ts'

/** As long as a libp2p peer id. */
export const idOf = (index: number): string => `12D3KooW${String(index).padStart(44, 'x')}`

/**
 * Around each message, taken as one packet: yamux 12, Noise 2 of length and 16 of tag, TCP 32 (with timestamps), IPv4 20.
 * TCP's own acknowledgements are not counted, nor the transport's keep-alives, which are one a second for each idle link.
 */
const PACKET_BYTES = 12 + 18 + 32 + 20
const HEADER_BYTES = FRAME_HEADER_BYTES + envelopeHeader(clusterHash('simulation'), PROTOCOL).length

const wireBytes = (message: SwimMessage): number => PACKET_BYTES + HEADER_BYTES + encodeMessage(message).length

/** Sent by one peer in a second, on average. */
export interface Load {
  readonly messages: number
  readonly bytes: number
}

/** Counts from now on what a world sends. */
export class LoadMeter {
  #messages = 0
  #bytes = 0
  #sinceMs = 0

  count(message: SwimMessage): void {
    this.#messages++
    this.#bytes += wireBytes(message)
  }

  /** What was counted since the last reading. */
  read(peers: number, nowMs: number): Load {
    const peerSeconds = (peers * (nowMs - this.#sinceMs)) / 1_000
    const load = { messages: this.#messages / peerSeconds, bytes: this.#bytes / peerSeconds }
    this.#messages = this.#bytes = 0
    this.#sinceMs = nowMs
    return load
  }
}

/** Before it everyone is starting, as far as the others know. */
export const WARM_UP_MS = 6_000
const MEASURED_MS = 20_000

/** Without any fault, and with 1 % of messages lost. */
export function measureLoad(seed: number, peers: number, extensions: Extensions): { quiet: Load; loss: Load } {
  const meter = new LoadMeter()
  const world = new SwimWorld(seed, peers, { idOf, extensions, onSent: message => meter.count(message) })
  world.run(WARM_UP_MS)
  meter.read(peers, world.nowMs)
  world.run(WARM_UP_MS + MEASURED_MS)
  const quiet = meter.read(peers, world.nowMs)
  world.loss = 0.01
  world.run(WARM_UP_MS + 2 * MEASURED_MS)
  return { quiet, loss: meter.read(peers, world.nowMs) }
}
