/**
 * Who keeps a group: of all peers the one that does what it needs done once, and that no VM of it does. These are copies to the
 * second home, drills of its schedule, word of missing columns, and the release of what readers held that are gone. Each peer finds
 * him from the group's record, from whom it takes to be alive, and from who stores: nothing is agreed for it.
 *
 * He is the owner of the first VM, whose host is at the group's epochs anyway. Where that one is dead the group is taken over, and
 * there is another soon; but a group that rests is left as it is, and one that nobody has room for, too. So the next owner that lives
 * keeps it meanwhile, and a group that rests, whose owners are all gone, falls to any member that stores.
 *
 * **Two keepers, or none.** What two peers hold of a third may differ for a moment, and longer where the network between some is cut. So whatever
 * a keeper does must bear that another does it at the same time; each who asks says in its own essay why it does.
 */
import { createHash } from 'node:crypto'
import type { PeerId } from './core.ts'
import type { GroupRecord } from './group.ts'

export interface Seen {
  /** Members that are not held for dead, oneself included. */
  readonly alive: readonly PeerId[]
  /** Members that store, and are to go on doing so. */
  readonly hosts: readonly PeerId[]
}

/** Undefined: nobody, until the group is taken over, or a host is back. The same for the same arguments, whatever their order. */
export function keeperOf(record: GroupRecord, { alive, hosts }: Seen): PeerId | undefined {
  const lives = new Set(alive)
  const owner = record.vms.map(({ id }) => record.owners[id]).find(peer => peer !== undefined && lives.has(peer))
  if (owner !== undefined || record.resting !== true) return owner
  let first: { readonly peer: PeerId; readonly rank: string } | undefined
  for (const peer of hosts) {
    if (!lives.has(peer)) continue
    const rank = rankOf(record.id, peer)
    if (first === undefined || rank < first.rank) first = { peer, rank }
  }
  return first?.peer
}

/** Rendezvous hashing (Thaler and Ravishankar, 1998): who leaves passes on his groups, spread over all, and nobody else's move. */
const rankOf = (group: string, peer: PeerId): string => createHash('sha256').update(`${group}\n${peer}`).digest('hex')
