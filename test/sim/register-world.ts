/**
 * A simulated cluster for registers and leases: the production shells on a simulated clock, network and disk, all from
 * one seed (`kernel.ts`). Peers crash (what was not fsynced is lost), restart, are stopped and continued; links lose, delay, double,
 * reorder and block one way; every peer's clock has a rate of its own within the drift bound.
 *
 * A peer's *life* is one run of its process. When it ends, its timers, messages and promises are dead: nothing of it
 * runs again. A stopped life's events wait and come one by one when it continues, as after SIGCONT.
 */
import { Packr } from 'msgpackr'
import type { LeaseSettings, RegisterSettings } from '../../config/schema.ts'
import type { Clock, ControlBus, Leases, Log } from '../../node/ports.ts'
import type { PeerId, Random } from '../../protocols/core.ts'
import { createLeases } from '../../protocols/lease/shell.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import type { Entry } from '../../protocols/register/durable-order.ts'
import { type AcceptorRecord, remember } from '../../protocols/register/record.ts'
import { createRegisters, type RegisterOptions, type RegisterShell } from '../../protocols/register/shell.ts'
import { firstVoters, type VoterSet } from '../../protocols/register/voters.ts'
import { Kernel, type What } from './kernel.ts'
import type { Wiring } from './register-bugs.ts'
import { SimDisk } from './register-disk.ts'
import { describeBody } from './world-words.ts'

/** Ten times the default drift in a fifth of the time, so that what depends on it happens often. */
export const LEASE: LeaseSettings = { durationMs: 200, renewEveryMs: 50, driftPerMille: 200 }
export const REGISTER: RegisterSettings = { roundTimeoutMs: 80, giveUpMs: 600 }

const packr = new Packr({ useRecords: false })

interface Deferred {
  readonly what: What
  readonly run: () => void
}

export interface Life {
  readonly peer: SimPeer
  readonly registers: RegisterShell
  readonly leases: Leases
  readonly bus: ControlBus
  readonly clock: Clock
  /** Key → the generation that this life claimed last. */
  readonly claimed: Map<string, number>
  readonly handlers: Map<string, (from: PeerId, message: unknown) => void>
  readonly deferred: Deferred[]
  dead: boolean
}

export interface SimPeer {
  readonly name: PeerId
  readonly rate: number
  readonly offsetMs: number
  readonly disk: SimDisk
  life: Life | null
  stopped: boolean
}

export interface WorldOptions {
  readonly peers: number
  /** The first so many of them are the voters of set 1. */
  readonly voters: number
  readonly wiring: Wiring
  readonly settings?: RegisterSettings
  readonly onDecision?: RegisterOptions['onDecision']
}

export class World {
  readonly kernel: Kernel
  readonly random: Random
  readonly firstVoters: VoterSet
  readonly peers: readonly SimPeer[]
  readonly #options: WorldOptions
  readonly #blocked = new Set<string>()
  /** Called with every message that a peer sends. */
  onSend: (from: PeerId, protocol: string, message: object) => void = () => {}
  /** Called when an acceptor's record of its present term is on its disk. */
  onDurable: (peer: SimPeer, key: string, record: AcceptorRecord) => void = () => {}
  /** Called when a voter set is on the disk of a peer. */
  onAdopted: (peer: SimPeer, set: VoterSet) => void = () => {}
  /** Called when `from` is found to count in a newer voter set. */
  onNewer: (life: Life, from: PeerId) => void = () => {}
  onCrash: (peer: SimPeer) => void = () => {}
  /** Chance that a message is lost; doubled and much delayed ones follow it. */
  loss = 0
  /** Chance that a peer dies at a message that it sends, e.g. in the middle of a broadcast. */
  crashAtSend = 0
  /** One that dies again and again, soon after it has started. */
  flapping: SimPeer | null = null
  flapAtSend = 0.02

  constructor(seed: number, options: WorldOptions) {
    const kernel = new Kernel(seed)
    this.kernel = kernel
    this.random = kernel.random
    this.#options = options
    const half = Math.sqrt(1 + LEASE.driftPerMille / 1000)
    this.peers = Array.from({ length: options.peers }, (_, i) => {
      const peer: SimPeer = {
        name: `p${i}`,
        // Extremes are likelier than in nature: they are what the bound is for.
        rate: half ** (this.random() < 0.5 ? Math.sign(this.random() - 0.5) : this.random() * 2 - 1),
        offsetMs: this.random() * 1e6,
        disk: new SimDisk({
          random: this.random,
          at: (ms, run) => kernel.at(ms, () => `${peer.name} fsync`, run),
          onWrite: entry => this.#written(peer, entry)
        }),
        life: null,
        stopped: false
      }
      return peer
    })
    this.firstVoters = firstVoters(this.peers.slice(0, options.voters).map(({ name }) => name))
  }

  // ------------------------------------------------------------------------------------------ lives

  start(peer: SimPeer, born: (life: Life) => void): void {
    const { random } = this
    const handlers: Life['handlers'] = new Map()
    const claimed = new Map<string, number>()
    const deferred: Deferred[] = []
    const clock: Clock = {
      now: () => peer.offsetMs + this.kernel.nowMs * peer.rate,
      after: (ms, fn) => {
        let cancelled = false
        this.after(life, ms / peer.rate, 'timer', () => {
          if (!cancelled) fn()
        })
        return () => {
          cancelled = true
        }
      }
    }
    const bus: ControlBus = {
      self: peer.name,
      send: (to, protocol, message) => {
        if (life.dead) return false
        this.onSend(peer.name, protocol, message)
        if (this.random() < (peer === this.flapping ? this.flapAtSend : this.crashAtSend)) this.crash(peer)
        else this.#send(peer.name, to, protocol, packr.pack(message))
        return true
      },
      on: (protocol, parse, handler) => {
        handlers.set(protocol, (from, message) => handler(from, parse(message)))
      }
    }
    const { wiring, settings = REGISTER, onDecision } = this.#options
    const voter = wiring.voter(options => new LeaseVoter(options), LEASE)
    const written = (run: () => void): void => this.#enter(life, 'fsynced', run)
    const store = wiring.store(peer.disk.store(written, () => !life.dead))
    const onNewer = (from: PeerId): void => this.onNewer(life, from)
    const end = (): void => {
      if (!life.dead) this.crash(peer)
    }
    const parts = {
      self: peer.name,
      voters: this.firstVoters,
      bus: wiring.bus(bus),
      clock,
      random,
      log: this.#logOf(peer),
      onNewer
    }
    const registers = wiring.registers(
      createRegisters({
        ...parts,
        store,
        guard: wiring.guard(voter),
        settings,
        onBroken: end,
        ...(onDecision === undefined ? {} : { onDecision })
      }),
      key => remember(peer.disk.entries, peer.name).records.get(key)
    )
    const leases = createLeases({ ...parts, settings: LEASE, voter, generationOf: key => registers.generationOf(key) })
    const life: Life = { peer, registers, leases, bus, clock, claimed, handlers, deferred, dead: false }
    peer.life = life
    peer.stopped = false
    this.kernel.note(() => `${peer.name} starts`)
    leases.start()
    registers.start().then(() => {
      if (life.dead) return
      leases.setVoters(registers.voters())
      born(life)
    }, end)
  }

  crash(peer: SimPeer): void {
    if (peer.life === null) return
    this.kernel.note(() => `${peer.name} crashes`)
    peer.life.dead = true
    peer.life = null
    peer.stopped = false
    peer.disk.crash()
    this.onCrash(peer)
  }

  stop(peer: SimPeer): void {
    this.kernel.note(() => `${peer.name} is stopped`)
    peer.stopped = true
  }

  continue(peer: SimPeer): void {
    this.kernel.note(() => `${peer.name} goes on`)
    peer.stopped = false
    const { life } = peer
    for (const { what, run } of life?.deferred.splice(0) ?? []) this.after(life as Life, 0, what, run)
  }

  /** Runs it after that time, or when the life may run again, or never if it is over. */
  after(life: Life, delayMs: number, what: What, run: () => void): void {
    const label = (): string => `${life.peer.name} ${typeof what === 'string' ? what : what()}`
    this.kernel.at(delayMs, label, () => this.#enter(life, what, run))
  }

  #enter(life: Life, what: What, run: () => void): void {
    if (life.dead) return
    if (life.peer.stopped) life.deferred.push({ what, run })
    else run()
  }

  /** Log lines are notes among the events. */
  #logOf({ name }: SimPeer): Log {
    const say = (level: string) => (fields: object, message: string) =>
      this.kernel.note(() => `${name} ${level}: ${message} ${JSON.stringify(fields)}`)
    return { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') }
  }

  // ------------------------------------------------------------------------------------------ network

  block(from: PeerId, to: PeerId): void {
    this.#blocked.add(`${from}>${to}`)
  }

  heal(): void {
    this.#blocked.clear()
  }

  #send(from: PeerId, to: PeerId, protocol: string, bytes: Uint8Array): void {
    const sent = new Uint8Array(bytes)
    const said = (): string => describeBody(protocol, packr.unpack(sent))
    if (from !== to && (this.#blocked.has(`${from}>${to}`) || this.random() < this.loss)) {
      this.kernel.note(() => `${from} sends to ${to} in vain: ${said()}`)
      return
    }
    const copies = from !== to && this.random() < this.loss / 2 ? 2 : 1
    this.kernel.note(() => `${from} sends to ${to}${copies > 1 ? ' twice' : ''}: ${said()}`)
    const what = (): string => `gets from ${from}: ${said()}`
    const come = (): void => {
      const life = this.peers.find(({ name }) => name === to)?.life
      if (life) this.#enter(life, what, () => life.handlers.get(protocol)?.(from, packr.unpack(sent)))
    }
    for (let i = 0; i < copies; i++) {
      // Mostly quick, now and then later than what is sent long after.
      const delayMs =
        from === to ? 0.05 : 0.3 + this.random() * 2 + (this.random() < this.loss ? this.random() * 300 : 0)
      this.kernel.at(delayMs, () => `${to} ${what()}`, come)
    }
  }

  // ------------------------------------------------------------------------------------------ disk

  #written(peer: SimPeer, [name, bytes]: Entry): void {
    this.kernel.note(() => `${peer.name} disk: ${name} ${bytes === null ? 'is gone' : `of ${bytes.length} bytes`}`)
    if (bytes === null) return
    const voters = peer.disk.entries.get('voters')
    const present = voters === undefined ? [] : [['voters', voters] as const]
    const told = remember(name === 'voters' ? present : [...present, [name, bytes] as const], peer.name)
    if (name === 'voters' && told.voters !== null) this.onAdopted(peer, told.voters)
    for (const [key, record] of told.records) this.onDurable(peer, key, record)
  }
}
