/** Hosts that do not reach each other, both ways or one way; all links stay up, as with a broken switch beyond. */
import { all, type Fault, type Heal, type Target } from '../fault.ts'
import { runs } from './processes.ts'

/**
 * A cut that lasts no longer is none that counts: an owner may run its VMs so long after it last reached a majority
 * (`lease.durationMs`, by default), so a shorter one ends before anybody may do anything about it.
 */
export const PARTITION_LEAST_MS = 1_000

/** Whose frames to whom are lost. */
type Way = readonly [from: Target, to: Target]

interface Cut extends Pick<Fault, 'name' | 'about' | 'reach'> {
  readonly lost: (target: Target) => readonly Way[]
  /** Default: each way is blocked by itself. */
  readonly begin?: (target: Target) => Promise<Heal>
}

const cut = ({ lost, begin, ...fault }: Cut): Fault => ({
  ...fault,
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  links: true,
  counts: {
    as: 'partitions',
    of: (target, lastsMs) => (lastsMs >= PARTITION_LEAST_MS && anyIsUsed(lost(target)) ? 1 : 0)
  },
  begin: begin ?? (target => blockAll(lost(target)))
})

/** Frames pass there until now: it is not cut already, and somebody is at both ends. */
function anyIsUsed(ways: readonly Way[]): boolean {
  const found = new Map<Target, boolean>()
  const runsAt = (target: Target): boolean => {
    const is = found.get(target) ?? runs(target) > 0
    found.set(target, is)
    return is
  }
  return ways.some(([from, to]) => from.hosts.reaches(from.host, to.host) && runsAt(from) && runsAt(to))
}

async function blockAll(ways: readonly Way[]): Promise<Heal> {
  const heals: Heal[] = []
  for (const [from, to] of ways) heals.push(await from.hosts.block(from.host, to.host))
  return all(heals)
}

const outOf = (target: Target): Way[] => target.others.map(other => [target, other])
const into = (target: Target): Way[] => target.others.map(other => [other, target])
const between = (left: readonly Target[], right: readonly Target[]): Way[] =>
  left.flatMap(one =>
    right.flatMap((other): Way[] => [
      [one, other],
      [other, one]
    ])
  )

export const cutOff = cut({
  name: 'cut-off',
  about: 'it reaches nobody, and nobody it',
  reach: 'one',
  lost: target => [...outOf(target), ...into(target)],
  begin: async ({ host, hosts }) => hosts.cutOff(host)
})

/** It hears all others, who do not hear it. */
export const mute = cut({
  name: 'mute',
  about: 'what it sends is lost, what others send to it is not',
  reach: 'one',
  lost: outOf
})

/** It is heard by all others, and hears none. */
export const deaf = cut({
  name: 'deaf',
  about: 'what others send to it is lost, what it sends is not',
  reach: 'one',
  lost: into
})

/** The target and a random half of the others (rounded down) on one side: of an even number no side has a majority. */
export const partition = cut({
  name: 'partition',
  about: 'it and half of the others do not reach the rest',
  reach: 'many',
  lost(target) {
    const [left, right] = halves(target)
    return between([target, ...left], right)
  }
})

/** The target reaches everybody, and the two halves of the others only it (Jepsen's bridge). */
export const bridge = cut({
  name: 'bridge',
  about: 'all others are two halves that reach it and not each other',
  reach: 'many',
  lost: target => between(...halves(target))
})

/** Of the others, drawn: the first is the smaller one. */
function halves({ others, random }: Target): [Target[], Target[]] {
  const shuffled = others
    .map(other => ({ other, order: random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ other }) => other)
  const count = Math.floor(shuffled.length / 2)
  return [shuffled.slice(0, count), shuffled.slice(count)]
}
