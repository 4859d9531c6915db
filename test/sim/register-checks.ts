/** The invariants of a simulated run, each checked when something happens that could break it, and at the end. */
import type { PeerId } from '../../protocols/core.ts'
import { type Accepted, type Ballot, compareBallots, type RegisterMessage } from '../../protocols/register/messages.ts'
import { isTombstone, valueOf } from '../../protocols/register/value.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import { isLinearizable, type Model, type Operation } from './linearizability.ts'
import { VoterWatch } from './register-members.ts'
import type { SimPeer, World } from './register-world.ts'

/** What the registers of a run hold: who owns two slots in which generation, and the ids of all changes of this life of it. */
export interface Group {
  readonly generation: number
  readonly owners: readonly PeerId[]
  readonly log: readonly string[]
}

/** Change ids have no other use than to be told apart; reads and changes put out the log they saw. */
export type Input = { readonly append: string } | 'read' | 'delete'
export type History = Operation<Input, readonly string[]>

interface Register {
  readonly history: History[]
  readonly acknowledged: Set<string>
  /** Ballot → who had it on disk, and what it was. */
  readonly held: Map<string, { readonly peers: Set<PeerId>; readonly accepted: Accepted; chosen: boolean }>
  readonly chosen: Accepted[]
  /** Ballots of all tombstones on any disk: one that was never chosen may have become the base of a value that was. */
  readonly tombstones: Ballot[]
  /** Change id → the deletion that ended the life that it was made in. */
  readonly ended: Map<string, Ballot>
  /** Holder → generations below this one are over. */
  readonly displaced: Map<PeerId, number>
}

export class Checks {
  violation: string | null = null
  takeovers = 0
  deletions = 0
  readonly voters: VoterWatch
  readonly #seed: number
  readonly #world: World
  readonly #registers: ReadonlyMap<string, Register>
  /** Ballot → the voter set that its accept was sent in. */
  readonly #versions = new Map<string, number>()
  #judged = 1

  constructor(seed: number, world: World, keys: readonly string[]) {
    this.#seed = seed
    this.#world = world
    this.voters = new VoterWatch(world)
    const empty = (): Register => ({
      history: [],
      acknowledged: new Set(),
      held: new Map(),
      chosen: [],
      tombstones: [],
      ended: new Map(),
      displaced: new Map()
    })
    this.#registers = new Map(keys.map(key => [key, empty()]))
    world.onSend = (_from, protocol, message) => {
      if (protocol === 'register') this.#sent(message as RegisterMessage)
    }
    world.onDurable = (peer, key, { accepted }) => {
      const register = this.#registers.get(key)
      if (accepted !== null && register !== undefined) this.#durable(peer, key, register, accepted)
    }
    world.onAdopted = (peer, set) => {
      const wrong = this.voters.adopted(peer.name, set)
      if (wrong !== undefined) this.fail(wrong)
      else this.#judge(set.version)
    }
  }

  fail(what: string): void {
    this.violation ??= `seed ${this.#seed} at ${this.#world.nowMs.toFixed(3)} ms: ${what}`
  }

  get acknowledged(): number {
    return [...this.#registers.values()].reduce((sum, { acknowledged }) => sum + acknowledged.size, 0)
  }

  // ------------------------------------------------------------------------------------------ what clients saw

  /** An operation begins; the result is to be called with what it saw when it returns, or never. */
  called(key: string, input: Input): (output: readonly string[]) => void {
    const register = this.#registers.get(key)
    const callMs = this.#world.nowMs
    const index = register?.history.push({ callMs, returnMs: Number.POSITIVE_INFINITY, input, output: undefined }) ?? 0
    return output => {
      if (register === undefined) return
      register.history[index - 1] = { callMs, returnMs: this.#world.nowMs, input, output }
      if (typeof input !== 'object') return
      register.acknowledged.add(input.append)
      if (!output.includes(input.append))
        this.fail(`change ${input.append} of ${key} was acknowledged and is not there`)
    }
  }

  /** At the end: every history is one that a single register could have had. */
  histories(): void {
    for (const [key, { history }] of this.#registers) {
      const tree = new LogTree()
      for (const { output } of history) if (output !== undefined) tree.add(output)
      if (tree.twice !== undefined) this.fail(`change ${tree.twice} of ${key} happened twice`)
      // A change without an answer that no log shows never happened, as far as anyone knows.
      const relevant = history.filter(
        ({ input, output }) => output !== undefined || typeof input !== 'object' || tree.knows(input.append)
      )
      if (!isLinearizable(modelOf(tree), relevant)) this.fail(`the history of ${key} is not linearizable`)
    }
  }

  // ------------------------------------------------------------------------------------------ what is on disks

  #sent(message: RegisterMessage): void {
    if (message.kind === 'accept') this.#versions.set(nameOf(message.accepted.ballot), message.version)
  }

  #durable(peer: SimPeer, key: string, register: Register, accepted: Accepted): void {
    const name = nameOf(accepted.ballot)
    const held = register.held.get(name) ?? { peers: new Set(), accepted, chosen: false }
    register.held.set(name, held)
    if (isTombstone(accepted) && held.peers.size === 0) register.tombstones.push(accepted.ballot)
    if (Buffer.compare(held.accepted.value, accepted.value) !== 0)
      this.fail(`ballot ${name} of ${key} carried two values`)
    // The same record is written again when a later promise joins it.
    if (held.chosen || held.peers.has(peer.name)) return
    held.peers.add(peer.name)
    if (this.#isChosen(name, held.peers)) this.#choose(key, register, name)
  }

  /** By a majority of the set that its proposer counted in, or of the next one, whose members found it among themselves. */
  #isChosen(name: string, peers: ReadonlySet<PeerId>): boolean {
    const version = this.#versions.get(name) ?? 0
    return [version, version + 1].some(each => {
      const ids = this.voters.get(each)?.ids ?? []
      return ids.length > 0 && ids.filter(id => peers.has(id)).length >= majorityOf(ids.length)
    })
  }

  /** The set `version` is new: what the one before has left behind may be chosen by it. */
  #judge(version: number): void {
    if (this.#judged >= version) return
    this.#judged = version
    for (const [key, register] of this.#registers) {
      for (const [name, { peers, chosen }] of register.held) {
        if (!chosen && this.#versions.get(name) === version - 1 && this.#isChosen(name, peers))
          this.#choose(key, register, name)
      }
    }
  }

  #choose(key: string, register: Register, name: string): void {
    const held = register.held.get(name)
    if (held === undefined) return
    held.chosen = true
    this.#chosen(key, register, held.accepted)
  }

  #chosen(key: string, register: Register, accepted: Accepted): void {
    const { chosen } = register
    chosen.push(accepted)
    chosen.sort((a, b) => compareBallots(a.ballot, b.ballot))
    const place = chosen.indexOf(accepted)
    this.#compare(key, register, chosen[place - 1], accepted)
    this.#compare(key, register, accepted, chosen[place + 1])
    for (const value of chosen.slice(place)) {
      const back = logOf(value).find(id => {
        const ended = register.ended.get(id)
        return ended !== undefined && compareBallots(ended, value.ballot) < 0
      })
      if (back !== undefined) this.fail(`change ${back} of ${key} came back after its deletion`)
    }
    this.#displace(register, chosen[place - 1], accepted)
  }

  #compare(key: string, register: Register, low: Accepted | undefined, high: Accepted | undefined): void {
    if (low === undefined || high === undefined) return
    const [older, newer] = [logOf(low), logOf(high)]
    if (older.some((id, i) => newer[i] !== id)) {
      // Another life of the register, or a forgotten one.
      const deleted = register.tombstones.some(
        ballot => compareBallots(low.ballot, ballot) < 0 && compareBallots(ballot, high.ballot) <= 0
      )
      if (!deleted || older.some(id => newer.includes(id)))
        this.fail(`a chosen value of ${key} was forgotten: [${older.join()}] then [${newer.join()}]`)
      this.deletions += 1
      for (const id of older) if (!register.ended.has(id)) register.ended.set(id, high.ballot)
    }
    // A tombstone of a register that was forgotten counts from zero.
    if (high.generation < low.generation && !isTombstone(high))
      this.fail(`the generation of ${key} fell from ${low.generation} to ${high.generation}`)
  }

  // ------------------------------------------------------------------------------------------ leases

  /** Judged by what the values say, not by their fences: a fence may be what went wrong. */
  #displace({ displaced }: Register, before: Accepted | undefined, after: Accepted): void {
    const was = groupOf(before)
    const owners = groupOf(after)?.owners ?? []
    for (const [i, holder] of (was?.owners ?? []).entries()) {
      if (holder === '' || holder === owners[i] || (displaced.get(holder) ?? 0) >= after.generation) continue
      displaced.set(holder, after.generation)
      this.takeovers += 1
    }
  }

  /** While a displaced owner may act, its displacement is not chosen. Also a stopped one: its clock goes on. */
  leases(): void {
    for (const [key, { displaced }] of this.#registers) {
      for (const [holder, below] of displaced) {
        const life = this.#world.peers.find(({ name }) => name === holder)?.life
        const generation = life?.claimed.get(key)
        if (!life || generation === undefined || generation >= below) continue
        const remainingMs = life.leases.remainingMs(key, generation)
        if (remainingMs > 0) {
          this.fail(
            `${holder} may act ${remainingMs} ms more on generation ${generation} of ${key}, displaced below ${below}`
          )
        }
      }
    }
  }
}

const nameOf = ({ counter, peer }: Ballot): string => `${counter}/${peer}`

function groupOf(accepted: Accepted | undefined): Group | null {
  return accepted === undefined ? null : (valueOf(accepted) as Group | null)
}

const logOf = (accepted: Accepted): readonly string[] => groupOf(accepted)?.log ?? []

/** All logs that anyone saw, as a tree: a log is a way from the root, a life of the register a branch of it. */
class LogTree {
  /** A change that is in two places. */
  twice: string | undefined
  /** Node and change → the node after it. The root is 0: nothing written, or deleted. */
  readonly #next = new Map<string, number>()
  readonly #places = new Map<string, number>()

  add(log: readonly string[]): void {
    let node = 0
    for (const id of log) {
      const step = `${node} ${id}`
      let next = this.#next.get(step)
      if (next === undefined) {
        next = this.#next.size + 1
        this.#next.set(step, next)
        if (this.#places.has(id)) this.twice = id
        this.#places.set(id, next)
      }
      node = next
    }
  }

  knows(id: string): boolean {
    return this.#places.has(id)
  }

  after(node: number, id: string): number | undefined {
    return this.#next.get(`${node} ${id}`)
  }

  find(log: readonly string[]): number | undefined {
    return log.length === 0 ? 0 : this.#places.get(log.at(-1) ?? '')
  }
}

/** A register that appends and can be deleted. An append leads to a log that somebody saw, for its own client did. */
function modelOf(tree: LogTree): Model<number, Input, readonly string[]> {
  return {
    initial: 0,
    step: (node, input, output) => {
      if (input === 'delete') return 0
      if (input === 'read') return output === undefined || tree.find(output) === node ? node : undefined
      return tree.after(node, input.append)
    },
    name: String
  }
}
