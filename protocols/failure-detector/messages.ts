/** What failure detectors say to each other, and the limits of it. The protocol's name on the control bus is "swim". */
import { DiapauseError } from '../../node/errors.ts'
import type { Liveness } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'

/** A claim about a member. `from`: who suspects, or who declared it dead; of an alive claim the member itself. */
export interface Update {
  readonly peer: PeerId
  readonly state: Liveness
  /** Only the member itself raises it (SWIM, section 4.2). */
  readonly incarnation: number
  readonly from: PeerId
}

export type SwimMessage =
  /** Answer with an ack of the same number. `incarnation`: the sender's own. */
  | { readonly kind: 'ping'; readonly seq: number; readonly incarnation: number; readonly updates: readonly Update[] }
  | { readonly kind: 'ack'; readonly seq: number; readonly incarnation: number; readonly updates: readonly Update[] }
  /** Ping `target` in my stead; answer with its ack, or with a nack where there is none (Lifeguard, LHA-Probe). */
  | { readonly kind: 'ping-req'; readonly seq: number; readonly target: PeerId; readonly updates: readonly Update[] }
  | { readonly kind: 'nack'; readonly seq: number; readonly updates: readonly Update[] }
  /** News that does not wait for the next probe. */
  | { readonly kind: 'gossip'; readonly updates: readonly Update[] }

export const PROTOCOL = 'swim'
/**
 * Claims on one message, the least told first; the rest rides on the next. 30 take about 4 KiB. Measured with 1,000
 * members of which 100 stop for a second again and again: with 10 claims a message refutations come too late.
 */
export const MAX_UPDATES = 30
const MAX_PARSED_UPDATES = 32
const MAX_PEER_CHARS = 80
export const MAX_INCARNATION = 2 ** 40
const STATES: readonly unknown[] = ['alive', 'suspect', 'dead']

const bad = (what: string): DiapauseError => new DiapauseError('SWIM_SHAPE', `a failure detector message with ${what}`)

/** Throws SWIM_SHAPE for anything that is not a `SwimMessage` within limits. */
export function parseSwimMessage(value: unknown): SwimMessage {
  if (typeof value !== 'object' || value === null) throw bad('no fields')
  const message = value as Record<string, unknown>
  const updates = parseUpdates(message.updates)
  switch (message.kind) {
    case 'ping':
    case 'ack': {
      const incarnation = count(message.incarnation, MAX_INCARNATION, 'incarnation')
      return { kind: message.kind, seq: count(message.seq, 2 ** 32, 'seq'), incarnation, updates }
    }
    case 'nack':
      return { kind: 'nack', seq: count(message.seq, 2 ** 32, 'seq'), updates }
    case 'ping-req':
      return { kind: 'ping-req', seq: count(message.seq, 2 ** 32, 'seq'), target: peer(message.target), updates }
    case 'gossip':
      return { kind: 'gossip', updates }
    default:
      throw bad('an unknown kind')
  }
}

function parseUpdates(value: unknown): Update[] {
  if (!Array.isArray(value) || value.length > MAX_PARSED_UPDATES) throw bad('a bad list of updates')
  return value.map((item: unknown) => {
    if (typeof item !== 'object' || item === null) throw bad('a bad update')
    const update = item as Record<string, unknown>
    if (!STATES.includes(update.state)) throw bad('a bad state')
    return {
      peer: peer(update.peer),
      state: update.state as Liveness,
      incarnation: count(update.incarnation, MAX_INCARNATION, 'incarnation'),
      from: peer(update.from)
    }
  })
}

function peer(value: unknown): PeerId {
  if (typeof value !== 'string' || value.length === 0 || value.length > MAX_PEER_CHARS) throw bad('a bad peer id')
  return value
}

function count(value: unknown, below: number, name: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) >= below) throw bad(`a bad ${name}`)
  return value as number
}
