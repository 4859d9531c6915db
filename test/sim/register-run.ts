/**
 * One seed of the simulation: clients read, append, take over, delete and make anew, voters are added and removed, while
 * faults happen; then faults end and the cluster must converge. Invariants (register-checks.ts) are checked after every
 * event and named in the violation.
 *
 * A register's value is a record whose log holds the ids of all changes so far: lost, doubled and reordered changes show.
 */
import { hasCode } from '../../node/errors.ts'
import type { PeerId } from '../../protocols/core.ts'
import { type Focus, HONEST, type Wiring } from './register-bugs.ts'
import { Checks, type Group } from './register-checks.ts'
import { Members } from './register-members.ts'
import { LEASE, type Life, REGISTER, type SimPeer, World } from './register-world.ts'

export interface Outcome {
  readonly seed: number
  /** The first violation, or null. */
  readonly violation: string | null
  readonly events: number
  readonly digest: number
  readonly acknowledged: number
  readonly takeovers: number
  readonly deletions: number
  /** Changes of voters. */
  readonly voterSets: number
  /** Virtual milliseconds from the end of the faults until every peer could change and read every register. */
  readonly convergedMs: number
}

const BUSY = ['group/a', 'group/b']
/** Written seldom: what nobody writes anew shows what changes of voters and deletions leave behind. */
const QUIET = ['group/c', 'group/d', 'group/e', 'group/f']
const KEYS = [...BUSY, ...QUIET]
const FAULTS_MS = 2_500
/** Leases, back-off and give-up each happen a few times within it. */
const CONVERGE_MS = 15 * (REGISTER.giveUpMs + LEASE.durationMs)
/** What a change may end with while faults happen. */
const EXPECTED = ['REGISTER_LEASED', 'REGISTER_UNAVAILABLE', 'REGISTER_CONTENDED', 'REGISTER_STOPPED', 'REGISTER_STORE']

/** What clients do: their mix is the seed's unless a focus is given, for mistakes that show in one kind of work only. */
export async function runSeed(seed: number, wiring: Wiring = HONEST, focus?: Focus): Promise<Outcome> {
  return new Run(seed, wiring, focus).run()
}

/** Chances that what a client does next is a change of voters, else a deletion, else a takeover (else it reads or appends). */
function workOf(seed: number, focus: Focus | undefined): { votes: number; deletes: number; takeovers: number } {
  const few = { votes: 0, deletes: 0, takeovers: 0.35 }
  if (focus === 'restarts') return few
  if (focus === 'owners') return { ...few, takeovers: 0.6 }
  // Of five seeds two have neither, so that what these hide is found as well.
  const [votes, deletes] = [
    focus === undefined ? [2, 4].includes(seed % 5) : focus === 'voters',
    focus === undefined ? [3, 4].includes(seed % 5) : focus === 'deletions'
  ]
  return { ...few, votes: votes ? 0.2 : 0, deletes: deletes ? 0.08 : 0 }
}

class Run {
  readonly #seed: number
  readonly #world: World
  readonly #members: Members
  readonly #checks: Checks
  /** Lives whose client waits for an answer. */
  readonly #waiting = new Set<Life>()
  #nextId = 0
  #ending = false
  /** Only the peer that flaps has work: nobody else's ballots hide its mistakes. */
  #lonely: boolean
  readonly #work: ReturnType<typeof workOf>

  constructor(seed: number, wiring: Wiring, focus: Focus | undefined) {
    this.#seed = seed
    this.#lonely = focus === 'restarts'
    this.#work = workOf(seed, focus)
    const size =
      seed % 3 === 0 ? { peers: 5, voters: 5 } : seed % 3 === 1 ? { peers: 4, voters: 3 } : { peers: 3, voters: 3 }
    this.#world = new World(seed, { ...size, wiring })
    this.#members = new Members(this.#world)
    this.#checks = new Checks(seed, this.#world, KEYS)
  }

  async run(): Promise<Outcome> {
    const world = this.#world
    const check = (): void => this.#checks.leases()
    world.loss = [0, 0.02, 0.1, 0.3][Math.floor(world.random() * 4)] ?? 0
    world.crashAtSend = world.random() < 0.5 ? 0 : 0.002
    if (this.#lonely || world.random() < 0.4)
      world.flapping = world.peers[Math.floor(world.random() * world.peers.length)] ?? null
    this.#lonely ||= world.flapping !== null && world.random() < 0.6
    if (this.#lonely) world.flapAtSend = 0.08
    world.onCrash = peer => this.#restartLater(peer)
    for (const peer of world.peers) {
      peer.disk.unreadable = 0.1
      this.#start(peer)
    }
    this.#faults()
    await world.run(FAULTS_MS, check)
    this.#ending = true
    world.heal()
    world.loss = 0
    world.crashAtSend = 0
    world.flapping = null
    for (const peer of world.peers) {
      peer.disk.full = false
      peer.disk.unreadable = 0
      if (peer.life === null) this.#start(peer)
      else if (peer.stopped) world.continue(peer)
    }
    const startMs = world.nowMs
    await this.#converge(check)
    this.#checks.histories()
    return {
      seed: this.#seed,
      violation: this.#checks.violation,
      events: world.events,
      digest: world.digest,
      acknowledged: this.#checks.acknowledged,
      takeovers: this.#checks.takeovers,
      deletions: this.#checks.deletions,
      voterSets: this.#checks.voters.newest - 1,
      convergedMs: world.nowMs - startMs
    }
  }

  #start(peer: SimPeer): void {
    this.#world.start(peer, life => {
      this.#members.join(life)
      this.#client(life)
    })
  }

  // ------------------------------------------------------------------------------------------ faults

  #faults(): void {
    const world = this.#world
    const { random } = world
    const next = (): void => {
      if (this.#ending) return
      this.#fault(this.#anyPeer())
      world.at(20 + random() * 200, next)
    }
    world.at(50 + random() * 200, next)
  }

  #fault(peer: SimPeer): void {
    const world = this.#world
    const { random, peers } = world
    const dice = random()
    if (dice < 0.22) world.crash(peer)
    else if (dice < 0.25) {
      peer.disk.full = true
      world.at(random() * 200, () => {
        peer.disk.full = false
      })
    } else if (dice < 0.45) {
      if (peer.life === null || peer.stopped) return
      world.stop(peer)
      world.at(random() * 500, () => {
        if (peer.stopped) world.continue(peer)
      })
    } else if (dice < 0.75) {
      // One way or both, one link or all of a peer's.
      const [all, both] = [random() < 0.4, random() < 0.5]
      for (const other of all ? peers : [this.#anyPeer()]) {
        if (other === peer) continue
        world.block(peer.name, other.name)
        if (both) world.block(other.name, peer.name)
      }
    } else world.heal()
  }

  #anyPeer(): SimPeer {
    const { random, peers } = this.#world
    return peers[Math.floor(random() * peers.length)] as SimPeer
  }

  #restartLater(peer: SimPeer): void {
    const { random } = this.#world
    this.#world.at(random() * random() * 200, () => {
      if (peer.life === null) this.#start(peer)
    })
  }

  // ------------------------------------------------------------------------------------------ clients

  #client(life: Life): void {
    const { random, flapping } = this.#world
    if (this.#lonely && life.peer !== flapping) return
    const next = (): void => {
      if (life.dead || this.#ending) return
      const key = this.#anyKey()
      const again = (): void => {
        this.#waiting.delete(life)
        this.#world.at(random() * 60, () => this.#world.inLife(life, next))
      }
      this.#waiting.add(life)
      this.#act(life, key).then(again, again)
    }
    next()
  }

  #anyKey(): string {
    const { random } = this.#world
    const quiet = this.#work.votes + this.#work.deletes > 0 ? 0.2 : 0
    if (random() < quiet) return QUIET[Math.floor(random() * QUIET.length)] as string
    return BUSY[random() < 0.7 ? 0 : 1] as string
  }

  async #act(life: Life, key: string): Promise<unknown> {
    const { random } = this.#world
    const { votes, deletes, takeovers } = this.#work
    if (random() < votes) return this.#members.change(life)
    if (random() < deletes) return this.#delete(life, key)
    if (random() > takeovers) return random() < 0.5 ? this.#read(life, key) : this.#change(life, key, group => group)
    // A planned move: the owner stops first.
    if (random() < 0.14 && life.claimed.has(key)) await life.leases.release(key)
    const slot = random() < 0.5 ? 0 : 1
    return this.#change(life, key, group => ({
      ...group,
      generation: group.generation + 1,
      owners: group.owners.map((owner, i) => (i === slot ? life.peer.name : owner))
    }))
  }

  async #read(life: Life, key: string): Promise<void> {
    const returned = this.#checks.called(key, 'read')
    const value = (await life.registers.read(key)) as Group | null
    if (life.dead) return
    returned(value?.log ?? [])
    this.#observe(life, key, value)
  }

  /** False where it is not known to have happened. */
  async #change(life: Life, key: string, edit: (group: Group) => Group): Promise<boolean> {
    const id = `${this.#nextId++}`
    const returned = this.#checks.called(key, { append: id })
    // A deletion ends what a change looks at to know whether it has happened: it is meant for one life of the register.
    let birth: string | null | undefined
    const next = (current: unknown): unknown => {
      const group = (current as Group | null) ?? this.#newGroup()
      if (group.log.includes(id)) return undefined
      const life = group.log[0] ?? null
      if (birth !== undefined && (birth === null || birth !== life)) return undefined
      birth = life
      const edited = edit(group)
      return { ...edited, log: [...group.log, id] }
    }
    const fence = (current: unknown, after: unknown): PeerId[] => {
      const owners = (after as Group).owners
      return ((current as Group | null)?.owners ?? []).filter((owner, i) => owner !== '' && owner !== owners[i])
    }
    return this.#expecting(life, async () => {
      const generation = (after: unknown): number => (after as Group).generation
      const value = (await life.registers.change(key, next, { fence, generation })) as Group | null
      if (life.dead || value === null || !value.log.includes(id)) return false
      returned(value.log)
      this.#observe(life, key, value)
      return true
    })
  }

  /** Above all generations that the register had before it was deleted, if it was. */
  #newGroup(): Group {
    return { generation: Math.ceil(this.#world.nowMs * 1_000), owners: ['', ''], log: [] }
  }

  /** Owners that can be told stop first; the others' leases are waited for. */
  async #delete(life: Life, key: string): Promise<boolean> {
    for (const peer of this.#world.peers) {
      if (peer.life?.claimed.has(key) && !peer.stopped) await peer.life.leases.release(key)
    }
    const returned = this.#checks.called(key, 'delete')
    return this.#expecting(life, async () => {
      const fence = (current: unknown): PeerId[] => (current as Group).owners.filter(owner => owner !== '')
      let birth: string | undefined
      const only = (current: unknown): boolean => {
        const [first] = (current as Group).log
        birth ??= first
        return first === birth
      }
      const deleted = await life.registers.delete(key, { only, fence })
      if (deleted && !life.dead) returned([])
      return deleted
    })
  }

  async #expecting(life: Life, act: () => Promise<boolean>): Promise<boolean> {
    try {
      return await act()
    } catch (error) {
      if (!life.dead && !EXPECTED.some(code => hasCode(error, code)))
        this.#checks.fail(`a change failed with ${String(error)}`)
      throw error
    }
  }

  /** What a snapshot agent does with a record: claim what is ours, let go what is not. */
  #observe(life: Life, key: string, group: Group | null): void {
    const claimed = life.claimed.get(key) ?? 0
    if (group === null || group.generation <= claimed) return
    if (group.owners.includes(life.peer.name)) {
      life.claimed.set(key, group.generation)
      life.leases.acquire(key, group.generation).catch(() => {})
    } else if (claimed > 0) {
      life.claimed.delete(key)
      void life.leases.release(key)
    }
  }

  // ------------------------------------------------------------------------------------------ the end

  /** Every peer changes and reads every register, all agree on settled voters, and a deleted register is forgotten by all. */
  async #converge(check: () => void): Promise<void> {
    const world = this.#world
    const left = new Set(['voters', 'deleted'])
    for (const peer of world.peers) for (const key of BUSY) this.#useUntilDone(peer, key, left)
    for (const key of QUIET) this.#useUntilDone(this.#anyPeer(), key, left)
    const untilMs = world.nowMs + CONVERGE_MS
    const [last] = BUSY.slice(-1) as [string]
    let deleting = false
    while (left.size > 0 && world.nowMs < untilMs && this.#checks.violation === null) {
      await world.run(world.nowMs + 20, check)
      if (this.#members.agree()) left.delete('voters')
      if (!deleting && left.size === 1 && ![...this.#waiting].some(({ dead }) => !dead)) {
        deleting = true
        this.#untilDone(this.#anyPeer(), 'delete', left, life => this.#delete(life, last))
      }
      const forgotten = world.peers.every(({ disk }) => !disk.entries.has(`register/${last}`))
      if (deleting && forgotten) left.delete('deleted')
    }
    if (left.size > 0) this.#checks.fail(`not converged in ${CONVERGE_MS} ms: ${[...left].join(', ')}`)
  }

  #useUntilDone(peer: SimPeer, key: string, left: Set<string>): void {
    this.#untilDone(peer, `${peer.name} ${key}`, left, async life => {
      const changed = await this.#change(life, key, group => group)
      await this.#read(life, key)
      return changed
    })
  }

  #untilDone(peer: SimPeer, name: string, left: Set<string>, act: (life: Life) => Promise<boolean>): void {
    left.add(name)
    const attempt = async (): Promise<void> => {
      // Not yet: unavailable, contended or still starting.
      const done = peer.life !== null && (await act(peer.life).catch(() => false))
      if (done) left.delete(name)
      else this.#world.at(20, () => void attempt())
    }
    this.#world.at(10, () => void attempt())
  }
}
