/**
 * The contract of a core: a protocol is a function from (input, now) to effects. A core has state and no I/O, no clock,
 * no randomness and no `await`, so that the same code runs in a peer and in a simulator (etcd/raft and iroh-gossip are
 * the models). Randomness comes in through the constructor (`Random`), time through `nowMs` (monotonic milliseconds).
 *
 * The shell's duties, in this order for the effects of one step: 1. everything to `persist` is on disk (fsynced),
 * 2. messages are sent, 3. timers are set, 4. the rest is applied. Where a promise cannot be persisted the peer stops.
 */
export interface Core<Input, Effect> {
  step(input: Input, nowMs: number): Effect[]
}

/** A libp2p peer id in its text form (`12D3Koo…`): the one name of a peer everywhere in the code. */
export type PeerId = string

/** Uniform in [0, 1). The shell passes `Math.random`, the simulator a seeded generator. */
export type Random = () => number
