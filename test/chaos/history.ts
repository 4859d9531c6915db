/**
 * What was told of epochs and generations, in the order in which it came in, and what of it cannot be where nothing was lost. A
 * number alone proves little: registers that lose their last write lose `lastEpoch` with it, and number the next epoch as the lost
 * one. So commits are held against what the generations after them began from, and images against what had that number before.
 *
 * Times are those of arrival here: clocks of peers jump. An event is told by every peer that hears of it, and the first counts. Nobody
 * may have lived to tell of a generation: only what *was* told is judged. Pure.
 */
import type { GroupRecord } from '../../protocols/group.ts'

/**
 * What is told by so much later came later. Of 366 generations on two busy cores, some with storms and starved peers, each was told
 * a second or more before the first beat of a VM in it; so late may peers be who tell, and a second more. A commit in a generation
 * comes seconds after its VMs were told to run, by the same peers.
 */
export const CLEARLY_MS = 2_000

export type RecordSeen = Pick<GroupRecord, 'version' | 'generation' | 'lastEpoch' | 'committed' | 'kept' | 'held'>

/** Who was to run what. */
export interface Generation {
  /** When peers first told of it, or of a later one. Undefined: only records name it, that are read long after, or nobody does. */
  readonly toldMs: number | undefined
  /** VM → name of the host, of those that are known. */
  readonly owners: Readonly<Record<string, string>>
}

export type Generations = ReadonlyMap<number, Generation>

interface Heard {
  toldMs: number | undefined
  /** The oldest that anybody told. */
  from: number | undefined
  readonly owners: Record<string, string>
}

/** The group was taken back to a kept epoch: what was committed after that does not count any more. */
export interface Back {
  readonly generation: number
  readonly epoch: number
  /** No commit after it has a number up to this. */
  readonly lastEpoch: number
}

interface Told {
  readonly epoch: number
  readonly atMs: number
}

interface Named {
  readonly generation?: number | undefined
  readonly images: Readonly<Record<string, string>>
}

export class History {
  /** Epoch → when it was told as committed first. */
  readonly #commits = new Map<number, number>()
  #newest = 0
  readonly #aborted = new Set<number>()
  readonly #heard = new Map<number, Heard>()
  readonly #back: Back[] = []
  readonly #named = new Map<number, Named>()
  /** VM → what was told of its owners and cannot be. */
  readonly #disputes = new Map<string, Set<string>>()
  readonly #lost = new Set<string>()
  #record: RecordSeen | undefined

  /** The newest epoch that was ever told as committed; 0: none. */
  get committed(): number {
    return this.#newest
  }

  /** The newest that was heard of. */
  get newest(): number {
    return Math.max(1, ...this.#heard.keys())
  }

  get generations(): Generations {
    const all = [...this.#heard].sort(([a], [b]) => b - a)
    const generations = new Map<number, Generation>()
    let leastMs = Number.POSITIVE_INFINITY
    for (const [generation, { toldMs, owners }] of all) {
      // Decided before the next was, whenever who decided it found the time to say so.
      leastMs = Math.min(leastMs, toldMs ?? leastMs)
      generations.set(generation, { owners, toldMs: toldMs === undefined ? undefined : leastMs })
    }
    return generations
  }

  onCommitted({ epoch, atMs }: Told): void {
    if (!this.#commits.has(epoch)) this.#commits.set(epoch, atMs)
    this.#newest = Math.max(this.#newest, epoch)
    this.#contradicted(epoch)
  }

  onAborted(epoch: number): void {
    if (this.#back.length > 0) return // what was committed after the epoch gone back to, and is not kept, may be told as void
    this.#aborted.add(epoch)
    this.#contradicted(epoch)
  }

  /** `owners`: VM → name of the host. `epoch`: what it begins from, 0 for nothing. */
  onDecided(decided: Told & { readonly generation: number; readonly owners: Readonly<Record<string, string>> }): void {
    const heard = this.#told(decided)
    for (const [vm, host] of Object.entries(decided.owners)) {
      this.#owned(vm, decided.generation, host, 'was decided to be')
      heard.owners[vm] = host
    }
  }

  /** A VM runs at `host`: that makes nobody its owner of whom another thing was told. */
  onRuns(runs: Told & { readonly generation: number; readonly vm: string; readonly host: string }): void {
    const heard = this.#told(runs)
    this.#owned(runs.vm, runs.generation, runs.host, 'runs as')
    heard.owners[runs.vm] ??= runs.host
  }

  /**
   * The newest record that any peer knows, in a time without faults in which the group works: what was in the one before must be in
   * it. `owners` with names of hosts.
   */
  onRecord(record: RecordSeen, owners: Readonly<Record<string, string>>, atMs: number): void {
    const heard = this.#hear(record.generation)
    for (const [vm, host] of Object.entries(owners)) {
      this.#owned(vm, record.generation, host, 'is in the record as')
      heard.owners[vm] = host
    }
    for (const fault of this.#record === undefined ? [] : wentBack(this.#record, record)) this.#lost.add(fault)
    for (const [epoch, named] of namedIn(record)) this.#name(epoch, named)
    if (record.committed !== null) this.onCommitted({ epoch: record.committed.epoch, atMs })
    this.#record = record
  }

  onBack(back: Back): void {
    this.#back.push(back)
  }

  /** What was told of the owners of a VM and cannot be. */
  disputes(vm: string): string[] {
    return [...(this.#disputes.get(vm) ?? [])]
  }

  /** What was told of epochs and cannot be, unless one was lost. */
  lost(): string[] {
    return [...this.#lost, ...this.#tooOld()]
  }

  #hear(generation: number): Heard {
    const heard = this.#heard.get(generation) ?? { toldMs: undefined, from: undefined, owners: {} }
    this.#heard.set(generation, heard)
    return heard
  }

  #told({ generation, epoch, atMs }: Told & { readonly generation: number }): Heard {
    const heard = this.#hear(generation)
    heard.toldMs = Math.min(atMs, heard.toldMs ?? atMs)
    heard.from = Math.min(epoch, heard.from ?? epoch)
    return heard
  }

  #owned(vm: string, generation: number, host: string, how: string): void {
    const before = this.#heard.get(generation)?.owners[vm]
    if (before === undefined || before === host) return
    const disputes = this.#disputes.get(vm) ?? new Set()
    this.#disputes.set(
      vm,
      disputes.add(`in generation ${generation} ${vm} ${how} ${host}’s, and was ${before}’s before`)
    )
  }

  #contradicted(epoch: number): void {
    if (this.#aborted.has(epoch) && this.#commits.has(epoch))
      this.#lost.add(`epoch ${epoch} was told to be committed, and to be aborted`)
  }

  #name(epoch: number, { generation, images }: Named): void {
    const before = this.#named.get(epoch)
    const others = Object.keys(images).filter(vm => (before?.images[vm] ?? images[vm]) !== images[vm])
    for (const vm of others) this.#lost.add(`epoch ${epoch} has another image of ${vm} than it had`)
    if (generation !== undefined && before?.generation !== undefined && generation !== before.generation)
      this.#lost.add(`epoch ${epoch} is of generation ${generation}, and was of ${before.generation}`)
    this.#named.set(epoch, { generation: generation ?? before?.generation, images: { ...before?.images, ...images } })
  }

  /** Generations that began from an epoch that was not the newest any more. */
  #tooOld(): string[] {
    const { generations } = this
    return [...this.#heard].flatMap(([generation, { from }]) => {
      const toldMs = generations.get(generation)?.toldMs
      if (from === undefined || toldMs === undefined) return []
      const back = this.#back.findLast(each => each.generation <= generation)
      const before = [...this.#commits]
        .filter(([epoch, atMs]) => atMs + CLEARLY_MS < toldMs && epoch > (back?.lastEpoch ?? 0))
        .map(([epoch]) => epoch)
      const least = Math.max(back?.epoch ?? 0, ...before)
      const what = from === 0 ? 'no epoch' : `epoch ${from}`
      return from < least ? [`generation ${generation} began from ${what}, and ${least} was committed before`] : []
    })
  }
}

/** Numbers of a record that only grow. */
const wentBack = (before: RecordSeen, now: RecordSeen): string[] =>
  (['version', 'generation', 'lastEpoch'] as const)
    .filter(name => now[name] < before[name])
    .map(name => `the record was of ${name} ${before[name]}, and is of ${now[name]}`)

const namedIn = ({ committed, kept = [], held = [] }: RecordSeen): [number, Named][] =>
  [...(committed === null ? [] : [committed]), ...kept, ...held].map(each => [each.epoch, each])
