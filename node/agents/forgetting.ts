/**
 * Ends what is left of removed groups: when all who were away for a while have had time to learn of a removal, the floor of
 * the numbers of new groups is raised above the group's, and then its register is deleted. In this order, so that whoever
 * finds no register and reads the floor afterwards makes a group of that name with numbers that were never used.
 */
import type { PeerId } from '../../protocols/core.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import { raiseGroupFloor } from '../../protocols/membership/changes.ts'
import { messageOf } from '../errors.ts'
import type { Clock, FailureDetector, Log, Registers } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'
import type { MembershipAgent } from './membership.ts'

/** The peer of rank r begins r × this later, so that usually one acts. A guess: two compare-and-sets on a busy host. */
const RANK_STEP_MS = 1_000
/** After a failure: there is no hurry. A guess. */
const RETRY_MS = 30_000

export interface ForgettingDeps {
  readonly self: PeerId
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
  readonly registers: Pick<Registers, 'delete'>
  readonly detector: FailureDetector
  readonly clock: Clock
  readonly log: Log
  readonly forgetRemovedMs: number
}

export class Forgetting {
  readonly #deps: ForgettingDeps
  /** Groups that wait for their turn, with the version of the record that they wait with. */
  readonly #waiting = new Map<string, { readonly version: number; cancel(): void }>()
  #stopped = false

  constructor(deps: ForgettingDeps) {
    this.#deps = deps
    deps.directory.onRecord(record => {
      if (record.removed) this.#later(record, deps.forgetRemovedMs)
    })
    deps.membership.onChange((record, before) => {
      if (record.groupFloor > before.groupFloor) deps.directory.recheck()
    })
  }

  stop(): void {
    this.#stopped = true
  }

  /** A newer record waits from its own begin on: it may be that of a name that is taken for an import. */
  #later({ id, version }: GroupRecord, ms: number): void {
    const waiting = this.#waiting.get(id)
    if (waiting !== undefined && waiting.version >= version) return
    waiting?.cancel()
    const { detector, self, clock } = this.#deps
    const rank = Math.max(0, detector.alive().indexOf(self))
    const cancel = clock.after(ms + rank * RANK_STEP_MS, () => {
      this.#waiting.delete(id)
      const record = this.#deps.directory.get(id)
      if (this.#stopped || record?.removed !== true) return // forgotten by another, or made again
      this.#forget(record).catch((error: unknown) => {
        this.#deps.log.info({ group: id, error: messageOf(error) }, 'a removed group could not be forgotten yet')
        this.#later(record, RETRY_MS)
      })
    })
    this.#waiting.set(id, { version, cancel })
  }

  async #forget({ id, version, generation, lastEpoch }: GroupRecord): Promise<void> {
    const { membership, registers, directory, log } = this.#deps
    const { groupFloor } = await membership.change(raiseGroupFloor(Math.max(version, generation, lastEpoch)))
    const deleted = await registers.delete(groupKey(id), {
      only: current => {
        const record = parseGroupRecord(current)
        // A newer one has its own wait, wherever the floor is because of other groups.
        return record?.removed === true && record.version <= version
      },
      fence: current => [...new Set(Object.values(parseGroupRecord(current)?.owners ?? {}))]
    })
    log.debug({ group: id, groupFloor, deleted }, 'forgot a removed group')
    await directory.refresh(id) // null: it goes from the directory; else it has been made again
  }
}
