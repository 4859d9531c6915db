/**
 * The invariants of a simulated run, each checked when something happens that could break it. A violation begins with the
 * name of its invariant.
 */
import type { PeerId } from '../../protocols/core.ts'
import { type Accepted, type Ballot, compareBallots, type RegisterMessage } from '../../protocols/register/messages.ts'
import { isTombstone, valueOf } from '../../protocols/register/value.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import { type History, type Input, wrongWith } from './register-history.ts'
import { VoterWatch } from './register-members.ts'
import type { SimPeer, World } from './register-world.ts'

/** What must hold of registers and leases. */
export type Invariant =
  /** What is accepted at one ballot is one value. */
  | 'ballotsCarryOneValue'
  /** Of two chosen values of one life of a register the later has all that the earlier has. */
  | 'chosenValuesAreNotForgotten'
  /** What a deletion ended is in no later value. */
  | 'deletedChangesStayDeleted'
  /** The generation of a chosen value is not below that of an earlier one. */
  | 'generationsDoNotFall'
  /** No change is in two places of what anybody has seen. */
  | 'changesHappenOnce'
  /** A change whose client was told that it has happened is in what the client was shown. */
  | 'acknowledgedChangesAreThere'
  /** What clients were told is what a single register could have told them. */
  | 'registersAreLinearizable'
  /** Whom a chosen value has displaced holds no lease of the generations before it. */
  | 'leasesDoNotOverlap'
  /** A version is one set of voters, nobody goes back, and no two but neighbours can decide. */
  | 'votersAreOneChain'
  /** A change that fails has one of the documented codes. */
  | 'changesFailAsDocumented'
  /** After the faults every peer changes and reads every register, and all agree on the voters. */
  | 'registersConverge'
  /** No event throws. */
  | 'nothingThrows'
  /** No rejected promise is left alone. */
  | 'nothingIsLeftRejected'

/** What the registers of a run hold: who owns two slots in which generation, and the ids of all changes of this life of it. */
export interface Group {
  readonly generation: number
  readonly owners: readonly PeerId[]
  readonly log: readonly string[]
}

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
      if (wrong !== undefined) this.fail('votersAreOneChain', wrong)
      else this.#judge(set.version)
    }
  }

  /** `atMs`: when it happened, where that is not now. */
  fail(invariant: Invariant, what: string, atMs = this.#world.kernel.nowMs): void {
    if (this.violation !== null) return
    const violation = `${invariant} at ${atMs.toFixed(3)} ms: ${what}`
    this.violation = `seed ${this.#seed}: ${violation}`
    this.#world.kernel.note(() => `VIOLATION ${violation}`)
  }

  get acknowledged(): number {
    return [...this.#registers.values()].reduce((sum, { acknowledged }) => sum + acknowledged.size, 0)
  }

  // ------------------------------------------------------------------------------------------ what clients saw

  /** An operation of `by` begins; the result is to be called with what it saw when it returns, or never. */
  called(by: PeerId, key: string, input: Input): (output: readonly string[]) => void {
    const { kernel } = this.#world
    const register = this.#registers.get(key)
    const callMs = kernel.nowMs
    const asked = (): string => `${typeof input === 'string' ? input : `change ${input.append}`} of ${key}`
    kernel.note(() => `${by} CALLS ${asked()}`)
    const index = register?.history.push({ callMs, returnMs: Number.POSITIVE_INFINITY, input, output: undefined }) ?? 0
    return output => {
      if (register === undefined) return
      register.history[index - 1] = { callMs, returnMs: kernel.nowMs, input, output }
      kernel.note(() => `${by} IS TOLD [${output.join()}] by ${asked()}`)
      if (typeof input !== 'object') return
      register.acknowledged.add(input.append)
      if (!output.includes(input.append))
        this.fail('acknowledgedChangesAreThere', `change ${input.append} of ${key} was acknowledged and is not there`)
    }
  }

  /** At the end: every history is one that a single register could have had. */
  histories(): void {
    for (const [key, { history }] of this.#registers) {
      const wrong = wrongWith(history)
      if (wrong !== undefined) this.fail(wrong.invariant, `${key}: ${wrong.what}`, wrong.atMs)
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
      this.fail('ballotsCarryOneValue', `ballot ${name} of ${key} carried two values`)
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
    this.#world.kernel.note(() => `CHOSEN at ${name} in ${key}: ${JSON.stringify(groupOf(held.accepted))}`)
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
      if (back !== undefined)
        this.fail('deletedChangesStayDeleted', `change ${back} of ${key} came back after its deletion`)
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
        this.fail('chosenValuesAreNotForgotten', `of ${key}: [${older.join()}] then [${newer.join()}]`)
      this.deletions += 1
      for (const id of older) if (!register.ended.has(id)) register.ended.set(id, high.ballot)
    }
    // A tombstone of a register that was forgotten counts from zero.
    if (high.generation < low.generation && !isTombstone(high))
      this.fail('generationsDoNotFall', `that of ${key} fell from ${low.generation} to ${high.generation}`)
  }

  // ------------------------------------------------------------------------------------------ leases

  /** Judged by what the values say, not by their fences: a fence may be what went wrong. */
  #displace({ displaced }: Register, before: Accepted | undefined, after: Accepted): void {
    const was = groupOf(before)
    const owners = groupOf(after)?.owners ?? []
    for (const [i, holder] of (was?.owners ?? []).entries()) {
      if (holder === '' || holder === owners[i] || (displaced.get(holder) ?? 0) >= after.generation) continue
      displaced.set(holder, after.generation)
      this.#world.kernel.note(() => `DISPLACED ${holder} below ${after.generation}`)
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
            'leasesDoNotOverlap',
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
