/**
 * What is noted about where VMs run: one fact for each thing that moved a VM, kept it where it is, or stood in the way.
 * Facts are plain data, small, and hold nothing secret: names, ids, numbers and the texts of errors. They come from disk
 * and from other peers, so `parseEntry` takes nothing else.
 *
 * A fact has a *subject*: a member (is it alive?), a group (who owns it?) or one VM (does it run?). `why VM` shows the
 * VM's own, its group's, and those of every member that owned a VM of the group, since a group goes back as a whole.
 */
import { z } from 'zod'
import { groupNameSchema, MAX_GROUP_VMS } from '../../config/vm.ts'

/** Longest text of an error or a reason; `brief` cuts what is longer. */
export const MAX_TEXT = 300
/** Voters, helpers or hosts in one list. As many as a cluster may have members (config/schema.ts). */
const MAX_PEERS = 100
/** Of the hosts that a VM could have gone to, the best are told. A guess: what a person reads. */
export const MAX_ROOM = 5

const peer = z.string().min(1).max(100)
// Types alone say that nobody changes these: zod's readonly freezes also what it refused, and throws at binary values.
const peers: z.ZodType<readonly string[]> = z.array(peer).max(MAX_PEERS)
const name = groupNameSchema
const names: z.ZodType<readonly string[]> = z.array(name).max(MAX_GROUP_VMS)
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const ms = z.number().min(0).max(1e13)
const text = z.string().max(MAX_TEXT)
const owners = z.record(name, peer).refine(map => Object.keys(map).length <= MAX_GROUP_VMS)

/** What a voter answered to a ballot (register/trace.ts); 'silent': nothing within the round. */
export const VOTES = ['promised', 'accepted', 'state', 'leased', 'conflict', 'stale', 'silent'] as const
export type Vote = (typeof VOTES)[number]

/**
 * What counted between the host of a VM and the best other. only-host: there was no other. room: no other had room. others: another
 * was better for it alone, and not for all. told: the other had not said how much memory it gives. standby: a copy was kept ready.
 * name: nothing, so the first by name.
 */
export const GROUNDS = [
  'only-host',
  'room',
  'others',
  'apart',
  'told',
  'standby',
  'fullness',
  'columns',
  'name'
] as const
export type Ground = (typeof GROUNDS)[number]

const about = { group: name, generation: count }

/** Of a member. `peer` is whom it is about; who tells it is known by whose log it stands in. */
const memberFacts = [
  /** `by` suspects `peer`: where that is the teller itself, `why` says which probe failed. Dead in `deadInMs` at the latest. */
  z.strictObject({ kind: z.literal('suspected'), peer, by: peer, why: text, deadInMs: ms }),
  /** `by` suspects it as well: dead in `deadInMs`. */
  z.strictObject({ kind: z.literal('confirmed'), peer, by: peer, deadInMs: ms }),
  /** It has said itself that it is alive, `afterMs` after it was `was`. */
  z.strictObject({ kind: z.literal('refuted'), peer, was: z.enum(['suspect', 'dead']), afterMs: ms }),
  /** By `by`, because nobody heard a refutation within `afterMs` from those who suspected it. */
  z.strictObject({ kind: z.literal('declared-dead'), peer, by: peer, suspectedBy: peers, afterMs: ms }),
  /** The teller itself was `accused` of it, and has refuted. */
  z.strictObject({ kind: z.literal('accused'), peer, by: peer, of: z.enum(['suspect', 'dead']) }),
  /** The teller's process began. All VMs of an earlier process of it are dead by then. */
  z.strictObject({ kind: z.literal('peer-started'), peer, version: z.string().max(50) }),
  z.strictObject({ kind: z.literal('peer-stopped'), peer })
] as const

const groupFacts = [
  /**
   * A generation that was decided. `epoch`: what it goes back to, 0 for a boot. `displaced`: VM → the owner before. 'heard': the
   * teller had heard nothing of the group before, so it cannot tell what changed, or when. 'rests': no VM runs until people say so.
   */
  z.strictObject({
    kind: z.literal('generation'),
    ...about,
    epoch: count,
    owners,
    displaced: owners,
    how: z.enum(['made', 'changed', 'removed', 'heard', 'rests'])
  }),
  /** Owners of `lost` are dead: the teller will try a takeover in `waitMs`, others of a lower rank before it. */
  z.strictObject({ kind: z.literal('takeover-due'), ...about, lost: names, dead: peers, rank: count, waitMs: ms }),
  /** The plan for the generation after `generation`. `moves`: where each VM goes that has no living host, and why there. */
  z.strictObject({
    kind: z.literal('plan'),
    ...about,
    owners,
    moves: z
      .array(
        z.strictObject({
          vm: name,
          to: peer,
          memoryMiB: count,
          /** What counted (`node/planning/restore-owners.ts`). Absent: nobody noted it. */
          ground: z.enum(GROUNDS).optional(),
          /** MiB of RAM promised to VMs so far, on the hosts with the least. */
          promised: z.array(z.strictObject({ peer, memoryMiB: count })).max(MAX_ROOM)
        })
      )
      .max(MAX_GROUP_VMS)
  }),
  /** A change of the group's register: its last ballot, what each voter answered to that, and what came of it. */
  z.strictObject({
    kind: z.literal('ballot'),
    group: name,
    /** 0, and no votes, where it came to no ballot. */
    counter: count,
    outcome: z.enum(['chosen', 'learned', 'leased', 'conflict', 'unavailable', 'rejected']),
    rounds: count,
    tookMs: ms,
    votes: z.array(z.strictObject({ peer, vote: z.enum(VOTES), leaseMs: ms.optional() })).max(MAX_PEERS)
  }),
  /** No takeover yet: the next try is in `retryMs`. */
  z.strictObject({
    kind: z.literal('takeover-waits'),
    ...about,
    why: z.enum(['lease', 'no-majority', 'contended', 'no-host', 'error']),
    retryMs: ms,
    text
  }),
  /** 'not-needed': nobody who owns a VM of the group is dead any more. 'other-plan': somebody else's was decided. */
  z.strictObject({
    kind: z.literal('takeover-ended'),
    ...about,
    outcome: z.enum(['decided', 'other-plan', 'not-needed'])
  }),
  /** Of the teller, under this generation. `leftMs`: for how long it may act; of many renewals the least that was left. */
  z.strictObject({
    kind: z.literal('lease'),
    ...about,
    event: z.enum(['granted', 'renewed', 'lapsing', 'regained', 'lost']),
    leftMs: ms,
    /** Voters that have granted it. */
    granted: peers,
    /** VMs that were paused or go on by this. */
    vms: names,
    /** The generation that ended it; 0 where none did. */
    newer: count
  }),
  /** A VM has ended or did not start. */
  z.strictObject({ kind: z.literal('vm-failed'), ...about, vm: name, why: text }),
  /** The teller asks for a new generation in `waitMs`, because of a VM that failed, because its process began anew, or by hand. */
  z.strictObject({
    kind: z.literal('restart-due'),
    ...about,
    why: z.enum(['vm-failed', 'peer-restarted', 'by-hand']),
    waitMs: ms,
    failures: count
  }),
  /** It could not be asked for yet. */
  z.strictObject({ kind: z.literal('restart-waits'), ...about, text }),
  /** It gives its VMs to other hosts, having failed to run them so often. */
  z.strictObject({ kind: z.literal('gives-up'), ...about, failures: count })
] as const

const vmFacts = [
  /** 'booted', 'resumed' from `epoch`; 'complete': its last page has come; 'ended' by the teller. */
  z.strictObject({
    kind: z.literal('vm'),
    ...about,
    vm: name,
    event: z.enum(['booted', 'resumed', 'complete', 'ended']),
    epoch: count,
    tookMs: ms
  })
] as const

export const factSchema = z.discriminatedUnion('kind', [...memberFacts, ...groupFacts, ...vmFacts])
export type Fact = z.output<typeof factSchema>
export type FactOf<Kind extends Fact['kind']> = Extract<Fact, { kind: Kind }>

/** Whoever knows a reason gives it to a function of this type; it returns at once and never throws. */
export type Note = (fact: Fact) => void

/** A fact as one peer noted it. */
export const entrySchema = z.strictObject({
  /** Grows with every entry of this peer, across restarts: its own order, whatever its wall clock did. */
  seq: count,
  /** The teller's wall clock, when it was noted first and last. */
  atMs: ms,
  lastAtMs: ms,
  /** How often the same was noted from `atMs` to `lastAtMs`. */
  times: count,
  fact: factSchema
})
export type Entry = z.output<typeof entrySchema>

/** An entry and the peer in whose log it stands. */
export interface Told extends Entry {
  readonly by: string
}

/** Throws on anything that is not an entry within the limits. */
export const parseEntry = (raw: unknown): Entry => entrySchema.parse(raw)

export const memberSubject = (id: string): string => `peer/${id}`
export const groupSubject = (group: string): string => `group/${group}`
export const vmSubject = (group: string, vm: string): string => `vm/${group}/${vm}`

/** Under which subject a fact is kept. Names of groups and VMs have no slash. */
export function subjectOf(fact: Fact): string {
  if (fact.kind === 'vm') return vmSubject(fact.group, fact.vm)
  return 'group' in fact ? groupSubject(fact.group) : memberSubject(fact.peer)
}

/** Any text, cut to what a fact may hold. */
export const brief = (long: string): string => (long.length <= MAX_TEXT ? long : `${long.slice(0, MAX_TEXT - 1)}…`)
