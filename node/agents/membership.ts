/**
 * Who belongs to the cluster, as this peer knows it: the newest record of register `cluster`, learned from changes and reads
 * of its own and from what other members announce. A newer record is on this peer's disk before it is acted upon, so that
 * after a restart of all peers nobody counts votes of a set whose members he does not know how to reach.
 */
import { isDeepStrictEqual } from 'node:util'
import type { PeerId, Random } from '../../protocols/core.ts'
import type { Change } from '../../protocols/membership/changes.ts'
import {
  MEMBERSHIP_PROTOCOL,
  type MembershipMessage,
  parseMembershipMessage
} from '../../protocols/membership/messages.ts'
import { CLUSTER_KEY, type ClusterRecord, parseClusterRecord } from '../../protocols/membership/record.ts'
import { RateLimit } from '../../protocols/rate-limit.ts'
import { sparingly } from '../../protocols/sparingly.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, ControlBus, Log, Membership, Registers, Transport } from '../ports.ts'

/** How often one random member is asked for a newer record. 1 s: a guess; announcements do not wait for it. */
const ASK_EVERY_MS = 1_000
/**
 * How often the register is read although nothing tells of a change: one may have been chosen while the word of it reached
 * nobody, not even whoever made it. 30 s: a guess; a read is a message to each voter.
 */
const READ_EVERY_MS = 30_000
/** After a read or a change that failed: its outcome may be decided a moment later. A guess. */
const READ_AGAIN_MS = 1_000
/** A disk that does not take the record is tried again after this. A guess. */
const SAVE_AGAIN_MS = 1_000
/** The same member is asked again after this at the earliest, however many of its messages tell of something newer. A guess. */
const ASK_AGAIN_MS = 100
/** Questions of one member that are answered a second: twice what ASK_AGAIN_MS lets it ask, as messages may come in a heap. */
const MAX_ANSWERS_PER_S = 2 * (1_000 / ASK_AGAIN_MS)

export interface MembershipDeps {
  readonly self: PeerId
  /** What is on this peer's disk, or what its config says. */
  readonly initial: ClusterRecord
  readonly bus: ControlBus
  readonly transport: Pick<Transport, 'onConnection'>
  readonly registers: Pick<Registers, 'change' | 'read'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Durable when it resolves. */
  save(record: ClusterRecord): Promise<void>
}

export class MembershipAgent implements Membership {
  readonly self: PeerId
  readonly #deps: MembershipDeps
  readonly #handlers: ((record: ClusterRecord, before: ClusterRecord) => void)[] = []
  /** The newest known. */
  #newest: ClusterRecord
  /** The newest that is on disk and that everybody here has been told of. */
  #record: ClusterRecord
  readonly #waiting = new Set<() => void>()
  readonly #askedMs = new Map<PeerId, number>()
  readonly #answers = new RateLimit(MAX_ANSWERS_PER_S)
  readonly #tell: Readonly<Record<Wrong, (about: object) => void>>
  #saving = false
  #stopped = false
  #cancel: () => void = () => {}
  #cancelRead: () => void = () => {}

  constructor(deps: MembershipDeps) {
    this.#deps = deps
    this.self = deps.self
    this.#newest = deps.initial
    this.#record = deps.initial
    const tell = (level: 'warn' | 'error', wrong: Wrong): ((about: object) => void) =>
      sparingly<object>((about, count) => deps.log[level]({ ...about, count }, WRONG[wrong]))
    this.#tell = {
      otherCluster: tell('warn', 'otherCluster'),
      sameVersion: tell('error', 'sameVersion'),
      voters: tell('error', 'voters')
    }
    deps.bus.on(MEMBERSHIP_PROTOCOL, parseMembershipMessage, (from, message) => this.#receive(from, message))
    deps.transport.onConnection((peer, connected) => {
      if (connected) this.askOf(peer)
    })
  }

  record(): ClusterRecord {
    return this.#record
  }

  /** Not on this disk yet, maybe: for what may be acted upon by whoever has just heard of it, and never for voters. */
  newest(): ClusterRecord {
    return this.#newest
  }

  onChange(handler: (record: ClusterRecord, before: ClusterRecord) => void): void {
    this.#handlers.push(handler)
  }

  /** Asks a member for its record, which it gives if that is newer: also for whoever used a newer set of voters. */
  askOf(peer: PeerId): void {
    const nowMs = this.#deps.clock.now()
    if (nowMs - (this.#askedMs.get(peer) ?? Number.NEGATIVE_INFINITY) < ASK_AGAIN_MS) return
    this.#askedMs.set(peer, nowMs)
    this.#send(peer, { kind: 'ask', version: this.#newest.version })
  }

  /** Changes register `cluster` and announces what came of it: the record as it then is, changed or not. */
  async change(next: Change): Promise<ClusterRecord> {
    const { registers, initial } = this.#deps
    try {
      return this.#learnValue(
        await registers.change(CLUSTER_KEY, value => next(this.#checked(parseClusterRecord(value) ?? initial)))
      )
    } catch (error) {
      this.#readIn(READ_AGAIN_MS)
      throw error
    }
  }

  /** The record as a majority knows it now. */
  async refresh(): Promise<ClusterRecord> {
    return this.#learnValue(await this.#deps.registers.read(CLUSTER_KEY))
  }

  /**
   * Settles with the first record of at least version `since` for which `reached` says so, the present one included; rejects
   * with what it throws.
   */
  until(since: number, reached: (record: ClusterRecord) => boolean = () => true): Promise<ClusterRecord> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        try {
          if (this.#stopped) throw new DiapauseError('PEER_STOPPING', 'this peer stops: ask another')
          if (this.#record.version < since || !reached(this.#record)) return
          resolve(this.#record)
        } catch (error) {
          reject(error instanceof Error ? error : new Error(messageOf(error)))
        }
        this.#waiting.delete(look)
      }
      this.#waiting.add(look)
      look()
    })
  }

  start(): void {
    const schedule = (): void => {
      this.#cancel = this.#deps.clock.after(ASK_EVERY_MS, () => {
        const others = this.#newest.members.filter(member => member.id !== this.self)
        const peer = others[Math.floor(this.#deps.random() * others.length)]
        if (peer !== undefined) this.askOf(peer.id)
        schedule()
      })
    }
    schedule()
    this.#readIn(0)
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
    this.#cancelRead()
    this.#wake()
  }

  #wake(): void {
    for (const look of Array.from(this.#waiting)) look()
  }

  #readIn(ms: number): void {
    this.#cancelRead()
    if (this.#stopped) return
    this.#cancelRead = this.#deps.clock.after(ms, () => {
      this.refresh().then(
        () => this.#readIn(READ_EVERY_MS),
        (error: unknown) => {
          this.#deps.log.debug({ error: messageOf(error) }, 'the register of the cluster cannot be read yet')
          this.#readIn(READ_AGAIN_MS)
        }
      )
    })
  }

  #learnValue(value: unknown): ClusterRecord {
    const record = parseClusterRecord(value)
    if (record === null) return this.#newest // never changed
    if (this.#learn(this.#checked(record))) this.#announce(record)
    return record
  }

  #checked(record: ClusterRecord): ClusterRecord {
    if (record.id === this.#newest.id) return record
    throw new DiapauseError(
      'OTHER_CLUSTER',
      `the voters belong to cluster ${record.id}, this peer to ${this.#newest.id}: were two clusters joined by their configs?`
    )
  }

  /** Also to members that this record removed, so that they know. */
  #announce(record: ClusterRecord): void {
    const peers = new Set([...this.#record.members, ...record.members].map(member => member.id))
    peers.delete(this.self)
    for (const peer of peers) this.#send(peer, { kind: 'record', record })
  }

  /** `from`: undefined where the voters have it. */
  #learn(record: ClusterRecord, from?: PeerId): boolean {
    const wrong = contradiction(record, this.#newest)
    if (wrong !== undefined) {
      this.#tell[wrong]({ from, record: versionsOf(record), ours: versionsOf(this.#newest) })
      return false
    }
    if (record.version <= this.#newest.version) return false
    this.#newest = record
    if (!this.#saving) void this.#settleDown()
    return true
  }

  /** Saves and tells of the newest record until there is no newer one. */
  async #settleDown(): Promise<void> {
    this.#saving = true
    while (!this.#stopped && this.#record.version < this.#newest.version) {
      const record = this.#newest
      try {
        await this.#deps.save(record)
      } catch (error) {
        this.#deps.log.error({ error: messageOf(error) }, 'the record of the cluster cannot be written; trying again')
        await new Promise<void>(resolve => this.#deps.clock.after(SAVE_AGAIN_MS, resolve))
        continue
      }
      if (this.#stopped) break
      const before = this.#record
      this.#record = record
      for (const handler of this.#handlers) handler(record, before)
      this.#wake()
    }
    this.#saving = false
  }

  #receive(from: PeerId, message: MembershipMessage): void {
    if (this.#stopped) return
    if (message.kind === 'ask') {
      if (message.version >= this.#newest.version) return
      if (!this.#answers.allows(from, this.#deps.clock.now())) return // it asks again
      this.#send(from, { kind: 'record', record: this.#newest })
    } else if (message.record.id === this.#newest.id) this.#learn(message.record, from)
    else this.#tell.otherCluster({ from, cluster: message.record.id })
  }

  #send(to: PeerId, message: MembershipMessage): void {
    this.#deps.bus.send(to, MEMBERSHIP_PROTOCOL, message) // a lost announcement is made good by asking
  }
}

/** What cannot be, unless a peer is at fault: it must not stay unseen, and nobody acts on it. */
const WRONG = {
  otherCluster: 'a member announces the record of another cluster',
  sameVersion: 'two records of the cluster with the same version',
  voters: 'two records of the cluster whose voters contradict each other'
} as const

type Wrong = keyof typeof WRONG

function contradiction(record: ClusterRecord, ours: ClusterRecord): Wrong | undefined {
  if (record.version === ours.version) return isDeepStrictEqual(record, ours) ? undefined : 'sameVersion'
  const [older, newer] = record.version < ours.version ? [record, ours] : [ours, record]
  const [before, after] = [older.voters, newer.voters]
  const same = before.version === after.version && isDeepStrictEqual(before.ids, after.ids)
  return same || before.version < after.version ? undefined : 'voters'
}

/** A whole record is 64 KiB long, and a line of a log has not that much room. */
const versionsOf = ({ version, voters }: ClusterRecord) => ({ version, voters: voters.version })
