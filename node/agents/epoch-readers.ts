/**
 * Epochs that this peer reads, for a copy or an export: each is held in the group's record meanwhile. What nobody reads any more
 * is released as soon as the group's record is seen: the peer died over it, its register did not answer, its host left. Holds of
 * removed members are released by the group's keeper; should two do it, the second finds nothing to release (`releaseEpoch`).
 */
import type { PeerId } from '../../protocols/core.ts'
import { holdEpoch, releaseEpoch } from '../../protocols/epoch/kept.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { Keepers } from './keepers.ts'

export interface EpochReadersDeps {
  readonly self: PeerId
  /** Of this run of the peer: what an earlier one held is over. */
  readonly run: string
  /** What reads, one word: each kind in a run knows its own holds only. */
  readonly kind: string
  readonly directory: Pick<GroupDirectory, 'change'>
  readonly keepers: Pick<Keepers, 'isOurs' | 'follow'>
  readonly membership: { record(): ClusterRecord }
  readonly log: Log
}

export interface Reading {
  /** The record with the hold in it, or, where there could be none, without. */
  readonly record: GroupRecord | null
  /** Undefined: it is not held. Never rejects. */
  readonly release: (() => Promise<void>) | undefined
}

export class EpochReaders {
  readonly #deps: EpochReadersDeps
  /** Words of the holds that are in use. */
  readonly #used = new Set<string>()
  /** Words that are being released because nobody uses them. */
  readonly #releasing = new Set<string>()
  #count = 0

  constructor(deps: EpochReadersDeps) {
    this.#deps = deps
    deps.keepers.follow(record => this.#tidy(record))
  }

  /** A VM's image of a kept epoch, or (`vm` undefined) those of all, until `release`. REGISTER_UNAVAILABLE. */
  async hold(group: string, epoch: number, vm?: string): Promise<Reading> {
    const { self, run, kind, directory } = this.#deps
    const by = `${self} ${run} ${kind} ${++this.#count}`
    this.#used.add(by)
    let record: GroupRecord | null
    try {
      record = await directory.change(
        group,
        holdEpoch(epoch, vm, by, other => this.#isOver(other))
      )
    } catch (error) {
      this.#used.delete(by) // it may have been written all the same: then the next record tells
      throw error
    }
    if (record?.held?.some(each => each.by === by) === true) {
      return { record, release: () => this.#release(group, by) }
    }
    this.#used.delete(by)
    return { record, release: undefined }
  }

  async #release(group: string, by: string): Promise<void> {
    const { directory, log } = this.#deps
    try {
      await directory.change(group, releaseEpoch(by))
    } catch (error) {
      log.warn({ group, error: messageOf(error) }, 'an epoch that was read stays until the next change of its group')
    } finally {
      this.#used.delete(by)
    }
  }

  #isOver(by: string): boolean {
    const { self, run, kind, membership } = this.#deps
    if (by.startsWith(`${self} ${run} ${kind} `)) return !this.#used.has(by)
    if (by.startsWith(`${self} `)) return !by.startsWith(`${self} ${run} `)
    return membership.record().removed.some(peer => by.startsWith(`${peer} `))
  }

  #tidy(record: GroupRecord): void {
    const { self, keepers } = this.#deps
    const { id, held = [] } = record
    if (held.length === 0) return
    const isOurs = keepers.isOurs(record)
    for (const { by } of held) {
      if (!this.#isOver(by) || this.#releasing.has(by)) continue
      if (!isOurs && !by.startsWith(`${self} `)) continue
      this.#releasing.add(by)
      void this.#release(id, by).finally(() => this.#releasing.delete(by))
    }
  }
}
