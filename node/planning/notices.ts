/**
 * What people are told of: made of the records of groups, of what a peer reports, and of what it sees. Pure, and the same at all
 * peers that see the same: so their notices have the same keys, and one of them is told.
 */
import type { NoticeKind } from '../../config/notices.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { MAX_KEY, MAX_TEXT, type Notice, type NoticeState } from '../../protocols/notifications/messages.ts'

export interface NoticeFacts {
  readonly atMs: number
  nameOf(peer: PeerId): string
  /** Dead, or no member any more. */
  isLost(peer: PeerId): boolean
}

/** Of a report of this peer: `alone` where no other peer sees it. */
export interface Seen {
  readonly notice: Notice
  readonly alone: boolean
  readonly holdMs?: number
}

/** What was told to be so may come again at once at another owner. A guess: objectives are looked at every two seconds. */
const SETTLES_MS = 30_000

interface About {
  readonly kind: NoticeKind
  readonly state: NoticeState
  /** After the kind, what tells it from others of the kind. */
  readonly which: readonly (string | number)[]
  readonly text: string
  readonly group?: string | undefined
  readonly vm?: string | undefined
  readonly member?: string | undefined
}

export function notice({ which, text, ...about }: About, atMs: number): Notice {
  const key = [about.kind, ...which].join('/').slice(0, MAX_KEY)
  const given = Object.fromEntries(Object.entries(about).filter(([, value]) => value !== undefined))
  return { ...(given as typeof about), key, text: brief(text), atMs }
}

/** What the change of a group from one record to a later one is to people. */
export function noticesOfRecord(before: GroupRecord, after: GroupRecord, facts: NoticeFacts): Seen[] {
  const { id: group } = after
  const { atMs } = facts
  const seen: Seen[] = []
  const add = (about: Omit<About, 'group'>, holdMs = 0): void => {
    seen.push({ notice: notice({ ...about, group }, atMs), alone: false, holdMs })
  }
  const ends = (kind: NoticeKind, text: string): void => add({ kind, state: 'ended', which: [group], text })
  if (after.removed) {
    for (const kind of ['no-host', 'epoch-failed', 'low-redundancy', 'home-failed'] as const) {
      ends(kind, `Group ${group} was removed.`)
    }
    return seen
  }
  const rests = after.resting ? `Group ${group} rests.` : undefined
  const isSaved = (after.committed?.epoch ?? 0) > (before.committed?.epoch ?? 0)
  if (after.generation > before.generation) {
    // Who stops a group, or starts it, is there.
    if (!after.resting && !before.resting) add(restart(before, after, facts))
    ends('no-host', rests ?? `Group ${group} has hosts again.`)
    // An epoch that failed is not tried again. One that was committed for the rest is told below.
    if (rests !== undefined && !isSaved) ends('epoch-failed', rests)
    for (const { id: vm } of before.vms) {
      for (const objective of ['backMs', 'lossMs'] as const) {
        const text = rests ?? `${vm} of group ${group} keeps its objective again.`
        add({ kind: 'objective-missed', state: 'ended', which: [group, vm, objective], text, vm }, SETTLES_MS)
      }
    }
  }
  if (isSaved) {
    ends('epoch-failed', `Group ${group} is saved again: snapshot ${after.committed?.epoch ?? 0}.`)
  }
  const drill = after.drills?.last
  if (drill?.failed !== undefined && drill.atMs !== before.drills?.last?.atMs) {
    const why = `${drill.failed} It was run by ${facts.nameOf(drill.by)}.`
    const text = `A drill of group ${group} failed: it might not come back from snapshot ${drill.epoch}. ${why}`
    add({ kind: 'drill-failed', state: 'once', which: [group, drill.atMs], text })
  }
  return seen
}

function restart(before: GroupRecord, after: GroupRecord, { nameOf, isLost }: NoticeFacts): Omit<About, 'group'> {
  const { id: group, generation } = after
  const moved = before.vms.flatMap(({ id }) => (before.owners[id] === after.owners[id] ? [] : [id]))
  const lost = [...new Set(moved.map(vm => before.owners[vm] ?? ''))].filter(isLost)
  const where = moved.map(vm => `${vm} to ${nameOf(after.owners[vm] ?? '')}`).join(', ')
  const epoch = after.committed?.epoch
  const from = epoch === undefined ? 'from their boot, since it has no snapshot yet' : `from snapshot ${epoch}`
  const all = `all its VMs go on ${from}`
  if (lost.length > 0) {
    const text = `Failover of group ${group}: ${lost.map(nameOf).join(', ')} died; ${where}; ${all}.`
    return { kind: 'failover', state: 'once', which: [group, generation], text }
  }
  const moves = moved.length === 0 ? '' : `; ${where}`
  const why = `diapause why ${before.vms[0]?.id ?? 'VM'} says why`
  const text = `Group ${group} went back${moves}: ${all}. (${why})`
  return { kind: 'rollback', state: 'once', which: [group, generation], text }
}

type Fields = Readonly<Record<string, unknown>>

export interface ReportFacts {
  readonly atMs: number
  /** This peer's name. */
  readonly self: string
  /** The committed snapshot of a group; undefined: it has none. */
  savedEpochOf(group: string): number | undefined
}

/** What people are told of a report, if anything. */
export function noticeOfReport(kind: string, fields: Fields, facts: ReportFacts): Seen | undefined {
  const { atMs, self, savedEpochOf } = facts
  const group = text(fields['group'])
  const vm = text(fields['vm'])
  const reason = text(fields['reason'])
  const seen = (about: About, alone: boolean): Seen => ({ notice: notice(about, atMs), alone })
  switch (kind) {
    case 'epoch.aborted': {
      if (reason === TAKEN_OVER) return undefined // what it was taken over for is told
      // Not that it is tried again: one that a person asked for is not.
      const saved = savedEpochOf(group)
      const last = saved === undefined ? 'It has none to go back to.' : `The last one stays ${saved}.`
      const says = `Snapshot ${String(fields['epoch'])} of group ${group} failed: ${reason}. ${last}`
      return seen({ kind: 'epoch-failed', state: 'begun', which: [group], text: says, group }, false)
    }
    case 'takeover.no-host': {
      const says = `Group ${group} lost a host and does not come back: ${reason}.`
      return seen({ kind: 'no-host', state: 'begun', which: [group], text: says, group }, false)
    }
    case 'objective.missed':
    case 'objective.kept':
      return seen(objective(kind === 'objective.missed', fields, group, vm), true)
    case 'scrub.damaged': {
      const stream = text(fields['stream'])
      const says = `${self} found damage in what it stores (${stream}): it is repaired from the others. Is its disk failing?`
      return seen({ kind: 'damage', state: 'once', which: [self, stream], text: says, member: self }, true)
    }
    case 'home.failed':
    case 'home.copied': {
      const failed = kind === 'home.failed'
      const says = failed ? `cannot be copied to the second home: ${reason}` : 'is copied to the second home again.'
      const state = failed ? 'begun' : 'ended'
      return seen({ kind: 'home-failed', state, which: [group], text: `Group ${group} ${says}`, group }, true)
    }
    default:
      return undefined
  }
}

/** As `protocols/epoch/core.ts` words it. */
const TAKEN_OVER = 'the group was taken over'

function objective(missed: boolean, fields: Fields, group: string, vm: string): About {
  const name = text(fields['objective'])
  const what = name === 'backMs' ? 'it would be back after' : 'it would lose'
  const { atMostMs, wouldBeMs } = fields
  const would = typeof wouldBeMs === 'number' ? `${what} ${seconds(wouldBeMs)}` : 'it would not come back'
  const most = typeof atMostMs === 'number' ? `, and may take ${seconds(atMostMs)}` : ''
  const says = missed ? `would miss its objective if its host died now: ${would}${most}.` : 'keeps its objective again.'
  const shown = `${vm} of group ${group} ${says}`
  return {
    kind: 'objective-missed',
    state: missed ? 'begun' : 'ended',
    which: [group, vm, name],
    text: shown,
    group,
    vm
  }
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`
const text = (value: unknown): string => (typeof value === 'string' ? value : '')
const brief = (words: string): string => (words.length <= MAX_TEXT ? words : `${words.slice(0, MAX_TEXT - 1)}…`)
