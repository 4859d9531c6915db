/**
 * Sees what people are to be told of: what a peer reports, what becomes of groups, and, looked at again and again, states that
 * nobody reports: members that stay dead, a majority that is out of reach, images that bear fewer losses than they should.
 *
 * The redundancy of a group is looked at by its keeper (`keepers.ts`), as its copies and drills are that one's business: what others
 * know of it is as good, but not known at the same time. Should two tell of it, it is one notice all the same: it has one key at both
 * (`protocols/notifications/core.ts`).
 */
import type { NoticeKind } from '../../config/notices.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { NoticeInput } from '../../protocols/notifications/core.ts'
import type { NoticeState } from '../../protocols/notifications/messages.ts'
import { noticeOfReport, notice, noticesOfRecord } from '../planning/notices.ts'
import type { Clock, FailureDetector } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { Keepers } from './keepers.ts'

/** A guess: soon for a person, and seldom for a peer. */
const LOOK_EVERY_MS = 2_000
/** A member is told to be dead, or a majority to be away, when it has lasted so long: a peer that is restarted takes less. A guess. */
const LASTS_MS = 10_000

export interface Exposed {
  readonly group: string
  /** Members, whichever, that may vanish without loss; below 0: it cannot be read now. */
  readonly tolerates: number
  readonly missing: number
}

export interface NoticeWatchDeps {
  readonly self: PeerId
  readonly directory: Pick<GroupDirectory, 'all' | 'onRecord'>
  readonly detector: Pick<FailureDetector, 'livenessOf'>
  readonly keepers: Pick<Keepers, 'isOurs'>
  readonly members: () => readonly PeerId[]
  readonly voters: () => readonly PeerId[]
  readonly nameOf: (peer: PeerId) => string
  /** As this peer saw it when it last looked; undefined where it has not, or stores nothing. */
  readonly exposed: () => readonly Exposed[] | undefined
  /** `repair.checkEveryMs`: columns that come a little later are no news. */
  readonly checkEveryMs: number
  readonly clock: Clock
  readonly wallMs: () => number
  readonly tell: (input: Extract<NoticeInput, { kind: 'notice' }>) => void
}

export class NoticeWatch {
  readonly #deps: NoticeWatchDeps
  readonly #records = new Map<string, GroupRecord>()
  /** Of states that are looked at: since when they are as they are, and what was said last, by what they are of. */
  readonly #since = new Map<string, number>()
  readonly #said = new Map<string, NoticeState>()
  /** Members that do not answer, by their names: who is removed has none any more. */
  readonly #dead = new Map<PeerId, string>()
  #cancel: () => void = () => {}
  #stopped = false

  constructor(deps: NoticeWatchDeps) {
    this.#deps = deps
    for (const record of deps.directory.all()) this.#records.set(record.id, record)
    deps.directory.onRecord(record => this.#onRecord(record))
  }

  start(): void {
    this.#look()
  }

  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  onReport(kind: string, fields: Readonly<Record<string, unknown>>): void {
    const { self, nameOf, wallMs, tell } = this.#deps
    const savedEpochOf = (group: string): number | undefined => this.#records.get(group)?.committed?.epoch
    const seen = noticeOfReport(kind, fields, { atMs: wallMs(), self: nameOf(self), savedEpochOf })
    if (seen !== undefined) tell({ kind: 'notice', ...seen })
  }

  #onRecord(record: GroupRecord): void {
    const { detector, members, nameOf, wallMs, tell } = this.#deps
    const before = this.#records.get(record.id)
    this.#records.set(record.id, record)
    if (record.removed) this.#records.delete(record.id)
    if (before === undefined) return
    const isLost = (peer: PeerId): boolean => !members().includes(peer) || detector.livenessOf(peer) === 'dead'
    for (const seen of noticesOfRecord(before, record, { atMs: wallMs(), nameOf, isLost })) {
      tell({ kind: 'notice', ...seen })
    }
  }

  #look(): void {
    if (this.#stopped) return
    this.#lookAtMembers()
    this.#lookAtImages()
    this.#cancel = this.#deps.clock.after(LOOK_EVERY_MS, () => this.#look())
  }

  /** A peer without a majority is alone, as far as it knows: what it thinks of the others is one thing to say, not many. */
  #lookAtMembers(): void {
    const { self, detector, members, voters, nameOf } = this.#deps
    const there = voters().filter(peer => detector.livenessOf(peer) !== 'dead').length
    const hasMajority = there * 2 > voters().length
    const name = nameOf(self)
    const cut = `${name} reaches ${there} of ${voters().length} voters: here no VM runs and nothing is decided until it reaches more.`
    this.#state('no-majority', [], !hasMajority, LASTS_MS, hasMajority ? `${name} reaches a majority again.` : cut, {})
    for (const peer of members()) {
      const isDead = detector.livenessOf(peer) === 'dead'
      if (isDead && !hasMajority) continue
      const member = nameOf(peer)
      if (isDead) this.#dead.set(peer, member)
      else this.#dead.delete(peer)
      const text = isDead
        ? `Member ${member} does not answer: its VMs are taken over, and what it stores is rebuilt when it stays away.`
        : `Member ${member} is back.`
      this.#state('member-dead', [peer], isDead, LASTS_MS, text, { member })
    }
    for (const [peer, member] of this.#dead) {
      if (members().includes(peer)) continue
      this.#state('member-dead', [peer], false, 0, `Member ${member} was removed.`, { member })
      this.#forget('member-dead', [peer])
      this.#dead.delete(peer)
    }
  }

  #lookAtImages(): void {
    const { keepers, directory, exposed, checkEveryMs } = this.#deps
    const all = exposed()
    if (all === undefined) return
    for (const record of directory.all()) {
      const { id: group, removed } = record
      if (removed || !keepers.isOurs(record)) {
        this.#forget('low-redundancy', [group])
        continue
      }
      const own = all.filter(image => image.group === group)
      const least = Math.min(...own.map(({ tolerates }) => tolerates))
      const missing = own.reduce((sum, image) => sum + image.missing, 0)
      const bears =
        least < 0
          ? 'some snapshots cannot be read now'
          : `the next loss of ${least + 1} member${least === 0 ? '' : 's'} may lose a snapshot`
      const text =
        own.length === 0
          ? `Snapshots of group ${group} are stored as safely as they should again.`
          : `Snapshots of group ${group} are stored less safely than they should: ${missing} columns are missing; ${bears}. (diapause verify ${group})`
      // Two looks that see it: columns that come after their epoch was committed, or are being rebuilt, take less.
      const lastsMs = least < 0 ? 0 : 2 * checkEveryMs
      this.#state('low-redundancy', [group], own.length > 0, lastsMs, text, { group })
    }
  }

  #state(
    kind: NoticeKind,
    which: readonly string[],
    is: boolean,
    lastsMs: number,
    text: string,
    about: { readonly group?: string; readonly member?: string }
  ): void {
    const { clock, wallMs, tell } = this.#deps
    const name = [kind, ...which].join('/')
    const state = is ? 'begun' : 'ended'
    if (this.#said.get(name) === state) {
      this.#since.delete(name)
      return
    }
    const since = this.#since.get(name) ?? clock.now()
    this.#since.set(name, since)
    if (is && clock.now() - since < lastsMs) return
    this.#said.set(name, state)
    this.#since.delete(name)
    tell({ kind: 'notice', notice: notice({ kind, state, which, text, ...about }, wallMs()), alone: group(kind) })
  }

  /** It is somebody else's to look at now, or nobody's: what this peer said of it last is no longer its business. */
  #forget(kind: NoticeKind, which: readonly string[]): void {
    const name = [kind, ...which].join('/')
    this.#since.delete(name)
    this.#said.delete(name)
  }
}

/** Members are seen by all, the images of a group by one. */
const group = (kind: NoticeKind): boolean => kind === 'low-redundancy'
