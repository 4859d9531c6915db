/**
 * The decision log: why each VM was moved, or was not, as this peer saw it. Whoever knows a reason notes it as a fact
 * (protocols/decisions/facts.ts); `why` puts this peer's facts and those of all others that answer into one story.
 *
 * Nothing waits for the log. A note is kept in memory at once and reaches the disk in the background, a batch a second at
 * most, without fsync; a disk that fails costs what a crash would lose and one warning.
 */
import { Chronicle, type DecisionStore } from '../../protocols/decisions/chronicle.ts'
import {
  type Entry,
  type Fact,
  type FactOf,
  factSchema,
  groupSubject,
  memberSubject,
  vmSubject
} from '../../protocols/decisions/facts.ts'
import { mergeAccounts, type Story, type WhyQuestion } from '../../protocols/decisions/merge.ts'
import { DecisionExchange, type Question } from '../../protocols/decisions/shell.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { LeaseTrace } from '../../protocols/lease/shell.ts'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, ControlBus, Log } from '../ports.ts'
import { factOfBallot, factOfGeneration, factOfLease, factOfReport, groupOf } from './decisions-sources.ts'
import type { GroupDirectory } from './directory.ts'

/** What is new is on disk after this, unless the power fails. A guess: what may be lost at a crash. */
const WRITE_MS = 1_000
/** What only counts up (a lease that is renewed) is written this often. A guess. */
const WRITE_REPEATS_MS = 10_000
/** After a write that failed. A guess: a full disk is not made better by trying. */
const WRITE_AGAIN_MS = 60_000

export interface DecisionLogOptions {
  readonly self: PeerId
  readonly bus: ControlBus
  readonly clock: Clock
  wallMs(): number
  readonly log: Log
  /** Undefined: in memory only. It is the log's to close. */
  readonly store: DecisionStore | undefined
  /** Of this program. */
  readonly version: string
  /** All members now, and what they are called. */
  members(): readonly { readonly id: PeerId; readonly name: string }[]
  /** Who votes now. */
  voters(): readonly PeerId[]
}

/** Reads what an earlier run of this peer noted; from then on facts can be noted. */
export async function createDecisionLog(options: DecisionLogOptions): Promise<DecisionLog> {
  const chronicle = new Chronicle()
  try {
    chronicle.load((await options.store?.load()) ?? [])
  } catch (error) {
    options.log.warn({ error: messageOf(error) }, 'the decision log cannot be read: it begins anew')
  }
  const decisions = new DecisionLog(options, chronicle)
  decisions.note({ kind: 'peer-started', peer: options.self, version: options.version })
  return decisions
}

export class DecisionLog {
  readonly #options: DecisionLogOptions
  readonly #chronicle: Chronicle
  readonly #exchange: DecisionExchange
  /** Groups of which this peer tries to change the owners. */
  readonly #trying = new Set<string>()
  #directory: Pick<GroupDirectory, 'get'> | undefined
  #writeAtMs = Number.POSITIVE_INFINITY
  #cancelWrite: () => void = () => {}
  #writing: Promise<void> | undefined
  #failing = false
  #stopped = false

  constructor(options: DecisionLogOptions, chronicle: Chronicle) {
    this.#options = options
    this.#chronicle = chronicle
    const { bus, clock, wallMs } = options
    this.#exchange = new DecisionExchange({ bus, clock, wallMs, entriesFor: question => this.#entriesFor(question) })
  }

  /** Returns at once. A function of its own, so that it can be handed to whoever has reasons to tell. */
  readonly note = (fact: Fact): void => {
    if (this.#stopped || !this.#isSound(fact)) return
    if ('group' in fact) this.#watchTries(fact)
    const noted = this.#chronicle.note(fact, this.#options.wallMs())
    this.#writeIn(this.#failing ? WRITE_AGAIN_MS : noted === 'new' ? WRITE_MS : WRITE_REPEATS_MS)
  }

  /** What the peer reports to people anyway, as far as it bears on where VMs run. */
  readonly noteReport = (kind: string, fields: Readonly<Record<string, unknown>>): void => {
    const fact = factOfReport(kind, fields)
    if (fact !== undefined) this.note(fact)
  }

  /** What becomes of the leases by which this peer runs its VMs. */
  readonly noteLease = (trace: LeaseTrace): void => {
    const group = groupOf(trace.key)
    if (group === undefined) return
    this.note(factOfLease(group, trace, ownVms(this.#directory?.get(group), this.#options.self)))
  }

  /** Who voted for a change of a group's owners, or against it. Changes that leave the owners alone are not noted. */
  readonly noteBallot = (trace: DecisionTrace): void => {
    const group = groupOf(trace.key)
    if (group === undefined || trace.kind !== 'change') return
    const generation = this.#directory?.get(group)?.generation ?? 0
    const moves = this.#trying.has(group) || trace.outcome === 'leased' || (trace.generation ?? 0) > generation
    if (moves) this.note(factOfBallot(group, trace, this.#options.voters()))
  }

  /** Notes every new generation of every group, each once. */
  follow(directory: Pick<GroupDirectory, 'get' | 'onRecord'>): void {
    this.#directory = directory
    const latest = new Map<string, FactOf<'generation'>>()
    directory.onRecord(record => {
      const last = latest.get(record.id) ?? this.#generations(record.id).at(-1)
      if (last !== undefined && last.generation >= record.generation) return
      const fact = factOfGeneration(record, last)
      if (fact.how === 'removed') latest.delete(record.id)
      else latest.set(record.id, fact)
      this.note(fact)
    })
  }

  /** What this peer noted last, whatever it is about; in order. */
  newest(limit: number, agoMs: number): Entry[] {
    return this.#chronicle.newest(limit, this.#options.wallMs() - agoMs)
  }

  /** GROUP_UNKNOWN, VM_UNKNOWN: where nobody who answers has ever heard of it. */
  async why(question: WhyQuestion): Promise<Story> {
    const { self, wallMs, members } = this.#options
    const { group, vm, here } = question
    const others = here ? [] : members().filter(({ id }) => id !== self)
    const { accounts, silent } = await this.#exchange.collect(
      question,
      others.map(({ id }) => id)
    )
    const told = mergeAccounts([{ by: self, aheadMs: 0, entries: this.#entriesFor(question) }, ...accounts])
    const record = this.#directory?.get(group)
    if (record === undefined && !told.some(({ fact }) => 'group' in fact)) throw unknown('GROUP', `group "${group}"`)
    const known = record?.vms.some(({ id }) => id === vm) === true || told.some(({ fact }) => isAbout(fact, vm))
    if (!known) throw unknown('VM', `VM "${vm}" in group "${group}"`)
    return {
      group,
      vm,
      by: self,
      nowMs: wallMs(),
      names: Object.fromEntries(members().map(({ id, name }) => [id, name])),
      record: record === undefined ? null : standing(record, vm),
      told,
      tellers: [{ by: self, left: 0, aheadMs: 0 }, ...accounts].map(({ by, left, aheadMs }) => ({
        peer: by,
        left,
        aheadMs
      })),
      silent
    }
  }

  /** One fact beyond its limits would make others refuse a whole answer. Renewals are many, and all alike. */
  #isSound(fact: Fact): boolean {
    if (fact.kind === 'lease' && fact.event === 'renewed') return true
    const { success, error } = factSchema.safeParse(fact)
    if (!success) this.#options.log.error({ fact, error: error.message }, 'a fact for the decision log is not sound')
    return success
  }

  /** Between a plan of ours and what became of it every change of the group is a try of it. */
  #watchTries({ kind, group }: GroupFact): void {
    if (kind === 'plan' || kind === 'restart-due') this.#trying.add(group)
    else if (kind === 'generation' || kind === 'takeover-ended') this.#trying.delete(group)
  }

  /** What is noted already gets to disk. */
  async stop(): Promise<void> {
    this.note({ kind: 'peer-stopped', peer: this.#options.self })
    this.#stopped = true
    this.#cancelWrite()
    await this.#writing
    do await this.#write()
    while (this.#chronicle.changed && !this.#failing && this.#options.store !== undefined)
    await this.#options.store?.close()
  }

  #entriesFor({ group, vm, agoMs }: Question): Entry[] {
    const owners = new Set(Object.values(this.#directory?.get(group)?.owners ?? {}))
    for (const generation of this.#generations(group)) {
      for (const owner of Object.values(generation.owners)) owners.add(owner)
      for (const owner of Object.values(generation.displaced)) owners.add(owner)
    }
    const subjects = [groupSubject(group), vmSubject(group, vm), ...[...owners].map(memberSubject)]
    return this.#chronicle.entries(subjects, this.#options.wallMs() - agoMs)
  }

  #generations(group: string) {
    const entries = this.#chronicle.entries([groupSubject(group)])
    return entries.flatMap(({ fact }) => (fact.kind === 'generation' ? [fact] : []))
  }

  #writeIn(ms: number): void {
    const { clock, store } = this.#options
    const atMs = clock.now() + ms
    if (store === undefined || this.#stopped || this.#writing !== undefined || atMs >= this.#writeAtMs) return
    this.#cancelWrite()
    this.#writeAtMs = atMs
    this.#cancelWrite = clock.after(ms, () => {
      this.#writeAtMs = Number.POSITIVE_INFINITY
      this.#writing = this.#write().finally(() => {
        this.#writing = undefined
        if (this.#failing) this.#writeIn(WRITE_AGAIN_MS)
        else if (this.#chronicle.changed) this.#writeIn(WRITE_MS)
      })
    })
  }

  async #write(): Promise<void> {
    const { store, log } = this.#options
    const changes = this.#chronicle.takeChanges()
    if (store === undefined || changes.put.length + changes.drop.length === 0) return
    try {
      await store.write(changes)
      this.#chronicle.written(changes)
      if (this.#failing) log.info({}, 'the decision log can be written again')
      this.#failing = false
    } catch (error) {
      this.#chronicle.failed(changes)
      if (!this.#failing) {
        const message = 'the decision log cannot be written: it is kept in memory until it can; is the disk full?'
        log.warn({ error: messageOf(error) }, message)
      }
      this.#failing = true
    }
  }
}

type GroupFact = Extract<Fact, { group: string }>

const ownVms = (record: GroupRecord | undefined, self: PeerId): string[] =>
  record?.vms.flatMap(({ id }) => (record.owners[id] === self ? [id] : [])) ?? []

const isAbout = (fact: Fact, vm: string): boolean =>
  fact.kind === 'generation' ? vm in fact.owners || vm in fact.displaced : 'vm' in fact && fact.vm === vm

const standing = (record: GroupRecord, vm: string): Story['record'] => ({
  owner: record.owners[vm] ?? null,
  generation: record.generation,
  epoch: record.committed?.epoch ?? 0,
  removed: record.removed
})

const unknown = (what: 'GROUP' | 'VM', name: string): DiapauseError =>
  new DiapauseError(`${what}_UNKNOWN`, `No peer that answers has ever heard of ${name}.`)
