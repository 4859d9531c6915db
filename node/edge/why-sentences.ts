/** Each fact as a sentence whose subject is the peer that tells it. Pure. */
import type { Fact, FactOf, Ground, Told, Vote } from '../../protocols/decisions/facts.ts'
import { plural } from './plural.ts'
import { listed, span, type Words } from './why-words.ts'

/** For a person, e.g. 'suspects p1: no ack, …'. The peer stands before it. */
export function sentenceOf({ by, fact, times, atMs, lastAtMs }: Told, words: Words): string {
  const sentence = plain(by, fact, words)
  if (times === 1) return sentence
  if (fact.kind === 'lease' && fact.event === 'renewed') {
    return `renews its lease of generation ${fact.generation} ${times} times in ${span(lastAtMs - atMs)}, with at least ${span(fact.leftMs)} left`
  }
  return `${sentence} (${times} times in ${span(lastAtMs - atMs)})`
}

function plain(by: string, fact: Fact, words: Words): string {
  switch (fact.kind) {
    case 'suspected':
    case 'confirmed':
    case 'refuted':
    case 'declared-dead':
    case 'accused':
    case 'peer-started':
    case 'peer-stopped':
      return ofMember(by, fact, words)
    case 'generation':
      return ofGeneration(fact, words)
    case 'plan':
      return ofPlan(fact, words)
    case 'ballot':
      return ofBallot(fact, words)
    case 'takeover-due':
    case 'takeover-waits':
    case 'takeover-ended':
      return ofTakeover(fact, words)
    case 'lease':
      return ofLease(fact, words)
    case 'vm':
      return ofVm(fact)
    case 'vm-failed':
      return `says that ${fact.vm} failed: ${fact.why}`
    case 'restart-due':
      if (fact.why === 'by-hand') return 'is asked by a person to take the group back to an epoch (diapause restore)'
      return fact.why === 'peer-restarted'
        ? 'finds that its VMs ended with an earlier run of it: the group must go back as a whole'
        : `will ask for a new generation in ${span(fact.waitMs)} (${plural(fact.failures, 'failure')} in a row)`
    case 'restart-waits':
      return `gets no new generation yet: ${fact.text}`
    case 'gives-up':
      return `gives its VMs to other hosts after ${plural(fact.failures, 'failure')} in a row`
  }
}

type MemberFact = Exclude<Fact, { group: string }>

function ofMember(by: string, fact: MemberFact, words: Words): string {
  const who = words.name(fact.peer)
  switch (fact.kind) {
    case 'suspected':
      return fact.by === by
        ? `suspects ${who}: ${fact.why}; dead in ${span(fact.deadInMs)} at the latest, unless it refutes`
        : `hears that ${words.name(fact.by)} suspects ${who}`
    case 'confirmed': {
      const left = `dead in ${span(fact.deadInMs)}, unless it refutes`
      return fact.by === by
        ? `suspects ${who} as well: ${left}`
        : `hears that ${words.name(fact.by)} suspects ${who} as well: ${left}`
    }
    case 'refuted':
      return fact.was === 'suspect'
        ? `hears from ${who} that it is alive: the suspicion is refuted after ${span(fact.afterMs)}`
        : `hears from ${who} that it is alive, ${span(fact.afterMs)} after it was declared dead`
    case 'declared-dead':
      return fact.by === by
        ? `declares ${who} dead: not refuted for ${span(fact.afterMs)}, suspected by ${words.names(fact.suspectedBy)}`
        : `hears that ${words.name(fact.by)} declares ${who} dead`
    case 'accused':
      return `hears that ${words.name(fact.by)} holds it for ${fact.of}, and says that it is alive`
    case 'peer-started':
      return `starts (diapause ${fact.version}); VMs of an earlier run of it are dead`
    case 'peer-stopped':
      return 'stops, because it was told to'
  }
}

function ofGeneration({ generation, epoch, owners, displaced, how }: FactOf<'generation'>, words: Words): string {
  if (how === 'removed') return `learns that the group was removed (generation ${generation})`
  if (how === 'rests') return `learns that the group rests at epoch ${epoch} (generation ${generation})`
  const moved = Object.entries(displaced).map(
    ([vm, from]) => `${vm} from ${words.name(from)} to ${words.name(owners[vm] ?? '')}`
  )
  const placed = Object.entries(owners).map(([vm, owner]) => `${vm} at ${words.name(owner)}`)
  const where = moved.length > 0 ? `${listed(moved)}${placed.length > moved.length ? ', the others stay' : ''}` : ''
  const back = epoch === 0 ? 'all boot' : `all go back to epoch ${epoch}`
  if (how === 'heard') return `first hears of the group, in generation ${generation}: ${listed(placed)}`
  return `learns that generation ${generation} is decided: ${where === '' ? listed(placed) : where}; ${back}`
}

const grounds: Readonly<Record<Ground, string>> = {
  'only-host': 'the only host left',
  room: 'the only host with room for it',
  others: 'so that all find room, apart from each other as far as can be',
  apart: 'apart from VMs that it is to be apart from',
  told: 'the other has not said how much memory it gives',
  standby: 'it keeps a copy ready',
  fullness: 'the least full',
  columns: 'about as full as others, and it has more columns of its image',
  name: 'as good as others, and the first by name'
}

function ofPlan({ generation, moves, owners }: FactOf<'plan'>, words: Words): string {
  const stay = Object.keys(owners).length - moves.length
  const moved = moves.map(({ vm, to, memoryMiB, ground, promised }) => {
    const others = promised.filter(({ peer }) => peer !== to)
    const own = promised.find(({ peer }) => peer === to)?.memoryMiB ?? 0
    const room = others.map(({ peer, memoryMiB: mib }) => `${words.name(peer)} ${mib} MiB`)
    const because = ground === undefined ? '' : `${grounds[ground]}; `
    const why = others.length === 0 ? grounds['only-host'] : `${because}RAM promised: ${own} MiB, ${listed(room)}`
    return `${vm} (${memoryMiB} MiB) to ${words.name(to)} (${why})`
  })
  const parts = [...moved, ...(stay > 0 ? [`${plural(stay, 'VM')} ${stay === 1 ? 'stays' : 'stay'}`] : [])]
  return `plans generation ${generation + 1}: ${parts.join('; ')}`
}

const outcomes = {
  chosen: 'a majority has accepted',
  learned: 'it was decided already',
  leased: 'no majority, since leases still run',
  conflict: 'others were quicker each time',
  unavailable: 'no majority',
  rejected: 'nothing to be voted on'
} as const

function ofBallot({ counter, outcome, votes, rounds, tookMs }: FactOf<'ballot'>, words: Words): string {
  if (votes.length === 0) return `asks the voters for a change of the group: ${outcomes[outcome]}`
  const said = votes.map(({ peer, vote, leaseMs }) => `${words.name(peer)} ${voteText(vote, leaseMs)}`).sort()
  const effort = `${plural(rounds, 'round')}, ${span(tookMs)}`
  return `asks the voters (ballot ${counter}): ${said.join(', ')}; ${outcomes[outcome]} (${effort})`
}

function voteText(vote: Vote, leaseMs: number | undefined): string {
  switch (vote) {
    case 'promised':
    case 'accepted':
    case 'state':
      return 'yes'
    case 'leased':
      return leaseMs === undefined ? 'no (a lease runs)' : `no (a lease runs ${span(leaseMs)} more)`
    case 'conflict':
      return 'no (it has a newer ballot)'
    case 'stale':
      return 'no (it has other voters)'
    case 'silent':
      return 'silent'
  }
}

function ofTakeover(
  fact: FactOf<'takeover-due'> | FactOf<'takeover-waits'> | FactOf<'takeover-ended'>,
  words: Words
): string {
  if (fact.kind === 'takeover-due') {
    const when = fact.waitMs === 0 ? 'now' : `in ${span(fact.waitMs)}, being survivor ${fact.rank + 1}`
    return `sees that ${listed(fact.lost)} lost ${words.names(fact.dead)}: a takeover is due ${when}`
  }
  if (fact.kind === 'takeover-ended') {
    if (fact.outcome === 'decided') return `has its plan decided: generation ${fact.generation + 1}`
    if (fact.outcome === 'other-plan') return `finds another plan decided than its own`
    return 'has nothing to take over any more'
  }
  const again = `tries again in ${span(fact.retryMs)}`
  switch (fact.why) {
    case 'lease':
      return `waits ${span(fact.retryMs)} until the lease of the old owner has run out`
    case 'no-majority':
      return `cannot decide, since no majority of voters answers; ${again}`
    case 'contended':
      return `cannot decide, since others keep changing the register; ${again}`
    case 'no-host':
      return `cannot plan: ${fact.text}; ${again}`
    case 'error':
      return `cannot decide: ${fact.text}; ${again}`
  }
}

function ofLease({ event, generation, leftMs, granted, vms, newer }: FactOf<'lease'>, words: Words): string {
  const lease = `its lease of generation ${generation}`
  switch (event) {
    case 'granted':
      return `has ${lease} for ${span(leftMs)}${granted.length > 0 ? `, granted by ${words.names(granted)}` : ''}`
    case 'renewed':
      return `renews ${lease}, with ${span(leftMs)} left`
    case 'lapsing':
      return `cannot renew ${lease}: pauses ${vms.length > 0 ? listed(vms) : 'its VMs'}, with ${span(leftMs)} left`
    case 'regained':
      return `has ${lease} again: ${vms.length > 0 ? listed(vms) : 'its VMs'} ${vms.length === 1 ? 'goes' : 'go'} on`
    case 'lost':
      return `has lost ${lease} for good: generation ${newer} is decided`
  }
}

function ofVm({ vm, event, generation, epoch, tookMs }: FactOf<'vm'>): string {
  switch (event) {
    case 'booted':
      return `says that ${vm} runs: booted in generation ${generation}`
    case 'resumed':
      return `says that ${vm} runs again from epoch ${epoch}, ${span(tookMs)} after its start`
    case 'complete':
      return `says that ${vm} has all its pages`
    case 'ended':
      return `has ended ${vm} of generation ${generation}`
  }
}
