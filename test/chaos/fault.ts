/**
 * What a fault is: something done from outside to one host or to what is between hosts, and its undoing. A fault is made
 * before anybody knows to whom it will be done: `begin` is told. Nobody inside a peer helps with it.
 *
 * Which fault comes when is a plan (`scenario.ts`), a pure function of the seed; what a fault itself draws comes from
 * `target.random`, which the plan seeds, too. So one seed makes the same faults.
 */
import type { Host, Hosts } from '../hosts/hosts.ts'
import { generator } from '../sim/kernel.ts'

/** Undoes what was begun. Idempotent; resolves when the host is as before, whether its peer is well again or not. */
export type Heal = () => Promise<void>

/** Hosts whose peer or VMs were killed, hosts that lost their power while either ran, and partitions. */
export const COUNTED = ['kills', 'powerLosses', 'partitions'] as const
export type Counted = (typeof COUNTED)[number]
export type Counts = Readonly<Record<Counted, number>>

export interface Fault {
  /** As in `--scenario` and in the timeline: `kill-peer`. */
  readonly name: string
  /** For people, after the name of the host: "its peer is killed". */
  readonly about: string
  /** Longest and shortest time between `begin` and its heal in a random mix. */
  readonly lasts: { readonly leastMs: number; readonly mostMs: number }
  /** Whom it is done to: the target; others as well; or all hosts. */
  readonly reach: 'one' | 'many' | 'all'
  /** Only what is between hosts is broken, and nothing at them: in a random mix it goes with whatever else happens to them. */
  readonly links?: true
  /** What is stored may be damaged by it: of such faults a round has one, and ends when all is repaired. */
  readonly harms?: true
  /**
   * As what it counts where runs are added up, and how often if it begins now and lasts so long: what is not there is not killed,
   * and what is cut already is not cut. A peer is there from when it has a file of its disk open: one that has only just been
   * started (Node alone takes half a second) holds nothing yet, and its end tries nothing. `of` draws what `begin` draws.
   */
  readonly counts?: { readonly as: Counted; of(target: Target, lastsMs: number): number }
  /** Asked before anything begins. UsageError, with what to do, where this machine cannot. */
  readonly needs?: () => void
  /** Before any peer runs, on every host of a run that may have this fault: an environment that its peer is to have. */
  readonly prepare?: (home: Home) => Promise<NodeJS.ProcessEnv>
  begin(target: Target): Promise<Heal>
}

/** Where a host's things are. */
export interface Home {
  /** Of its peer: p1 for h1. */
  readonly name: string
  /** On `disk`. */
  readonly dataDir: string
  readonly disk: Disk
  /** Its own folder for files of faults, not on its disk. */
  readonly scratchDir: string
}

/** The file system that holds a peer's data and nothing else, in a file mounted as a loop device. */
export interface Disk {
  readonly type: 'ext4' | 'xfs'
  /** Where it is mounted. */
  readonly mounted: string
  /** The file that it lies in. */
  readonly image: string
  /** "/dev/loop3"; another one after it was mounted again. */
  device(): string
  mount(): Promise<void>
  /** Nobody may have files open there: `halt` first. */
  unmount(): Promise<void>
}

export interface Target extends Home {
  readonly host: Host
  readonly hosts: Hosts
  /** The other hosts of the cluster: for faults that hit more than one. */
  readonly others: readonly Target[]
  /** From 0 to below 1. */
  readonly random: () => number
  /** Undefined: it does not run. A peer that ended is started again by the supervisor after a second, as by systemd. */
  peerPid(): number | undefined
  /** Of its VMs; the uplink's relay is none. */
  qemuPids(): number[]
  /** All that it runs: the peer, what that has started, and what is left of peers before. Parents before their children. */
  pids(): number[]
  /** Ends all that the host runs, at once, as a power cut does, and nothing runs there until the heal. */
  halt(): Promise<Heal>
  /** Its peer is told to stop, and started again; with the main.ts of another tree from now on, or with its own. */
  restart(program: string | undefined): Promise<void>
  /** Why an operator would not restart the next peer now, as this one sees it; also where it is not of that version. */
  waits(version: string): Promise<readonly string[]>
  /** Something did not go as it has to where nothing else is broken meanwhile. */
  unwell(what: string): void
}

/**
 * Begins it with what the seed gives, and adds it to `counts` when it has begun: as what was there before, and not at all where
 * it could not begin.
 */
export async function beginCounted(
  fault: Fault,
  target: Target & { random: () => number },
  { seed, lastsMs }: { readonly seed: number; readonly lastsMs: number },
  counts: Record<Counted, number>
): Promise<Heal> {
  target.random = generator(seed)
  const count = fault.counts?.of(target, lastsMs) ?? 0
  target.random = generator(seed)
  const heal = await fault.begin(target)
  if (fault.counts !== undefined) counts[fault.counts.as] += count
  return heal
}

/** A heal that does it once, however often it is called; all callers wait for that. */
export function once(heal: Heal): Heal {
  let done: Promise<void> | undefined
  return () => (done ??= heal())
}

/** Undoes all, the newest first, also where one cannot be undone: then it rejects with the first reason, at the end. */
export function all(heals: readonly Heal[]): Heal {
  return once(async () => {
    const failed: unknown[] = []
    for (const heal of heals.toReversed()) await heal().catch((error: unknown) => failed.push(error))
    if (failed.length > 0) throw failed[0]
  })
}

/** Nothing to undo: what was done is over, and the rest is the peers' business. */
export const nothing: Heal = () => Promise.resolve()
