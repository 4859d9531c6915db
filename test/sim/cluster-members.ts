/** Members that come and go, and votes that are wished away and back, while all else happens. */
import { addInvite, admit, wishLeave, wishVotes } from '../../protocols/membership/changes.ts'
import { type ClusterRecord, memberById, wantedVoters } from '../../protocols/membership/record.ts'
import type { SimPeer } from './cluster-peer.ts'
import type { Kernel } from './kernel.ts'
import type { Host } from './world-host.ts'

/** As few as may vote, so that one may be away. */
const FEWEST_VOTERS = 3
/** As few as may store, so that what they hold outlives one of them. */
const FEWEST_STORES = 4
/** By any wall clock, whatever its jumps. */
const INVITED_MS = 1e9

export interface ChangingWorld {
  readonly kernel: Kernel
  /** A host that is no member at first, if there is one. */
  readonly spare: Host | undefined
  /** What the voters have chosen. */
  cluster(): ClusterRecord
  start(host: Host): void
}

export function wishForVotes({ kernel, cluster }: ChangingWorld, peer: SimPeer): void {
  const record = cluster()
  const member = kernel.pick(record.members)
  if (member.votes && wantedVoters(record).length <= FEWEST_VOTERS) return
  peer.membership.change(wishVotes(member.id, !member.votes)).catch(() => {})
}

export function joinSpare({ kernel, spare, start }: ChangingWorld, peer: SimPeer): void {
  if (spare === undefined || spare.life !== undefined || spare.disk.cluster !== undefined) return
  const { membership } = peer
  const expiresMs = spare.wallMs() + INVITED_MS
  const invite = { id: 'invitation', role: 'storage', votes: kernel.chance(0.5), expiresMs } as const
  const newcomer = { id: spare.name, name: spare.name, address: '/ip4/10.0.0.99/tcp/7400' }
  membership
    .change(addInvite(invite))
    .then(() => membership.change(admit(invite, newcomer)))
    .then(record => {
      if (memberById(record, spare.name) === undefined || spare.life !== undefined) return
      spare.disk.cluster = record
      start(spare)
    })
    .catch(() => {})
}

/** One of many only, since nobody repairs what it takes with it. */
export function leave({ kernel, cluster }: ChangingWorld, peer: SimPeer): void {
  const { members, removed } = cluster()
  const stores = members.filter(member => member.role === 'storage' && !member.leaving)
  if (removed.length > 0 || members.some(member => member.leaving) || stores.length <= FEWEST_STORES) return
  peer.membership.change(wishLeave(kernel.pick(members).id, kernel.chance(0.5))).catch(() => {})
}

/** What people do in the end: who leaves gives up its VMs, and a newcomer that has not heard that it was let in asks again. */
export function helpMembers({ cluster, spare, start }: ChangingWorld, peer: SimPeer | undefined): void {
  const record = cluster()
  for (const { id, leaving, forced } of record.members) {
    if (leaving && !forced) peer?.membership.change(wishLeave(id, true)).catch(() => {})
  }
  if (spare === undefined || memberById(record, spare.name) === undefined) return
  spare.disk.cluster ??= record
  start(spare)
}
