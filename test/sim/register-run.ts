/**
 * One seed of the simulation: clients read, append, take over, delete and make anew, voters are added and removed, while
 * faults happen; then faults end and the cluster must converge. Invariants (register-checks.ts) are checked after every
 * event and named in the violation. The same seed is the same run, event by event.
 *
 * A register's value is a record whose log holds the ids of all changes so far: lost, doubled and reordered changes show.
 */
import { hasCode } from '../../node/errors.ts'
import type { PeerId } from '../../protocols/core.ts'
import { guarded } from './guarded.ts'
import type { Kernel } from './kernel.ts'
import { type Focus, HONEST, type Wiring } from './register-bugs.ts'
import { Checks, type Group } from './register-checks.ts'
import { strikeNowAndThen } from './register-faults.ts'
import { MAX_VOTERS, Members } from './register-members.ts'
import { LEASE, type Life, REGISTER, type SimPeer, World } from './register-world.ts'

export interface Outcome {
  readonly seed: number
  readonly peers: number
  /** The first violation, with the name of its invariant, or null. */
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

export interface RunOptions {
  /** The most; of three seeds one has that many. */
  readonly peers?: number | undefined
  /** What is wired otherwise than it should be. */
  readonly wiring?: Wiring | undefined
  /** What clients do: their mix is the seed's unless this is given, for mistakes that show in one kind of work only. */
  readonly focus?: Focus | undefined
  /** Told of every event. */
  readonly listener?: Kernel['listener']
}

export async function runSeed(seed: number, options: RunOptions = {}): Promise<Outcome> {
  return new Run(seed, options).run()
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

/** Of 5 peers all vote, of 4 and of 3 three: one of each in three seeds, and so with other numbers, but for less than 3 peers. */
function sizeOf(seed: number, most: number): { peers: number; voters: number } {
  const peers = Math.max(Math.min(3, most), most - (seed % 3))
  return { peers, voters: Math.min(MAX_VOTERS, peers - 1 + (peers % 2)) }
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

  constructor(seed: number, { peers = 5, wiring = HONEST, focus, listener }: RunOptions) {
    this.#seed = seed
    this.#lonely = focus === 'restarts'
    this.#work = workOf(seed, focus)
    this.#world = new World(seed, { ...sizeOf(seed, peers), wiring })
    this.#world.kernel.listener = listener
    this.#members = new Members(this.#world)
    this.#checks = new Checks(seed, this.#world, KEYS)
  }

  async run(): Promise<Outcome> {
    const checks = this.#checks
    const convergedMs = await guarded(
      () => this.#live(),
      (invariant, what) => checks.fail(invariant, what)
    )
    if (checks.violation === null) checks.histories()
    const { events, digest } = this.#world.kernel
    return {
      seed: this.#seed,
      peers: this.#world.peers.length,
      violation: checks.violation,
      events,
      digest,
      acknowledged: checks.acknowledged,
      takeovers: checks.takeovers,
      deletions: checks.deletions,
      voterSets: checks.voters.newest - 1,
      convergedMs: convergedMs ?? 0
    }
  }

  /** Faults, and then the convergence: how long that took. */
  async #live(): Promise<number> {
    const world = this.#world
    const { kernel, peers, random } = world
    const check = (): boolean => {
      this.#checks.leases()
      return this.#checks.violation !== null
    }
    world.loss = kernel.pick([0, 0.02, 0.1, 0.3])
    world.crashAtSend = random() < 0.5 ? 0 : 0.002
    if (this.#lonely || random() < 0.4) world.flapping = kernel.pick(peers)
    this.#lonely ||= world.flapping !== null && random() < 0.6
    if (this.#lonely) world.flapAtSend = 0.08
    kernel.note(
      `loss ${world.loss}, dies at ${world.crashAtSend} of its messages, flaps: ${world.flapping?.name ?? '-'}`
    )
    world.onCrash = peer => this.#restartLater(peer)
    for (const peer of peers) {
      peer.disk.unreadable = 0.1
      this.#start(peer)
    }
    strikeNowAndThen(world, () => this.#ending)
    await kernel.run(FAULTS_MS, check)
    if (this.#checks.violation !== null) return 0
    this.#heal()
    const startMs = kernel.nowMs
    await this.#converge(check)
    return kernel.nowMs - startMs
  }

  /** All faults end: what was stopped goes on, what was ended starts again. */
  #heal(): void {
    const world = this.#world
    world.kernel.note('all faults end')
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
  }

  #start(peer: SimPeer): void {
    this.#world.start(peer, life => {
      this.#members.join(life)
      this.#client(life)
    })
  }

  #restartLater(peer: SimPeer): void {
    const { kernel, random } = this.#world
    kernel.at(
      random() * random() * 200,
      () => `${peer.name} may start again`,
      () => {
        if (peer.life === null) this.#start(peer)
      }
    )
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
        this.#world.after(life, random() * 60, 'client has time', next)
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
    const returned = this.#checks.called(life.peer.name, key, 'read')
    const value = (await life.registers.read(key)) as Group | null
    if (life.dead) return
    returned(value?.log ?? [])
    this.#observe(life, key, value)
  }

  /** False where it is not known to have happened. */
  async #change(life: Life, key: string, edit: (group: Group) => Group): Promise<boolean> {
    const id = `${this.#nextId++}`
    const returned = this.#checks.called(life.peer.name, key, { append: id })
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
    return { generation: Math.ceil(this.#world.kernel.nowMs * 1_000), owners: ['', ''], log: [] }
  }

  /** Owners that can be told stop first; the others' leases are waited for. */
  async #delete(life: Life, key: string): Promise<boolean> {
    for (const peer of this.#world.peers) {
      if (peer.life?.claimed.has(key) && !peer.stopped) await peer.life.leases.release(key)
    }
    const returned = this.#checks.called(life.peer.name, key, 'delete')
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
        this.#checks.fail('changesFailAsDocumented', `one failed with ${String(error)}`)
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
  async #converge(check: () => boolean): Promise<void> {
    const { kernel, peers } = this.#world
    const left = new Set(['voters', 'deleted'])
    for (const peer of peers) for (const key of BUSY) this.#useUntilDone(peer, key, left)
    for (const key of QUIET) this.#useUntilDone(this.#world.kernel.pick(this.#world.peers), key, left)
    const untilMs = kernel.nowMs + CONVERGE_MS
    const [last] = BUSY.slice(-1) as [string]
    let deleting = false
    while (left.size > 0 && kernel.nowMs < untilMs && this.#checks.violation === null) {
      await kernel.run(kernel.nowMs + 20, check)
      if (this.#members.agree()) left.delete('voters')
      if (!deleting && left.size === 1 && ![...this.#waiting].some(({ dead }) => !dead)) {
        deleting = true
        this.#untilDone(this.#world.kernel.pick(this.#world.peers), 'delete', left, life => this.#delete(life, last))
      }
      const forgotten = peers.every(({ disk }) => !disk.entries.has(`register/${last}`))
      if (deleting && forgotten) left.delete('deleted')
    }
    if (left.size > 0) this.#checks.fail('registersConverge', `not in ${CONVERGE_MS} ms: ${[...left].join(', ')}`)
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
      else later(20)
    }
    const later = (ms: number): void =>
      this.#world.kernel.at(
        ms,
        () => `${peer.name} tries: ${name}`,
        () => void attempt()
      )
    later(10)
  }
}
