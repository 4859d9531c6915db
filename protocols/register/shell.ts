/** Runs acceptor and proposer of this peer on the control bus, a clock and a store; implements the port `Registers`. */
import type { RegisterSettings } from '../../config/schema.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { Clock, ControlBus, Log, Registers, RegisterStore, RegisterVoters } from '../../node/ports.ts'
import { Alarm } from '../alarm.ts'
import type { PeerId, Random } from '../core.ts'
import { sparinglyEach } from '../sparingly.ts'
import { Acceptor, type AcceptorInput, type LeaseGuard } from './acceptor.ts'
import { Collector } from './collector.ts'
import { DurableOrder, type Entry } from './durable-order.ts'
import { Listings } from './listings.ts'
import {
  type AcceptorMessage,
  isKey,
  MAX_KEY_BYTES,
  parseRegisterMessage,
  REGISTER_PROTOCOL,
  type RegisterMessage
} from './messages.ts'
import { Proposer, type ProposerInput } from './proposer.ts'
import {
  erasedEntry,
  forgottenEntry,
  grantsEntry,
  recordEntry,
  remember,
  reservedEntry,
  votersEntry
} from './record.ts'
import { type ChangeOptions, DELETED, type ProposerRequest } from './request.ts'
import { overtaken, type Settled, Settling, type SettlingInput } from './settling.ts'
import type { DecisionTrace } from './trace.ts'
import { sameVoters, type VoterSet } from './voters.ts'

export interface RegisterOptions {
  readonly self: PeerId
  /** The newest set that this peer has been told; the one in the store counts where it is newer. Others may propose. */
  readonly voters: VoterSet
  readonly bus: ControlBus
  readonly clock: Clock
  readonly random: Random
  readonly store: RegisterStore
  /** The voter part of the leases of this peer. */
  readonly guard: LeaseGuard
  readonly settings: RegisterSettings
  readonly log: Log
  /** The store failed: this peer votes and proposes no more, and should be stopped. */
  readonly onBroken?: (error: DiapauseError) => void
  /** `from` counts in voter set `version`, which is newer than ours: ask it. Called with every message that shows it. */
  readonly onNewer?: (from: PeerId, version: number) => void
  /** How each request to this peer ended. Costs nothing where it is absent. */
  readonly onDecision?: (trace: DecisionTrace) => void
}

export interface RegisterShell extends Registers, RegisterVoters {
  /** The generation of the register's value, read linearizably; 0 before the first. */
  generationOf(key: string): Promise<number>
  /** Remembers what is in the store. Messages that come before are dropped, requests rejected with REGISTER_STOPPED. */
  start(): Promise<void>
  /** Says nothing any more. Requests under way reject with REGISTER_STOPPED. The store is the caller's to close. */
  stop(): void
}

interface Answer {
  readonly value: unknown
  readonly generation: number
}

interface Pending {
  resolve(answer: Answer): void
  reject(error: unknown): void
}

/** A settling under way, and everybody who waits for it. */
interface SettlingRun {
  readonly core: Settling
  readonly onProgress: ((done: number, total: number) => void)[]
  readonly promise: Promise<Settled>
  resolve(settled: Settled): void
  reject(error: unknown): void
}

type Asked = ProposerRequest extends infer Each ? (Each extends unknown ? Omit<Each, 'id'> : never) : never

/** Passes over deleted registers, in round timeouts: every 10 s by default. A guess: tombstones cost little. */
const COLLECT_EVERY_ROUNDS = 20

export function createRegisters(options: RegisterOptions): RegisterShell {
  return new Shell(options)
}

class Shell implements RegisterShell {
  readonly #options: RegisterOptions
  /** Two orders, for a proposer's messages need not wait for what the acceptor writes. */
  readonly #votes: DurableOrder
  readonly #proposals: DurableOrder
  readonly #pending = new Map<number, Pending>()
  readonly #alarm: Alarm
  #voters: VoterSet
  #acceptor: Acceptor | null = null
  #proposer: Proposer | null = null
  #collector: Collector | null = null
  #settling: SettlingRun | null = null
  readonly #listings: Listings
  readonly #tellLeap: (from: PeerId, counter: number) => void
  #nextId = 1
  #stopped: DiapauseError | null = null

  constructor(options: RegisterOptions) {
    this.#options = options
    this.#voters = options.voters
    const { roundTimeoutMs: retryMs, giveUpMs } = options.settings
    this.#tellLeap = sparinglyEach((from, counter, count) =>
      options.log.warn(
        { from, counter, count },
        'a member came with a ballot that nobody can have come to; it was not answered'
      )
    )
    this.#listings = new Listings(options.bus, options.clock, { retryMs, giveUpMs })
    this.#alarm = new Alarm(options.clock, () => this.#tick())
    const persist = (entries: readonly Entry[]): Promise<void> => options.store.persist(entries)
    this.#votes = new DurableOrder(persist, cause => this.#break(cause))
    this.#proposals = new DurableOrder(persist, cause => this.#break(cause))
    options.bus.on(REGISTER_PROTOCOL, parseRegisterMessage, (from, message) => this.#receive(from, message))
  }

  async start(): Promise<void> {
    const { self, settings, random, store, guard, clock, onDecision } = this.#options
    const { voters, records, over, forgotten, reserved, longestGrantMs } = remember(await store.load(), self)
    if (this.#stopped !== null) return
    if (voters !== null) {
      refuseOther(voters, this.#voters)
      if (voters.version > this.#voters.version) this.#voters = voters
    }
    this.#acceptor = new Acceptor({ self, voters, records, forgotten, guard })
    const traces = onDecision !== undefined
    this.#proposer = new Proposer({ self, voters: this.#voters, settings, random, reserved, traces })
    this.#collector = new Collector(COLLECT_EVERY_ROUNDS * settings.roundTimeoutMs, random, clock.now())
    this.#erase(over)
    this.#vote({ kind: 'voters', set: this.#voters })
    const longestMs = guard.remember(longestGrantMs)
    const open = (): void => guard.open(clock.now())
    if (longestMs > longestGrantMs) this.#votes.submit([grantsEntry(longestMs)], open)
    else open()
    this.#setAlarm()
  }

  stop(): void {
    this.#halt(new DiapauseError('REGISTER_STOPPED', 'this peer is stopping: ask another'))
  }

  async read(key: string): Promise<unknown> {
    return (await this.#ask({ kind: 'read', key })).value
  }

  async generationOf(key: string): Promise<number> {
    return (await this.#ask({ kind: 'read', key })).generation
  }

  async change(key: string, next: (current: unknown) => unknown, options: ChangeOptions = {}): Promise<unknown> {
    return (await this.#ask({ kind: 'change', key, next, options })).value
  }

  async delete(key: string, { only, fence }: Parameters<Registers['delete']>[1] = {}): Promise<boolean> {
    const next = (current: unknown): unknown => (current === null || only?.(current) === false ? undefined : DELETED)
    const options = fence === undefined ? {} : { fence: (current: unknown) => fence(current) }
    const { value } = await this.#ask({ kind: 'delete', key, next, options })
    if (value !== null) return false
    this.#collect(key)
    return true
  }

  async localKeys(): Promise<string[]> {
    return this.#acceptor?.keys() ?? []
  }

  allKeys(): Promise<readonly string[]> {
    if (this.#stopped !== null) return Promise.reject(this.#stopped)
    if (this.#proposer === null) return Promise.reject(notStarted())
    const keys = this.#listings.begin(this.#voters)
    this.#setAlarm()
    return keys
  }

  #ask(request: Asked): Promise<Answer> {
    if (!isKey(request.key)) return Promise.reject(badKey(request.key))
    if (this.#stopped !== null) return Promise.reject(this.#stopped)
    if (this.#proposer === null) return Promise.reject(notStarted())
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      this.#propose({ ...request, id })
    })
  }

  // -------------------------------------------------------------------------------------------- voters

  voters(): VoterSet {
    return this.#voters
  }

  setVoters(set: VoterSet): void {
    refuseOther(this.#voters, set)
    if (this.#stopped !== null || set.version < this.#voters.version) return
    this.#voters = set
    const run = this.#settling
    if (run !== null && run.core.version < set.version) {
      this.#settling = null
      run.reject(overtaken(run.core.version, set.version))
    }
    this.#listings.voters(set.version)
    if (this.#acceptor === null) return
    this.#vote({ kind: 'voters', set })
    this.#propose({ kind: 'voters', set })
  }

  settle(onProgress?: (done: number, total: number) => void): Promise<Settled> {
    if (this.#stopped !== null) return Promise.reject(this.#stopped)
    if (this.#proposer === null) return Promise.reject(notStarted())
    let run = this.#settling
    if (run === null) {
      const { roundTimeoutMs, giveUpMs } = this.#options.settings
      const core = new Settling(this.#voters, { retryMs: roundTimeoutMs, giveUpMs }, this.#options.clock.now())
      run = { core, onProgress: [], ...Promise.withResolvers<Settled>() }
      this.#settling = run
      this.#settle(run, { kind: 'tick' })
    }
    if (onProgress !== undefined) run.onProgress.push(onProgress)
    return run.promise
  }

  #settle(run: SettlingRun, input: SettlingInput): void {
    if (this.#settling !== run) return
    for (const effect of run.core.step(input, this.#options.clock.now())) {
      if (effect.kind === 'send') this.#options.bus.send(effect.to, REGISTER_PROTOCOL, effect.message)
      else if (effect.kind === 'progress') for (const tell of run.onProgress) tell(effect.done, effect.total)
      else if (effect.kind === 'rewrite') this.#rewrite(run, effect.key)
      else {
        this.#settling = null
        if (effect.kind === 'settled') run.resolve(effect.settled)
        else run.reject(effect.error)
      }
    }
    this.#setAlarm()
  }

  #rewrite(run: SettlingRun, key: string): void {
    this.#ask({ kind: 'rewrite', key }).then(
      () => this.#settle(run, { kind: 'rewritten', key }),
      (error: unknown) => {
        if (this.#settling === run) this.#settling = null
        run.reject(error)
      }
    )
  }

  /** Where it does not work out the collector tries again, here or at another voter. */
  #collect(key: string): void {
    if (this.#voters.settled) this.#ask({ kind: 'collect', key }).catch(() => {})
  }

  // -------------------------------------------------------------------------------------------- messages and time

  #receive(from: PeerId, message: RegisterMessage): void {
    if (this.#stopped !== null) return
    switch (message.kind) {
      case 'prepare':
      case 'accept':
      case 'read':
      case 'forget':
      case 'list':
        return this.#vote({ kind: 'message', from, message })
      case 'keys':
        if (this.#settling !== null) this.#settle(this.#settling, { kind: 'keys', from, message })
        this.#listings.step({ kind: 'keys', from, message })
        return
      default:
        this.#propose({ kind: 'answer', from, message })
    }
  }

  #tick(): void {
    if (this.#stopped !== null) return
    this.#propose({ kind: 'tick' })
    if (this.#settling !== null) this.#settle(this.#settling, { kind: 'tick' })
    this.#listings.step({ kind: 'tick' })
    const nowMs = this.#options.clock.now()
    for (const key of this.#collector?.due(this.#acceptor?.empty() ?? [], nowMs) ?? []) this.#collect(key)
    this.#setAlarm()
  }

  #setAlarm(): void {
    const parts = [this.#proposer, this.#collector, this.#settling?.core, this.#listings]
    this.#alarm.set(Math.min(...parts.map(part => part?.wakeAtMs() ?? Number.POSITIVE_INFINITY)))
  }

  #vote(input: AcceptorInput): void {
    if (this.#acceptor === null) return
    const entries: Entry[] = []
    const answers: { to: PeerId; message: AcceptorMessage }[] = []
    const erase: string[] = []
    for (const effect of this.#acceptor.step(input, this.#options.clock.now())) {
      if (effect.kind === 'persist') entries.push(recordEntry(effect.key, effect.record))
      else if (effect.kind === 'adopt') entries.push(votersEntry(effect.set))
      else if (effect.kind === 'forget') entries.push(forgottenEntry(effect.promise))
      else if (effect.kind === 'erase') erase.push(...effect.keys)
      else if (effect.kind === 'send') answers.push(effect)
      else if (effect.kind === 'leap') this.#tellLeap(effect.from, effect.counter)
      else this.#options.onNewer?.(effect.from, effect.version)
    }
    this.#votes.submit(entries, () => {
      for (const answer of answers) this.#options.bus.send(answer.to, REGISTER_PROTOCOL, answer.message)
      this.#erase(erase)
    })
  }

  /** Removes entries that what is on disk now makes void. A register may have a new record by then. */
  #erase(keys: readonly string[]): void {
    const entries = keys.filter(key => this.#acceptor?.knows(key) === false).map(erasedEntry)
    if (entries.length > 0) this.#votes.submit(entries, () => {})
  }

  #propose(input: ProposerInput): void {
    if (this.#proposer === null) return
    const effects = this.#proposer.step(input, this.#options.clock.now())
    const entries = effects.flatMap(effect => (effect.kind === 'reserve' ? [reservedEntry(effect.counter)] : []))
    this.#proposals.submit(entries, () => {
      for (const effect of effects) {
        if (effect.kind === 'send') this.#options.bus.send(effect.to, REGISTER_PROTOCOL, effect.message)
      }
    })
    this.#setAlarm()
    for (const effect of effects) {
      if (effect.kind === 'done') this.#take(effect.id)?.resolve(effect)
      else if (effect.kind === 'failed') this.#take(effect.id)?.reject(effect.error)
      else if (effect.kind === 'trace') this.#options.onDecision?.(effect.trace)
      else if (effect.kind === 'newer') this.#options.onNewer?.(effect.from, effect.version)
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  #break(cause: unknown): void {
    const error = new DiapauseError(
      'REGISTER_STORE',
      'the registers cannot be written to disk: this peer votes no more until it is restarted; check the disk',
      { cause }
    )
    this.#options.log.error({ err: error }, error.message)
    this.#halt(error)
    this.#options.onBroken?.(error)
  }

  #halt(error: DiapauseError): void {
    if (this.#stopped !== null) return
    this.#stopped = error
    this.#votes.stop()
    this.#proposals.stop()
    this.#alarm.set(Number.POSITIVE_INFINITY)
    for (const { reject } of this.#pending.values()) reject(error)
    this.#pending.clear()
    this.#settling?.reject(error)
    this.#settling = null
    this.#listings.stop(error)
  }
}

function notStarted(): DiapauseError {
  return new DiapauseError('REGISTER_STOPPED', 'this peer is still reading its registers: wait for start()')
}

/** REGISTER_VOTERS where both have one version and differ. */
function refuseOther(known: VoterSet, told: VoterSet): void {
  if (known.version !== told.version || sameVoters(known, told)) return
  throw new DiapauseError(
    'REGISTER_VOTERS',
    `voter set ${told.version} is ${told.ids.join(', ')} here and ${known.ids.join(', ')} on this peer's disk: voters change by command, never by editing the members of a config file`,
    { details: { version: told.version, known: known.ids, told: told.ids } }
  )
}

function badKey(key: string): DiapauseError {
  return new DiapauseError(
    'REGISTER_KEY',
    `"${String(key)}" is not a register key: 1 to ${MAX_KEY_BYTES} of A-Z a-z 0-9 . _ : / -, the first a small letter or digit`
  )
}
