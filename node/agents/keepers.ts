/**
 * Who keeps which group (`protocols/keeper.ts`), as this peer sees it now; and word of it whenever that may be another.
 *
 * A peer that reaches no majority of the voters knows of nobody else's death: to it, all that it does not hear are dead, and it would
 * be the keeper of everything. It goes by the owner of the first VM alone, alive or not.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { keeperOf } from '../../protocols/keeper.ts'
import { type ClusterRecord, placeable } from '../../protocols/membership/record.ts'
import type { FailureDetector, Membership } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'

export interface KeepersDeps {
  readonly self: PeerId
  readonly directory: Pick<GroupDirectory, 'onRecord' | 'all'>
  readonly detector: Pick<FailureDetector, 'alive' | 'onChange'>
  readonly membership: { record(): ClusterRecord } & Pick<Membership, 'onChange'>
}

export class Keepers {
  readonly #deps: KeepersDeps

  constructor(deps: KeepersDeps) {
    this.#deps = deps
  }

  of(record: GroupRecord): PeerId | undefined {
    const { detector, membership } = this.#deps
    const cluster = membership.record()
    const { voters } = cluster
    const alive = new Set(detector.alive())
    const reached = voters.ids.filter(voter => alive.has(voter)).length
    if (2 * reached <= voters.ids.length) return record.owners[record.vms[0]?.id ?? '']
    const members = cluster.members.map(({ id }) => id)
    return keeperOf(record, { alive: members.filter(id => alive.has(id)), hosts: placeable(cluster) })
  }

  isOurs(record: GroupRecord): boolean {
    return this.of(record) === this.#deps.self
  }

  /** Called with each group that there is, each new record of one, and again when anybody has died, is back, has come or gone. */
  follow(handler: (record: GroupRecord) => void): void {
    const { directory, detector, membership } = this.#deps
    const again = (): void => directory.all().forEach(handler)
    directory.onRecord(handler)
    detector.onChange(again)
    membership.onChange(again)
    again()
  }
}
