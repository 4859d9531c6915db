/**
 * A story cut into episodes. Pure. An episode begins with a cause (a suspicion, a VM that failed, a lease that lapses) and
 * goes on until its cause is mended or a new generation runs; what comes then and is no cause itself (a last page, a peer
 * that hears of it later) still belongs to it. So does the generation that somebody in it was about to have decided, even
 * where the dead member is back by then, or the VM runs in the generation before: else it would stand there without its cause.
 */
import type { Told } from '../../protocols/decisions/facts.ts'

/** After such a silence the next cause is another episode, whatever became of this one. A guess. */
const SILENCE_MS = 60_000

export interface Episode {
  readonly told: Told[]
  /** Where its relative times count from. */
  readonly causeMs: number
  /** Who owned the VM when it began, as far as was told. */
  readonly owner: string | undefined
}

/** In order. Before the first cause there may be one without trouble: a VM that was made, a lease. */
export function episodesOf(told: readonly Told[], vm: string): Episode[] {
  const episodes: (Episode & { readonly state: State })[] = []
  let owner: string | undefined
  for (const entry of told) {
    let last = episodes.at(-1)
    const begins = last?.state.isCause(entry) !== false
    if (last === undefined || (begins && last.state.isOver(entry.atMs))) {
      last = { told: [], causeMs: entry.atMs, owner, state: new State(vm) }
      episodes.push(last)
    }
    last.told.push(entry)
    last.state.take(entry)
    if (entry.fact.kind === 'generation') owner = entry.fact.owners[vm]
  }
  return episodes
}

/** What the entries of an episode leave open. */
class State {
  readonly #vm: string
  /** Teller → the members that it holds for suspect or dead. */
  readonly #accused = new Map<string, Set<string>>()
  readonly #lapsed = new Set<string>()
  /** Teller → the generation that it tries to have decided. */
  readonly #tried = new Map<string, number>()
  #caused = false
  #failedIn = 0
  #decided = 0
  #runs = 0
  #lastMs = 0

  constructor(vm: string) {
    this.#vm = vm
  }

  /** True where this would be the beginning of something else, were all else over. */
  isCause({ by, fact }: Told): boolean {
    switch (fact.kind) {
      case 'suspected':
      case 'declared-dead':
        return ![...this.#accused.values()].some(members => members.has(fact.peer))
      case 'generation':
        return (fact.how === 'changed' || fact.how === 'removed') && fact.generation > this.#expected
      case 'vm-failed':
      case 'restart-due':
        return fact.generation >= this.#decided && fact.generation > this.#failedIn
      case 'takeover-due':
        return fact.generation >= this.#decided && this.#accused.size === 0
      case 'lease':
        return fact.event === 'lapsing' && !this.#lapsed.has(by)
      default:
        return false
    }
  }

  isOver(atMs: number): boolean {
    if (!this.#caused || atMs - this.#lastMs > SILENCE_MS) return true
    if (this.#expected > this.#decided) return false
    if (this.#decided > 0) return this.#runs >= this.#decided
    return this.#accused.size === 0 && this.#lapsed.size === 0 && this.#failedIn === 0
  }

  /** The newest generation that is decided, or that somebody tries to have decided. */
  get #expected(): number {
    return Math.max(this.#decided, ...this.#tried.values())
  }

  take(told: Told): void {
    const { fact, lastAtMs } = told
    this.#caused ||= this.isCause(told)
    // A lease that is renewed for days is not what the episode is about.
    if (fact.kind !== 'lease' || fact.event !== 'renewed') this.#lastMs = Math.max(this.#lastMs, lastAtMs)
    this.#takeTry(told)
    this.#takeWhat(told)
  }

  #takeTry({ by, fact }: Told): void {
    switch (fact.kind) {
      case 'takeover-due':
      case 'plan':
      case 'restart-due':
        this.#tried.set(by, fact.generation + 1)
        return
      case 'takeover-ended':
        this.#tried.delete(by)
        return
      default:
    }
  }

  #takeWhat({ by, fact }: Told): void {
    switch (fact.kind) {
      case 'suspected':
      case 'declared-dead':
        this.#accused.set(by, (this.#accused.get(by) ?? new Set()).add(fact.peer))
        return
      case 'refuted': {
        const members = this.#accused.get(by)
        if (members?.delete(fact.peer) === true && members.size === 0) this.#accused.delete(by)
        return
      }
      case 'vm-failed':
      case 'restart-due':
        this.#failedIn = Math.max(this.#failedIn, fact.generation)
        return
      case 'generation':
        if (fact.how === 'made' || fact.how === 'changed') this.#decided = Math.max(this.#decided, fact.generation)
        return
      case 'vm':
        if (fact.vm === this.#vm && fact.event !== 'ended') this.#runs = Math.max(this.#runs, fact.generation)
        return
      case 'lease':
        if (fact.event === 'lapsing') this.#lapsed.add(by)
        else if (fact.event === 'regained' || fact.event === 'lost') this.#lapsed.delete(by)
        return
      default:
    }
  }
}
