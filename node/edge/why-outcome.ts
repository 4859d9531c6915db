/** What became of a VM in one episode, and why, in a sentence or two: the first thing that is read at night. Pure. */
import type { Fact, FactOf, Told } from '../../protocols/decisions/facts.ts'
import type { Episode } from './why-episodes.ts'
import { listed, span, type Words } from './why-words.ts'

export function outcomeOf(episode: Episode, vm: string, words: Words): string {
  const seen = new Seen(episode)
  const generations = seen.all('generation').filter(({ how }) => how !== 'heard')
  const [last] = generations.toSorted((a, b) => b.generation - a.generation)
  if (last !== undefined) return decided(seen, last, vm, words)
  return undecided(seen, episode, vm, words) ?? 'Not moved: nothing has happened that could move it.'
}

/** Nothing came of it: a suspicion that was refuted in time, or only leases that were renewed. */
export function isQuiet(episode: Episode): boolean {
  const seen = new Seen(episode)
  if (seen.suspects.size > 0 || seen.dead.size > 0) return false
  return episode.told.every(({ fact }) => {
    if (fact.kind === 'generation') return fact.how === 'heard'
    if (fact.kind === 'lease') return fact.event === 'renewed' || fact.event === 'granted'
    return !TELLING.has(fact.kind)
  })
}

const TELLING: ReadonlySet<Fact['kind']> = new Set<Fact['kind']>([
  'declared-dead',
  'takeover-due',
  'plan',
  'vm-failed',
  'restart-due',
  'gives-up'
])

/** The facts of an episode that its outcome rests on; without what everybody says at each change, and without what came to nothing. */
export function whatMatters({ told }: Episode): Told[] {
  const dead = new Set(told.flatMap(({ fact }) => (fact.kind === 'declared-dead' ? [fact.peer] : [])))
  return told.filter(({ fact }) => {
    switch (fact.kind) {
      case 'suspected':
      case 'refuted':
        return dead.has(fact.peer) || dead.size === 0
      case 'confirmed':
      case 'accused':
      case 'takeover-due':
      case 'takeover-ended':
        return false
      case 'lease':
        return fact.event !== 'renewed' && fact.event !== 'granted'
      case 'ballot':
        return fact.outcome !== 'learned'
      case 'vm':
        return fact.event === 'booted' || fact.event === 'resumed'
      default:
        return true
    }
  })
}

/** The facts of an episode, by what is asked of them. */
class Seen {
  readonly #told: Episode['told']
  /** Member → who holds it for what now. */
  readonly suspects = new Set<string>()
  readonly dead = new Set<string>()
  readonly refuted = new Map<string, FactOf<'refuted'>>()

  constructor({ told }: Episode) {
    this.#told = told
    const believed = new Map<string, { readonly peer: string; readonly liveness: 'suspect' | 'dead' }>()
    for (const { by, fact } of told) {
      const key = 'peer' in fact ? `${by} ${fact.peer}` : ''
      if (fact.kind === 'suspected') believed.set(key, { peer: fact.peer, liveness: 'suspect' })
      else if (fact.kind === 'declared-dead') believed.set(key, { peer: fact.peer, liveness: 'dead' })
      else if (fact.kind === 'refuted') {
        believed.delete(key)
        const worse = this.refuted.get(fact.peer)
        if (worse === undefined || worse.was === 'suspect') this.refuted.set(fact.peer, fact)
      }
    }
    for (const { peer, liveness } of believed.values()) (liveness === 'dead' ? this.dead : this.suspects).add(peer)
  }

  /** With who tells it, and when it was told last. */
  all<Kind extends Fact['kind']>(kind: Kind): (FactOf<Kind> & { readonly by: string; readonly atMs: number })[] {
    return this.#told.flatMap(({ by, lastAtMs, fact }) =>
      fact.kind === kind ? [{ ...(fact as FactOf<Kind>), by, atMs: lastAtMs }] : []
    )
  }
}

type Decided = FactOf<'generation'>

function decided(seen: Seen, last: Decided, vm: string, words: Words): string {
  if (last.how === 'removed') return 'Ended: the group was removed.'
  if (last.how === 'rests')
    return `Ended: its group rests at epoch ${last.epoch}, until somebody starts it (diapause vm start).`
  const to = words.name(last.owners[vm] ?? '')
  if (last.how === 'made') return `Made at ${to}.`
  const from = seen.all('generation').flatMap(({ displaced }) => displaced[vm] ?? [])[0]
  const epoch = last.epoch === 0 ? 'booted anew, for there was no snapshot' : `taken back to epoch ${last.epoch}`
  const what =
    from !== undefined && words.name(from) !== to
      ? `Moved from ${words.name(from)} to ${to} and ${epoch}`
      : `Not moved, but ${epoch} at ${to} with its whole group`
  return `${what}, because ${causeOf(seen, vm, words)}. ${runs(seen, last, vm)}`
}

function causeOf(seen: Seen, vm: string, words: Words): string {
  const displaced = seen.all('generation').flatMap(each => Object.entries(each.displaced))
  const lost = new Set(displaced.map(([, owner]) => owner).filter(owner => wasDead(seen, owner)))
  if (lost.size > 0) {
    const others = displaced.flatMap(([id, owner]) => (id !== vm && lost.has(owner) ? [id] : []))
    const ran = displaced.some(([id, owner]) => id === vm && lost.has(owner))
      ? ''
      : `, which ran ${listed([...new Set(others)])},`
    const declared = [...lost].some(owner => seen.all('declared-dead').some(fact => fact.peer === owner))
    // A member that was removed is nobody's suspect.
    return `${words.names([...lost])}${ran} ${declared ? `${was(lost.size)} declared dead` : 'counted as dead'}`
  }
  const [asked] = seen.all('restart-due').filter(({ why }) => why === 'by-hand')
  if (asked !== undefined) return `a person asked ${words.name(asked.by)} for it (diapause restore, or vm start)`
  const [failed] = seen.all('vm-failed').slice(-1)
  const [givenUp] = seen.all('gives-up')
  if (givenUp !== undefined) return `${words.name(givenUp.by)} failed to run the group's VMs ${givenUp.failures} times`
  if (failed !== undefined) return `${failed.vm} failed at ${words.name(failed.by)} (${failed.why})`
  const [restarted] = seen.all('restart-due').filter(({ why }) => why === 'peer-restarted')
  if (restarted !== undefined)
    return `the peer on ${words.name(restarted.by)} was restarted, and its VMs had ended with it`
  const dead = [...new Set(seen.all('declared-dead').map(({ peer }) => peer))]
  if (dead.length > 0) return `${words.names(dead)} ${was(dead.length)} declared dead`
  return 'of something that nobody who answered has told'
}

const was = (count: number): string => (count === 1 ? 'was' : 'were')

const wasDead = (seen: Seen, peer: string): boolean =>
  seen.all('declared-dead').some(fact => fact.peer === peer) ||
  seen.all('takeover-due').some(fact => fact.dead.includes(peer))

function runs(seen: Seen, { generation }: Decided, vm: string): string {
  const run = seen.all('vm').find(fact => fact.vm === vm && fact.generation >= generation && fact.event !== 'ended')
  if (run === undefined) return 'Nobody who answered has told yet that it runs there.'
  return `It runs again in generation ${run.generation}.`
}

/** Why it is where it was. */
function undecided(seen: Seen, { owner }: Episode, vm: string, words: Words): string | undefined {
  if (seen.dead.size > 0)
    return `Not moved so far: ${words.names([...seen.dead])} ${was(seen.dead.size)} declared dead, ${hindrance(seen, words)}.`
  const [failed] = seen.all('vm-failed').slice(-1)
  if (failed !== undefined) {
    const [waits] = seen.all('restart-waits').slice(-1)
    const yet = waits === undefined ? 'a new generation is not decided yet' : `no new generation yet: ${waits.text}`
    return `Not moved so far: ${failed.vm} failed at ${words.name(failed.by)} (${failed.why}); ${yet}.`
  }
  // Of several the worst, and among equals the VM's own host.
  const rank = ({ was, peer }: FactOf<'refuted'>): number => (was === 'dead' ? 2 : 0) + (peer === owner ? 1 : 0)
  const [back] = [...seen.refuted.values()].sort((a, b) => rank(b) - rank(a))
  if (back !== undefined && seen.suspects.size === 0) {
    const who = words.name(back.peer)
    if (back.was === 'suspect') return `Not moved: ${who} was suspected, and refuted it after ${span(back.afterMs)}.`
    return `Not moved: ${who} was declared dead, ${hindrance(seen, words)}; it was back before anything was decided.`
  }
  if (seen.suspects.size > 0) {
    const are = seen.suspects.size === 1 ? 'is' : 'are'
    return `Not moved so far: ${words.names([...seen.suspects])} ${are} suspected only, and may refute.`
  }
  return paused(seen, vm, words)
}

/** What stood in the way of a takeover last. */
function hindrance(seen: Seen, words: Words): string {
  const [waits] = seen.all('takeover-waits').toSorted((a, b) => b.atMs - a.atMs)
  const by = waits === undefined ? '' : words.name(waits.by)
  switch (waits?.why) {
    case undefined:
      return seen.all('takeover-due').length > 0 ? 'but nobody has tried a takeover yet' : 'but no takeover is told of'
    case 'lease':
      return `but its lease still ran when ${by} tried to take over`
    case 'no-majority':
      return `but no majority of voters answered ${by}, which tried to take over`
    case 'contended':
      return `but others kept changing the register while ${by} tried to take over`
    case 'no-host':
      return `but ${by} knew no living host with room for its VMs`
    case 'error':
      return `but ${by} could not take over: ${waits?.text ?? ''}`
  }
}

function paused(seen: Seen, vm: string, words: Words): string | undefined {
  const leases = seen.all('lease')
  const lapsing = leases.find(({ event }) => event === 'lapsing')
  if (lapsing === undefined) return undefined
  const host = words.name(lapsing.by)
  const regained = leases.findLast(({ event, by }) => event === 'regained' && by === lapsing.by)
  const verb = lapsing.vms.includes(vm) ? 'paused' : 'its group was paused in part'
  if (regained === undefined)
    return `Not moved: ${verb}, because ${host} cannot renew its lease with a majority of voters.`
  const forMs = span(regained.atMs - lapsing.atMs)
  return `Not moved: ${verb} for ${forMs}, because ${host} could not renew its lease with a majority, until it could.`
}
