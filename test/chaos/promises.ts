/**
 * What is promised whatever happens, judged from what was seen from outside. Pure: each takes what an observer noted and gives
 * what was broken, in words; nothing where it held.
 */
import type { ImageRedundancy } from '../../node/edge/redundancy-view.ts'
import { DiapauseError, messageOf } from '../../node/errors.ts'
import type { Stint } from './beat-log.ts'
import { CLEARLY_MS, type Generations } from './history.ts'

/**
 * After the last heal of a round all VMs work again within this. Two busy cores that emulate, peers that begin anew: detection,
 * leases, start of a peer, restore and boot of connections took 3 to 8 s; four times that.
 */
export const OBJECTIVE_MS = 30_000
/**
 * And all columns are where they should be within this, by the timers of peers: from when VMs work (OBJECTIVE_MS) repair is quiet for
 * 5 s (`node/agents/repair.ts`), looks each second, waits 2 s for a peer that is silent and asks it again after 1, 2 and 4
 * (`protocols/shards/asking.ts`), and rebuilds what a host has, 45 MB at 40 MB a second; an epoch that has begun may take 10 s to end.
 * That is 60 s; 5 to 25 s were seen where nothing was wrong, and 2 s for all to be read once, after faults of disks and power.
 */
export const REDUNDANT_MS = 60_000

/**
 * Never two copies of a VM that are seen: what was heard of it, stint by stint, must be what its owners were, generation by generation.
 * A copy that speaks when its successor has spoken is a stint more than there were owners: no other check says that the old owner is
 * silent before the new one speaks, and none is needed. Nor may it speak on when peers have told that the VM is another host's
 * (leases are over before that is decided: `protocols/lease/voter.ts`), or clearly before they tell of the generation that it is of.
 * Generations of which nobody told (who decided was killed) may have been anybody's, between those before and after.
 */
export function copies(vm: string, stints: readonly Stint[], generations: Generations, newest: number): string[] {
  let generation = 0
  for (const [i, stint] of stints.entries()) {
    do generation++
    while (generation <= newest && !mayBe(generation, stint, generations))
    if (generation <= newest) continue
    const what = `${vm} was heard from ${stint.host} (stint ${i + 1}) when it was another host's`
    return [
      `${what}: ${told(stints.slice(0, i))}, then ${stint.host} from ${stint.firstSeq}${spokeOn(stint, stints[i - 1])}`
    ]
  }
  return []
}

/** By whose it was and when. */
function mayBe(generation: number, { vm, host, fromMs, untilMs }: Stint, generations: Generations): boolean {
  if ((generations.get(generation)?.owners[vm] ?? host) !== host) return false
  return [...generations].every(([other, { owners, toldMs }]) => {
    if (toldMs === undefined) return true
    if (other <= generation) return fromMs >= toldMs - CLEARLY_MS
    return (owners[vm] ?? host) === host || untilMs <= toldMs
  })
}

/** Of stints that are over, so that what is found is the same words whenever it is looked for. */
const told = (stints: readonly Stint[]): string =>
  stints
    .slice(-5)
    .map(({ host, beats, firstSeq, lastSeq }) => `${host} ${beats}x ${firstSeq}-${lastSeq}`)
    .join(', ')

const spokeOn = ({ host, fromMs }: Stint, before: Stint | undefined): string =>
  before === undefined || before.host === host
    ? ''
    : `, ${Math.round(fromMs - before.fromMs)} ms after ${before.host} had begun to speak`

/** A VM says something every 50 ms, and is silent for some hundred while it is cut or its machine is busy. A guess, far above. */
const HEARD_WITHIN_MS = 5_000

/** `owner`: the host that is to run the VM; undefined: the record names none. Who is not heard says nothing of how many copies there are. */
export function heard(vm: string, last: Stint | undefined, owner: string | undefined, nowMs: number): string[] {
  if (last === undefined) return [`${vm} was never heard`]
  const silentMs = nowMs - last.untilMs
  if (silentMs > HEARD_WITHIN_MS) return [`${vm} was not heard for ${Math.round(silentMs)} ms`]
  return last.host === owner ? [] : [`${vm} is heard from ${last.host}, and is to run on ${owner ?? 'no host'}`]
}

/** A VM that is heard with another nonce has booted: what it held in memory is lost. */
export function booted(vm: string, stints: readonly Stint[]): string[] {
  const nonces = new Set(stints.map(({ nonce }) => nonce))
  return nonces.size > 1 ? [`${vm} has booted again`] : []
}

/**
 * The shortest silence between the last word of an owner and the first of its successor elsewhere, ms. Never below 0: a word of the
 * owner before that comes later is a stint of its own, which `copies` finds.
 */
export function shortestSilence(stints: readonly Stint[]): number {
  return stints.reduce((least, stint, i) => {
    const before = stints[i - 1]
    return before === undefined || before.host === stint.host ? least : Math.min(least, stint.fromMs - before.untilMs)
  }, Number.POSITIVE_INFINITY)
}

/** What an audit of the bank found. */
export interface Audit {
  readonly gaps: number
  readonly broken: number
  readonly faults: readonly string[]
  readonly nonces: readonly string[]
}

/** Every coin is there, every transfer came once, no connection broke, no VM booted. `nonces`: those of before. */
export function money(audit: Audit, nonces: readonly string[]): string[] {
  return [
    ...audit.faults,
    ...(audit.gaps > 0 ? [`${audit.gaps} transfers lost or doubled`] : []),
    ...(audit.broken > 0 ? [`${audit.broken} connections broke`] : []),
    ...(audit.nonces.join() === nonces.join() ? [] : ['a VM has booted again'])
  ]
}

/** Why something did not come; an error of ours with its code, which says what it is of (`planted/kinds.ts`): words change. */
export const inWords = (error: unknown): string =>
  error instanceof DiapauseError ? `${error.message} [${error.code}]` : messageOf(error)

/** What a run says where it waits for VMs that are there, and whose TCP has nothing to say to each other any more. */
export const CONNECTIONS_BROKE = 'all VMs speak, and not with each other'

/** `seen`: the newest epoch that anybody ever said was committed. `now`: what the record says now. */
export function committed(seen: number, now: number | undefined): string[] {
  return (now ?? 0) < seen ? [`epoch ${seen} was committed, and the group knows of none after ${now ?? 'any'}`] : []
}

/** Of images that are kept, with all hosts there: too few columns are left to read them, at any of them. */
export const readable = (images: readonly Pick<ImageRedundancy, 'vm' | 'epoch' | 'tolerates'>[]): string[] =>
  images.flatMap(({ vm, epoch, tolerates }) =>
    tolerates < 0 ? [`${vm} at epoch ${epoch} cannot be read any more`] : []
  )

/** `there`: the VM of each hypervisor of any host, when every VM works. */
export const hypervisors = (vms: readonly string[], there: readonly string[]): string[] =>
  vms.flatMap(vm => {
    const count = there.filter(name => name === vm).length
    return count > 1 ? [`${vm} has ${count}, of which ${count - 1} are left of owners before`] : []
  })
