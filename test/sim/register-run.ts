/**
 * One seed of the simulation: clients read, append and take over while faults happen; then faults end and the cluster
 * must converge. Invariants are checked after every event and named in the violation.
 *
 * A register's value is a record whose log holds the ids of all changes so far: lost, doubled and reordered changes show.
 */
import { hasCode } from '../../node/errors.ts'
import type { PeerId } from '../../protocols/core.ts'
import { compareBallots, type Accepted } from '../../protocols/register/messages.ts'
import { decodeValue } from '../../protocols/register/value.ts'
import { isLinearizable, type Model, type Operation } from './linearizability.ts'
import { HONEST, type Wiring } from './register-bugs.ts'
import { LEASE, type Life, REGISTER, type SimPeer, World } from './register-world.ts'

export interface Outcome {
  readonly seed: number
  /** The first violation, or null. */
  readonly violation: string | null
  readonly events: number
  readonly digest: number
  readonly acknowledged: number
  readonly takeovers: number
  /** Virtual milliseconds from the end of the faults until every peer could change and read every register. */
  readonly convergedMs: number
}

interface Group {
  readonly generation: number
  readonly owners: readonly PeerId[]
  readonly log: readonly string[]
}

type Input = { readonly append: string } | 'read'
type History = Operation<Input, string>

const KEYS = ['group/a', 'group/b']
const FAULTS_MS = 2_500
/** Leases, back-off and give-up each happen a few times within it. */
const CONVERGE_MS = 15 * (REGISTER.giveUpMs + LEASE.durationMs)

/**
 * A register that appends. The state is the length of the log, which is enough because the longest read, made at the
 * end, shows the order in which everything happened: any other order contradicts it.
 */
function model(final: readonly string[]): Model<number, Input, string> {
  const names = [''].concat(final.map((_, i) => nameOf(final.slice(0, i + 1))))
  return {
    initial: 0,
    step: (length, input, output) => {
      if (input === 'read') return output === undefined || output === names[length] ? length : undefined
      return input.append === final[length] ? length + 1 : undefined
    },
    name: String
  }
}

/** `lonely`: only one peer has work, and it dies again and again; else one seed in four is so. */
export async function runSeed(seed: number, wiring: Wiring = HONEST, lonely = false): Promise<Outcome> {
  return new Run(seed, wiring, lonely).run()
}

class Run {
  readonly #seed: number
  readonly #world: World
  readonly #histories = new Map<string, History[]>(KEYS.map(key => [key, []]))
  readonly #acknowledged = new Map<string, Set<string>>(KEYS.map(key => [key, new Set()]))
  /** Key → ballot → who had it on disk, and what it was. */
  readonly #held = new Map<string, Map<string, { peers: Set<PeerId>; value: Uint8Array }>>(
    KEYS.map(key => [key, new Map()])
  )
  readonly #chosen = new Map<string, Accepted[]>(KEYS.map(key => [key, []]))
  /** Key → holder → generations below this one are over. */
  readonly #displaced = new Map<string, Map<PeerId, number>>(KEYS.map(key => [key, new Map()]))
  #violation: string | null = null
  #nextId = 0
  #takeovers = 0
  #ending = false
  /** Only the peer that flaps has work: nobody else's ballots hide its mistakes. */
  #lonely: boolean

  constructor(seed: number, wiring: Wiring, lonely: boolean) {
    this.#seed = seed
    this.#lonely = lonely
    const size =
      seed % 3 === 0 ? { peers: 5, voters: 5 } : seed % 3 === 1 ? { peers: 4, voters: 3 } : { peers: 3, voters: 3 }
    this.#world = new World(seed, { ...size, wiring })
    this.#world.onDurable = (peer, key, record) => {
      if (record.accepted !== null) this.#durable(peer, key, record.accepted)
    }
  }

  async run(): Promise<Outcome> {
    const world = this.#world
    const check = (): void => this.#checkLeases()
    world.loss = [0, 0.02, 0.1, 0.3][Math.floor(world.random() * 4)] ?? 0
    world.crashAtSend = world.random() < 0.5 ? 0 : 0.002
    if (this.#lonely || world.random() < 0.4)
      world.flapping = world.peers[Math.floor(world.random() * world.peers.length)] ?? null
    this.#lonely ||= world.flapping !== null && world.random() < 0.6
    world.onCrash = peer => this.#restartLater(peer)
    for (const peer of world.peers) world.start(peer, life => this.#client(life))
    this.#faults()
    await world.run(FAULTS_MS, check)
    this.#ending = true
    world.heal()
    world.loss = 0
    world.crashAtSend = 0
    world.flapping = null
    for (const peer of world.peers) {
      if (peer.life === null) world.start(peer, () => {})
      else if (peer.stopped) world.continue(peer)
    }
    const convergedMs = await this.#converge(check)
    this.#checkHistories()
    return {
      seed: this.#seed,
      violation: this.#violation,
      events: world.events,
      digest: world.digest,
      acknowledged: [...this.#acknowledged.values()].reduce((sum, ids) => sum + ids.size, 0),
      takeovers: this.#takeovers,
      convergedMs
    }
  }

  // ------------------------------------------------------------------------------------------ faults

  #faults(): void {
    const { random, peers } = this.#world
    const world = this.#world
    const any = (): SimPeer => peers[Math.floor(random() * peers.length)] as SimPeer
    const next = (): void => {
      if (this.#ending) return
      const peer = any()
      const dice = random()
      if (dice < 0.25 && peer.life !== null) {
        world.crash(peer)
      } else if (dice < 0.45 && peer.life !== null && !peer.stopped) {
        world.stop(peer)
        world.at(random() * 500, () => {
          if (peer.stopped) world.continue(peer)
        })
      } else if (dice < 0.75) {
        // One way or both, one link or all of a peer's.
        const [all, both] = [random() < 0.4, random() < 0.5]
        for (const other of all ? peers : [any()]) {
          if (other === peer) continue
          world.block(peer.name, other.name)
          if (both) world.block(other.name, peer.name)
        }
      } else world.heal()
      world.at(20 + random() * 200, next)
    }
    world.at(50 + random() * 200, next)
  }

  #restartLater(peer: SimPeer): void {
    const { random } = this.#world
    this.#world.at(random() * random() * 200, () => {
      if (!this.#ending && peer.life === null) this.#world.start(peer, life => this.#client(life))
    })
  }

  // ------------------------------------------------------------------------------------------ clients

  #client(life: Life): void {
    const { random, flapping } = this.#world
    if (this.#lonely && life.peer !== flapping) return
    const next = (): void => {
      if (life.dead || this.#ending) return
      const key = KEYS[random() < 0.7 ? 0 : 1] as string
      const again = (): void => this.#later(life, random() * 60, next)
      this.#act(life, key).then(again, again)
    }
    next()
  }

  #later(life: Life, ms: number, run: () => void): void {
    this.#world.at(ms, () => {
      if (life.dead) return
      if (life.peer.stopped) life.deferred.push(run)
      else run()
    })
  }

  async #act(life: Life, key: string): Promise<void> {
    const { random } = this.#world
    const dice = random()
    if (dice < 0.35) return void (await this.#read(life, key))
    if (dice < 0.65) return this.#change(life, key, group => group)
    // A planned move: the owner stops first.
    if (dice < 0.7 && life.claimed.has(key)) await life.leases.release(key)
    const slot = random() < 0.5 ? 0 : 1
    await this.#change(life, key, group => ({
      ...group,
      generation: group.generation + 1,
      owners: group.owners.map((owner, i) => (i === slot ? life.peer.name : owner))
    }))
  }

  async #read(life: Life, key: string): Promise<Group | null> {
    const callMs = this.#world.nowMs
    const value = (await life.registers.read(key)) as Group | null
    if (life.dead) return null
    this.#record(key, { callMs, returnMs: this.#world.nowMs, input: 'read', output: nameOf(value?.log ?? []) })
    this.#observe(life, key, value)
    return value
  }

  async #change(life: Life, key: string, edit: (group: Group) => Group): Promise<void> {
    const id = `${this.#nextId++}`
    const callMs = this.#world.nowMs
    const input = { append: id }
    const history = this.#histories.get(key)
    const index = history?.length ?? 0
    history?.push({ callMs, returnMs: Number.POSITIVE_INFINITY, input, output: undefined })
    const next = (current: unknown): unknown => {
      const group = (current as Group | null) ?? { generation: 0, owners: ['', ''], log: [] }
      if (group.log.includes(id)) return undefined
      const edited = edit(group)
      return { ...edited, log: [...group.log, id] }
    }
    const fence = (current: unknown, after: unknown): PeerId[] => {
      const owners = (after as Group).owners
      return ((current as Group | null)?.owners ?? []).filter((owner, i) => owner !== '' && owner !== owners[i])
    }
    try {
      const value = (await life.registers.change(key, next, {
        fence,
        generation: after => (after as Group).generation
      })) as Group
      if (life.dead) return
      if (history !== undefined) history[index] = { callMs, returnMs: this.#world.nowMs, input, output: 'done' }
      this.#acknowledged.get(key)?.add(id)
      if (!value.log.includes(id)) this.#fail(`change ${id} of ${key} was acknowledged with a value that lacks it`)
      this.#observe(life, key, value)
    } catch (error) {
      if (
        !['REGISTER_LEASED', 'REGISTER_UNAVAILABLE', 'REGISTER_CONTENDED', 'REGISTER_STOPPED'].some(code =>
          hasCode(error, code)
        )
      ) {
        if (!life.dead) this.#fail(`a change failed with ${String(error)}`)
      }
      throw error
    }
  }

  /** What a snapshot agent does with a record: claim what is ours, let go what is not. */
  #observe(life: Life, key: string, group: Group | null): void {
    if (group === null) return
    const claimed = life.claimed.get(key) ?? 0
    if (group.generation <= claimed) return
    if (group.owners.includes(life.peer.name)) {
      life.claimed.set(key, group.generation)
      life.leases.acquire(key, group.generation).catch(() => {})
    } else if (claimed > 0) {
      life.claimed.delete(key)
      void life.leases.release(key)
    }
  }

  #record(key: string, operation: History): void {
    this.#histories.get(key)?.push(operation)
  }

  // ------------------------------------------------------------------------------------------ invariants

  #durable(peer: SimPeer, key: string, accepted: Accepted): void {
    const ballots = this.#held.get(key)
    const chosen = this.#chosen.get(key)
    if (ballots === undefined || chosen === undefined) return
    const name = `${accepted.ballot.counter}/${accepted.ballot.peer}`
    const held = ballots.get(name) ?? { peers: new Set(), value: accepted.value }
    ballots.set(name, held)
    if (Buffer.compare(held.value, accepted.value) !== 0) this.#fail(`ballot ${name} of ${key} carried two values`)
    // The same record is written again when a later promise joins it.
    if (held.peers.has(peer.name)) return
    held.peers.add(peer.name)
    if (held.peers.size !== Math.floor(this.#world.voters.length / 2) + 1) return
    chosen.push(accepted)
    chosen.sort((a, b) => compareBallots(a.ballot, b.ballot))
    const place = chosen.indexOf(accepted)
    for (const [low, high] of [
      [chosen[place - 1], accepted],
      [accepted, chosen[place + 1]]
    ]) {
      if (low === undefined || high === undefined) continue
      const [older, newer] = [groupOf(low)?.log ?? [], groupOf(high)?.log ?? []]
      if (older.some((id, i) => newer[i] !== id))
        this.#fail(`a chosen value of ${key} was forgotten: [${nameOf(older)}] then [${nameOf(newer)}]`)
      if (high.generation < low.generation)
        this.#fail(`the generation of ${key} fell from ${low.generation} to ${high.generation}`)
    }
    // Judged by what the values say, not by their fences: a fence may be what went wrong.
    const [was, is] = [groupOf(chosen[place - 1]), groupOf(accepted)]
    if (was === null || is === null) return
    for (const [i, holder] of was.owners.entries()) {
      const displaced = this.#displaced.get(key)
      if (holder === '' || holder === is.owners[i] || (displaced?.get(holder) ?? 0) >= is.generation) continue
      displaced?.set(holder, is.generation)
      this.#takeovers += 1
    }
  }

  /** While a displaced owner may act, its displacement is not chosen. Also a stopped one: its clock goes on. */
  #checkLeases(): void {
    for (const [key, displaced] of this.#displaced) {
      for (const [holder, below] of displaced) {
        const life = this.#world.peers.find(({ name }) => name === holder)?.life
        const generation = life?.claimed.get(key)
        if (!life || generation === undefined || generation >= below) continue
        const remainingMs = life.leases.remainingMs(key, generation)
        if (remainingMs > 0) {
          this.#fail(
            `${holder} may act ${remainingMs} ms more on generation ${generation} of ${key}, displaced below ${below}`
          )
        }
      }
    }
  }

  async #converge(check: () => void): Promise<number> {
    const world = this.#world
    const startMs = world.nowMs
    const left = new Set<string>()
    for (const peer of world.peers) {
      for (const key of KEYS) {
        const name = `${peer.name} ${key}`
        left.add(name)
        const attempt = async (): Promise<void> => {
          const life = peer.life
          if (life === null) return
          try {
            await this.#change(life, key, group => group)
            await this.#read(life, key)
            left.delete(name)
          } catch {
            // Not yet: unavailable, contended or still starting.
            this.#world.at(20, () => void attempt())
          }
        }
        world.at(10, () => void attempt())
      }
    }
    while (left.size > 0 && world.nowMs < startMs + CONVERGE_MS && this.#violation === null) {
      await world.run(world.nowMs + 20, check)
    }
    if (left.size > 0) this.#fail(`not converged in ${CONVERGE_MS} ms: ${[...left].join(', ')}`)
    return world.nowMs - startMs
  }

  #checkHistories(): void {
    for (const key of KEYS) {
      const history = this.#histories.get(key) ?? []
      // The longest: what was acknowledged at the end has been read by its own client after it.
      const log = history.reduce<string[]>((longest, { input, output }) => {
        const ids = input === 'read' && output ? output.split(',') : []
        return ids.length > longest.length ? ids : longest
      }, [])
      if (new Set(log).size !== log.length) this.#fail(`a change of ${key} happened twice: ${nameOf(log)}`)
      for (const id of this.#acknowledged.get(key) ?? []) {
        if (!log.includes(id)) this.#fail(`change ${id} of ${key} was acknowledged and lost`)
      }
      // A change without an answer that the longest read does not show never happened, as far as anyone knows.
      const relevant = history.filter(
        ({ input, output }) => output !== undefined || input === 'read' || log.includes(input.append)
      )
      if (!isLinearizable(model(log), relevant)) this.#fail(`the history of ${key} is not linearizable`)
    }
  }

  #fail(what: string): void {
    this.#violation ??= `seed ${this.#seed} at ${this.#world.nowMs.toFixed(3)} ms: ${what}`
  }
}

function nameOf(log: readonly string[]): string {
  return log.join(',')
}

function groupOf(accepted: Accepted | undefined): Group | null {
  return accepted === undefined ? null : (decodeValue(accepted.value) as Group | null)
}
