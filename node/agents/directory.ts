/**
 * What this peer knows of all groups: the newest record of each, learned from registers it changed or read and from what
 * other peers announce. An announcement makes known what is new of a group that is known; of one that is not, it is a reason to
 * read its register, so that nobody fills a peer with groups that there are not; and of one that is said to be far ahead of what
 * its register was last known to hold, so that nobody makes up a version that the group would never come to. Peers that missed
 * an announcement get it by asking a random peer now and then (anti-entropy).
 */
import type { PeerId, Random } from '../../protocols/core.ts'
import {
  type EpochMessage,
  parseEpochMessage,
  parseGroupRecord,
  type ReportMessage
} from '../../protocols/epoch/messages.ts'
import { displaced } from '../../protocols/epoch/record.ts'
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import { RateLimit } from '../../protocols/rate-limit.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, ControlBus, Log, Registers, Transport } from '../ports.ts'

/** How often one random peer is asked for newer records. 1 s: a guess; a failover does not wait for it. */
const ASK_EVERY_MS = 1_000
/** Questions of one member that are answered a second: some times what one asks that has just started again. A guess. */
const MAX_ANSWERS_PER_S = 4
/**
 * An announcement is believed up to so many versions above what this peer has had from the group's register: one that is made up is
 * outlived by that many changes of the group. Beyond, the register is read, once for so many changes. A guess: some hundred epochs.
 */
const BELIEVED_VERSIONS = 1_000
/**
 * Registers that are read a second because one member told of groups that are not known, or far ahead. Who starts hears of all
 * groups at once from everybody, and reads them by itself, too (`survey`): what is beyond this is told again a second later. A guess.
 */
const MAX_READS_PER_S = 64
/**
 * How often groups that only this peer's disk knows of are read: whoever made them may have died before it told anybody.
 * Looking costs nothing where there is none; a register that cannot be read is left in peace for longer and longer. Guesses.
 */
const READ_EVERY_MS = 1_000
const READ_AT_LEAST_EVERY_MS = 16_000
/** Groups read at the same time in a survey: enough that they share round trips, few enough to leave room for others. A guess. */
const SURVEY_AT_ONCE = 16

export interface DirectoryOptions {
  readonly self: PeerId
  /** Those of now. */
  readonly members: () => readonly PeerId[]
  /** Groups up to this version may have been removed and forgotten (`groupFloor` of the cluster's record). */
  readonly floor: () => number
  readonly bus: ControlBus
  readonly transport: Transport
  readonly registers: Registers
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export class GroupDirectory {
  readonly #options: DirectoryOptions
  readonly #records = new Map<string, GroupRecord>()
  /** The newest version of each known group that came from its register. */
  readonly #proven = new Map<string, number>()
  readonly #onRecord: ((record: GroupRecord) => void)[] = []
  readonly #onForgotten: ((id: string) => void)[] = []
  readonly #onReport: ((message: ReportMessage, from: PeerId) => void)[] = []
  readonly #answers = new RateLimit(MAX_ANSWERS_PER_S)
  readonly #reads = new RateLimit(MAX_READS_PER_S)
  /** Groups that others have told of, while the register is asked, with the newest version that was told of meanwhile. */
  readonly #reading = new Map<string, number>()
  #cancelAsking: () => void = () => {}
  #cancelReading: () => void = () => {}
  #surveyed = false
  #refusedChanges = 0
  #stopped = false

  constructor(options: DirectoryOptions) {
    this.#options = options
    options.bus.on('epoch', parseEpochMessage, (from, message) => this.#receive(from, message))
    options.transport.onConnection((peer, connected) => {
      if (connected) for (const record of this.#records.values()) this.#send(peer, { kind: 'record', record })
    })
  }

  /** Called with every record newer than the one known before, in the order of the calls to this. */
  onRecord(handler: (record: GroupRecord) => void): void {
    this.#onRecord.push(handler)
  }

  /** Called with every report about an epoch that is not about records. */
  onReport(handler: (message: ReportMessage, from: PeerId) => void): void {
    this.#onReport.push(handler)
  }

  /** Called with each group whose register is no more, after its removal was told by `onRecord`. */
  onForgotten(handler: (id: string) => void): void {
    this.#onForgotten.push(handler)
  }

  get(id: string): GroupRecord | undefined {
    return this.#records.get(id)
  }

  all(): GroupRecord[] {
    return [...this.#records.values()]
  }

  /** A survey has succeeded since the start: what is not here is new since, or is no more. */
  get surveyed(): boolean {
    return this.#surveyed
  }

  /**
   * Brings this directory up to date: every group that is there when this is called is known afterwards, as it was then or
   * later. For whoever acts on the absence of something. Rejects where no majority tells of all of them.
   */
  async survey(): Promise<void> {
    const listed = groupIds(await this.#options.registers.allKeys())
    const ids = [...new Set([...listed, ...this.#records.keys()])]
    const next = async (): Promise<void> => {
      for (let id = ids.pop(); id !== undefined; id = ids.pop()) await this.refresh(id)
    }
    await Promise.all(Array.from({ length: SURVEY_AT_ONCE }, next))
    this.#surveyed = true
  }

  /** To every other member that is connected. */
  broadcast(message: EpochMessage): void {
    for (const peer of this.#others()) this.#send(peer, message)
  }

  /**
   * Changes the group's register and announces what came of it. `next` is pure and guarded by content; displaced owners
   * are fenced. Resolves with the record as it then is, changed or not. `late` says of that record that the change was of a
   * generation which was over: it is counted. REGISTER_LEASED, REGISTER_UNAVAILABLE; GROUP_CHANGE where the change makes what
   * nobody could read any more: nothing is written then.
   */
  async change(
    id: string,
    next: (current: GroupRecord | null) => GroupRecord | undefined,
    late: (now: GroupRecord) => boolean = () => false
  ): Promise<GroupRecord | null> {
    const value = await this.#options.registers.change(
      groupKey(id),
      current => readable(next(parseGroupRecord(current))),
      {
        fence: (current, changed) => displaced(parseGroupRecord(current), changed as GroupRecord),
        generation: changed => (changed as GroupRecord).generation
      }
    )
    const now = this.#learnValue(value)
    if (now !== null && late(now)) this.#refusedChanges++
    return now
  }

  /** Changes of this peer that came too late. */
  get refusedChanges(): number {
    return this.#refusedChanges
  }

  /** The record as a majority knows it now. Where there is none, a group that we know of has been removed and forgotten. */
  async refresh(id: string): Promise<GroupRecord | null> {
    const record = this.#learnValue(await this.#options.registers.read(groupKey(id)))
    if (record === null) this.#vanished(id)
    return record
  }

  /** The floor has risen: groups below it that we know of may be no more. */
  recheck(): void {
    for (const { id, version } of this.all()) if (version <= this.#options.floor()) void this.#refreshQuietly(id)
  }

  /** The register of a removed group is no more. */
  forget(id: string): void {
    if (this.#records.get(id)?.removed !== true) return
    this.#records.delete(id)
    this.#proven.delete(id)
    for (const handler of this.#onForgotten) handler(id)
  }

  /** Learns which groups there are, after a restart; what it cannot learn yet it tries again. */
  async start(): Promise<void> {
    this.#askNowAndThen()
    await this.#readUntold(READ_EVERY_MS)
  }

  stop(): void {
    this.#stopped = true
    this.#cancelAsking()
    this.#cancelReading()
  }

  #askNowAndThen(): void {
    this.#cancelAsking = this.#options.clock.after(ASK_EVERY_MS, () => {
      const others = this.#others()
      const peer = others[Math.floor(this.#options.random() * others.length)]
      if (peer !== undefined) this.#send(peer, { kind: 'ask', versions: this.#versions() })
      this.#askNowAndThen()
    })
  }

  /**
   * Reads all groups until that has succeeded once, and those that this peer's voter has accepted something of and nobody
   * has told of; now, and again after `restMs`.
   */
  async #readUntold(restMs: number): Promise<void> {
    if (!this.#surveyed) {
      await this.survey().catch((error: unknown) =>
        this.#options.log.info({ error: messageOf(error) }, 'which groups there are cannot be read yet')
      )
    }
    const ids = groupIds(await this.#options.registers.localKeys()).filter(id => !this.#records.has(id))
    for (const id of ids) if (!this.#stopped) await this.#refreshQuietly(id)
    if (this.#stopped) return
    const untold = !this.#surveyed || ids.some(id => !this.#records.has(id))
    const nextMs = untold ? Math.min(2 * restMs, READ_AT_LEAST_EVERY_MS) : READ_EVERY_MS
    this.#cancelReading = this.#options.clock.after(restMs, () => void this.#readUntold(nextMs))
  }

  #learnValue(value: unknown): GroupRecord | null {
    const record = readRecord(value)
    if (record !== null && this.#learnProven(record)) this.broadcast({ kind: 'record', record })
    return record
  }

  #learnProven(record: GroupRecord): boolean {
    this.#proven.set(record.id, Math.max(record.version, this.#proven.get(record.id) ?? 0))
    return this.#learn(record)
  }

  #learn(record: GroupRecord): boolean {
    const before = this.#records.get(record.id)
    if (before !== undefined && before.version >= record.version) return false
    this.#records.set(record.id, record)
    for (const handler of this.#onRecord) handler(record)
    return true
  }

  /** Its removal went by while we were away: this is the record that we missed, as far as it matters. */
  #vanished(id: string): void {
    const known = this.#records.get(id)
    const floor = this.#options.floor()
    if (known === undefined || known.version > floor) return
    if (!known.removed) {
      const { held: _, kept: __, holds: ___, ...rest } = known
      this.#learn({ ...rest, version: floor, generation: floor, open: null, committed: null, removed: true })
    }
    this.forget(id)
  }

  #others(): PeerId[] {
    return this.#options.members().filter(peer => peer !== this.#options.self)
  }

  /** Without a majority there is nothing to do for it yet. */
  #refreshQuietly(id: string): Promise<void> {
    return this.refresh(id).then(
      () => {},
      (error: unknown) => this.#options.log.info({ group: id, error: messageOf(error) }, 'group not readable yet')
    )
  }

  /**
   * Of a group that we do not know a peer that was away may tell although it has been forgotten. One that lies may make it up, or
   * a version far ahead of what we know. The register knows.
   */
  #hear(from: PeerId, record: GroupRecord): void {
    const { floor, clock } = this.#options
    const { id, version, removed } = record
    const isKnown = this.#records.has(id)
    if (isKnown && version <= (this.#proven.get(id) ?? 0) + BELIEVED_VERSIONS) this.#learn(record)
    else if (!isKnown && removed && version <= floor()) return
    else if (!this.#reads.allows(from, clock.now()))
      return // it tells again when it is asked
    else if (this.#reading.has(id)) this.#reading.set(id, Math.max(version, this.#reading.get(id) ?? 0))
    else void this.#readTold(id)
  }

  /** Nobody else needs to be told: who has made it tells everybody. */
  async #readTold(id: string): Promise<void> {
    this.#reading.set(id, 0)
    const read = async () => readRecord(await this.#options.registers.read(groupKey(id)))
    try {
      let record = await read()
      // It was changed while it was read, or who told so lies: once more, and no oftener.
      if (record !== null && record.version < (this.#reading.get(id) ?? 0)) record = await read()
      if (record === null) this.#vanished(id)
      else this.#learnProven(record)
    } catch (error) {
      this.#options.log.debug({ group: id, error: messageOf(error) }, 'a group that was told of is not readable yet')
    } finally {
      this.#reading.delete(id)
    }
  }

  #receive(from: PeerId, message: EpochMessage): void {
    if (message.kind === 'record') this.#hear(from, message.record)
    else if (message.kind === 'ask') {
      if (!this.#answers.allows(from, this.#options.clock.now())) return // it asks again
      for (const record of this.#records.values()) {
        if (record.version > (message.versions[record.id] ?? 0)) this.#send(from, { kind: 'record', record })
      }
    } else for (const handler of this.#onReport) handler(message, from)
  }

  #versions(): Record<string, number> {
    return Object.fromEntries([...this.#records].map(([id, record]) => [id, record.version]))
  }

  #send(to: PeerId, message: EpochMessage): void {
    this.#options.bus.send(to, 'epoch', message) // a lost announcement is made good by asking
  }
}

/** GROUP_RECORD. */
function readRecord(value: unknown): GroupRecord | null {
  try {
    return parseGroupRecord(value)
  } catch (cause) {
    const message = 'The register of a group holds something that is not a group record.'
    throw new DiapauseError('GROUP_RECORD', message, { cause })
  }
}

/** A register that holds anything else can never be changed again. GROUP_CHANGE. */
function readable(record: GroupRecord | undefined): GroupRecord | undefined {
  if (record === undefined) return undefined
  try {
    parseGroupRecord(record)
  } catch (cause) {
    const message = `A change of group "${record.id}" was refused: its record could not be read any more. That is a mistake in this program.`
    throw new DiapauseError('GROUP_CHANGE', message, { cause })
  }
  return record
}

const groupIds = (keys: readonly string[]): string[] =>
  keys.filter(key => key.startsWith(groupKey(''))).map(key => key.slice(groupKey('').length))
