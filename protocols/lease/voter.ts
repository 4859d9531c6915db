/**
 * The voter's side of leases, and the argument why a displaced owner is silent before its successor is decided.
 *
 * An owner A acts under generation g of a register while a majority of voters has granted it (key, g) and the grants
 * have not run out. A *displacement* is a change to a generation above g whose fence names A. Claim: **when a
 * displacement of A is chosen, A's lease is over and never comes back.** Nothing about it is written to disk but what
 * the register itself persists, and one number (6).
 *
 * 1. *One voter.* A grant is counted from the receipt of the claim and lasts D × (1 + drift) on the voter's clock; A
 *    counts from the sending, D on its own. Clocks that differ by at most the drift give: at every moment, if A believes
 *    in this voter's grant, the voter's grant has not run out. An accept with A in its fence is refused until it has.
 *
 * 2. *The sliding majority.* That is not enough. Voters 1, 2, 3. A holds grants of 2 and 3; voter 1 has none and accepts
 *    the displacement. Now A reaches 1 again and is granted there, and loses 2, where the grant runs out, and 2 accepts:
 *    1 and 2 have accepted, the displacement is chosen, and A holds 1 and 3. Each voter had checked, at its own time.
 *
 * 3. *The generation rule* closes it: a voter grants (key, g) only while it has accepted a value of the register, and the
 *    last one is of a generation not above g. So a voter that accepted the displacement refuses A from that instant (the acceptor tells
 *    us in the same step, before its disk knows). Let Q be the majority that accepted the displacement. Each voter
 *    of Q had no running grant of A when it accepted, and gave none after. So at the moment the last of Q accepts, A has
 *    running grants outside Q only, which is no majority; nor will it ever have, for Q never grants g again:
 *
 * 4. *Why "accepted last" and not "the highest ever accepted".* Let the displacement be chosen at ballot b. Generations
 *    never fall along a chain of values, and by Paxos every value accepted above b descends from it: a voter of Q never
 *    accepts a generation below the displacement's again. But where the displacement was accepted by a minority and
 *    then overwritten by a change that never saw it, its ballot is dead for good, and with the highest ever accepted that voter
 *    would refuse a healthy owner until the next takeover. With the last accepted it serves again.
 *
 * 5. *Finished by another.* A displacement accepted by few may be chosen under a later ballot by someone who only meant
 *    to read. The fence is stored with the value and carried (register/proposer.ts), so the voters check it again.
 *
 * 6. *A voter that restarts* has forgotten its grants: it accepts no fenced change for one D × (1 + drift). D and the drift
 *    are settings, and may have been greater when it granted; so the greatest D × (1 + drift) that it ever had is on its
 *    disk before it grants, and that is how long it waits. It does grant at once, since what it accepted is on disk; and
 *    grants nothing before it has read it.
 *
 * 7. *Changes of voters* (register/voters.ts). A lease is counted within one voter set: claims name their version, a voter
 *    grants to its own version only, and A acts while a majority of *some* set v has granted claims of version v. When A
 *    learns of the next set it claims anew under it at once, and what the old majority granted still runs out its time.
 *    Let the displacement be chosen by a majority Q of set q, and let M be the majority of set v that A counts.
 *    - v is q - 1, q or q + 1: M meets Q, in a voter that neither left nor joined in between. It kept its grants and what it
 *      had accepted, so 1 and 3 hold for it, under whatever versions it granted and accepted.
 *    - v is q + 2 or more: before v was made, v - 1 was settled: a majority of v - 1 had accepted the displacing value or a later
 *      one, and M meets it. That voter granted a claim of version v, hence later, and 3 forbids that.
 *    - v is q - 2 or less: before v + 2 was made, v + 1 was settled: a majority of v + 1 refused claims of version v for D × (1 +
 *      drift), the greatest that whoever settled it ever had. M meets it, so A's lease under v had run out before q came to be.
 *    The version here is never behind the one on the acceptor's disk (it is raised in the same step, `adopted`), so whoever
 *    is counted as refusing v in settling grants nothing under v, also after a restart.
 *
 * 8. *Deletion* is a displacement of every owner. Once all voters have accepted the tombstone they forget it, and the
 *    generation with it; a peer that was away for all this would find nobody to refuse it. Therefore "has accepted a value"
 *    in 3: of a register that it does not know, or knows as deleted, a voter grants nothing. One that only lags behind refuses an
 *    owner so, too; a majority that chose the owner's value knows it. A register made anew under the key must begin
 *    with a generation above all earlier ones, which its maker sees to.
 *
 * A release is the owner's word that it stopped: the grant is dropped, unless it was given in a later round than the
 * release (messages may overtake each other when a connection is replaced).
 */
import type { LeaseSettings } from '../../config/schema.ts'
import type { Core, PeerId } from '../core.ts'
import type { LeaseGuard } from '../register/acceptor.ts'
import type { Fence } from '../register/messages.ts'
import type { LeaseMessage, Refusal } from './messages.ts'

export interface VoterInput {
  readonly from: PeerId
  readonly message: Extract<LeaseMessage, { kind: 'claim' | 'release' }>
}

export interface VoterEffect {
  readonly kind: 'send'
  readonly to: PeerId
  readonly message: Extract<LeaseMessage, { kind: 'granted' | 'stale' }>
}

interface Grant {
  readonly generation: number
  readonly untilMs: number
  readonly session: number
  readonly round: number
}

/** Grants of one holder. A claim beyond it is not answered, so that a broken holder cannot fill our memory. */
const MAX_GRANTS = 4_096

export class LeaseVoter implements Core<VoterInput, VoterEffect>, LeaseGuard {
  readonly #durationMs: number
  readonly #grantMs: number
  /** Of this life and all earlier ones. */
  #longestMs: number
  /** Holder → key → grant. */
  readonly #grants = new Map<PeerId, Map<string, Grant>>()
  /** Key → generation of the value accepted last. */
  readonly #generations = new Map<string, number>()
  #version = 0
  #refusedClaims = 0
  #quietUntilMs = Number.POSITIVE_INFINITY

  constructor(settings: LeaseSettings) {
    this.#durationMs = settings.durationMs
    this.#grantMs = settings.durationMs * (1 + settings.driftPerMille / 1000)
    this.#longestMs = this.#grantMs
  }

  remember(longestMs: number): number {
    this.#longestMs = Math.max(this.#longestMs, longestMs)
    return this.#longestMs
  }

  /** How long a grant of this voter may run, at the most, whatever its settings were when it was given. */
  get longestMs(): number {
    return this.#longestMs
  }

  open(nowMs: number): void {
    this.#quietUntilMs = nowMs + this.#longestMs
  }

  /** Claims of a generation below the one that this voter has accepted. */
  get refusedClaims(): number {
    return this.#refusedClaims
  }

  /** Of the voter set that this voter counts in. */
  get version(): number {
    return this.#version
  }

  adopted(version: number): void {
    this.#version = version
  }

  accepted(key: string, generation: number | null): void {
    if (generation === null) this.#generations.delete(key)
    else this.#generations.set(key, generation)
  }

  blockedForMs(key: string, fence: readonly Fence[], nowMs: number): number {
    if (fence.length === 0) return 0
    let untilMs = this.#quietUntilMs
    for (const { holder, below } of fence) {
      const grant = this.#grants.get(holder)?.get(key)
      if (grant !== undefined && grant.generation < below) untilMs = Math.max(untilMs, grant.untilMs)
    }
    return Math.min(Math.max(0, untilMs - nowMs), this.#longestMs)
  }

  step({ from, message }: VoterInput, nowMs: number): VoterEffect[] {
    if (this.#quietUntilMs === Number.POSITIVE_INFINITY) return []
    let held = this.#grants.get(from)
    if (held === undefined) {
      held = new Map()
      this.#grants.set(from, held)
    }
    if (message.kind === 'release') {
      const grant = held.get(message.key)
      if (grant?.session === message.session && grant.round <= message.round) held.delete(message.key)
      return []
    }
    const { version, session, round } = message
    if (version < this.#version) {
      return [{ kind: 'send', to: from, message: { kind: 'stale', session, round, version: this.#version } }]
    }
    if (version > this.#version) return []
    // A holder that acts longer than we wait would be displaced while it acts.
    if (message.durationMs > this.#durationMs) return []
    if (held.size + message.claims.length > MAX_GRANTS) {
      for (const [key, { untilMs }] of held) if (untilMs <= nowMs) held.delete(key)
      if (held.size + message.claims.length > MAX_GRANTS) return []
    }
    const refused: Refusal[] = []
    for (const { key, generation } of message.claims) {
      const accepted = this.#generations.get(key)
      if (accepted === undefined || accepted > generation) {
        refused.push({ key, generation, newer: accepted ?? 0 })
        if (accepted !== undefined) this.#refusedClaims++
        continue
      }
      const last = held.get(key)
      // An old message that comes late: its lease is counted from long ago, and must not hide a younger grant.
      if (last?.session === session && last.round > round) continue
      held.set(key, { generation, untilMs: nowMs + this.#grantMs, session, round })
    }
    return [{ kind: 'send', to: from, message: { kind: 'granted', session, round, refused } }]
  }
}
