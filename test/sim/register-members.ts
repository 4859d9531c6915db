/**
 * Who tells simulated peers about voters, in the place of membership: register `cluster` holds the voter set and nothing
 * else. Every peer tells what it learns, asks whom it finds to be ahead and now and then anyone, and any peer settles a
 * set that is not. Voters are added and removed at random, one at a time.
 */
import type { PeerId } from '../../protocols/core.ts'
import { majorityOf, nextVoters, parseVoterSet, type VoterSet } from '../../protocols/register/voters.ts'
import { LEASE, type Life, type World } from './register-world.ts'

export const CLUSTER = 'cluster'
const PROTOCOL = 'cluster'
/** Enough for two to be away. */
export const MAX_VOTERS = 5

type Message = { readonly kind: 'ask' } | { readonly kind: 'set'; readonly set: VoterSet }

const parse = (raw: unknown): Message => {
  const message = raw as Message
  return message.kind === 'ask' ? message : { kind: 'set', set: parseVoterSet(message.set) }
}

export class Members {
  readonly #world: World
  /** Sets that were marked as settled after the first. */
  settled = 0

  constructor(world: World) {
    this.#world = world
    world.onNewer = (life, from) => this.#send(life, from, { kind: 'ask' })
  }

  join(life: Life): void {
    life.bus.on(PROTOCOL, parse, (from, message) => {
      if (message.kind === 'ask') this.#send(life, from, { kind: 'set', set: life.registers.voters() })
      else this.#learn(life, message.set)
    })
    this.#tend(life)
  }

  /** Adds or removes one voter, unless the present set is not settled. */
  async change(life: Life): Promise<void> {
    const { random, peers } = this.#world
    const { name } = peers[Math.floor(random() * peers.length)] ?? life.peer
    const { version } = life.registers.voters()
    await this.#decide(life, set => {
      if (set.version !== version || !set.settled) return undefined
      const ids = set.ids.includes(name) ? set.ids.filter(id => id !== name) : [...set.ids, name]
      return ids.length === 0 || ids.length > MAX_VOTERS ? undefined : nextVoters(set, ids)
    })
  }

  /** Whether all that live know one set, which is settled. */
  agree(): boolean {
    const sets = this.#world.peers.flatMap(({ life }) => (life === null ? [] : [life.registers.voters()]))
    return sets.every(({ version, settled }) => settled && version === sets[0]?.version)
  }

  #tend(life: Life): void {
    const { random, peers } = this.#world
    const again = (): void => this.#world.after(life, 20 + random() * 80, 'tends to voters', () => this.#tend(life))
    const other = peers[Math.floor(random() * peers.length)]
    if (other !== undefined && random() < 0.3) this.#send(life, other.name, { kind: 'ask' })
    if (life.registers.voters().settled || random() < 0.5) return again()
    this.#settle(life).then(again, again)
  }

  async #settle(life: Life): Promise<void> {
    const { version } = await life.registers.settle()
    if (life.dead) return
    // By the peer's own clock, which may be the slowest: (c) of voters.ts.
    await new Promise<void>(resolve => {
      life.clock.after(LEASE.durationMs * (1 + LEASE.driftPerMille / 1000), resolve)
    })
    await this.#decide(life, set => (set.version === version && !set.settled ? { ...set, settled: true } : undefined))
    this.settled += 1
  }

  async #decide(life: Life, next: (set: VoterSet) => VoterSet | undefined): Promise<void> {
    const value = await life.registers.change(CLUSTER, current =>
      next((current as VoterSet | null) ?? this.#world.firstVoters)
    )
    if (life.dead || value === null) return
    if (this.#learn(life, value as VoterSet)) {
      for (const { name } of this.#world.peers) this.#send(life, name, { kind: 'set', set: value as VoterSet })
    }
  }

  #learn(life: Life, set: VoterSet): boolean {
    const { version, settled } = life.registers.voters()
    if (set.version < version || (set.version === version && (settled || !set.settled))) return false
    life.registers.setVoters(set)
    life.leases.setVoters(set)
    return true
  }

  #send(life: Life, to: PeerId, message: Message): void {
    if (to !== life.peer.name) life.bus.send(to, PROTOCOL, message)
  }
}

/** Sets that can decide are those of which a majority is, on its disks, of this version. No others than two neighbours may. */
export class VoterWatch {
  readonly #sets = new Map<number, VoterSet>()
  readonly #versions = new Map<PeerId, number>()
  #newest = 1

  constructor(world: World) {
    this.#sets.set(1, world.firstVoters)
    for (const { name } of world.peers) this.#versions.set(name, 1)
  }

  get newest(): number {
    return this.#newest
  }

  get(version: number): VoterSet | undefined {
    return this.#sets.get(version)
  }

  /** A sentence about what is wrong, if something is. */
  adopted(peer: PeerId, set: VoterSet): string | undefined {
    const known = this.#sets.get(set.version)
    this.#sets.set(set.version, set)
    if (known !== undefined && known.ids.join() !== set.ids.join()) return `there are two voter sets ${set.version}`
    const before = this.#versions.get(peer) ?? 1
    if (set.version < before) return `${peer} went back from voter set ${before} to ${set.version}`
    this.#versions.set(peer, set.version)
    this.#newest = Math.max(this.#newest, set.version)
    for (let version = this.#newest - 2; version > 0; version--) {
      const ids = this.#sets.get(version)?.ids ?? []
      const at = ids.filter(id => this.#versions.get(id) === version)
      if (ids.length > 0 && at.length >= majorityOf(ids.length))
        return `voter sets ${version} and ${this.#newest} can both decide`
    }
    return undefined
  }
}
