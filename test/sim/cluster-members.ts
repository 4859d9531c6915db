/** Members that come and go, and votes that are wished away and back, while all else happens. */
import { answerJoin } from '../../node/agents/membership-joins.ts'
import type { Log } from '../../node/ports.ts'
import { addInvite, type Newcomer, wishLeave, wishVotes } from '../../protocols/membership/changes.ts'
import { encodeJoinRequest, parseJoinReply } from '../../protocols/membership/join.ts'
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
const TOKEN = 'invitation'
/** Has no host: where it is let in, people remove it in the end. */
const RIVAL = 'rival'
const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} }

export interface ChangingWorld {
  readonly kernel: Kernel
  /** A host that is no member at first, if there is one. */
  readonly spare: Host | undefined
  /** What the voters have chosen. */
  cluster(): ClusterRecord
  start(host: Host): void
  /** Those that are ready. */
  peers(): readonly SimPeer[]
}

export function wishForVotes({ kernel, cluster }: ChangingWorld, peer: SimPeer): void {
  const record = cluster()
  const member = kernel.pick(record.members)
  if (member.votes && wantedVoters(record).length <= FEWEST_VOTERS) return
  peer.membership.change(wishVotes(member.id, !member.votes)).catch(() => {})
}

/**
 * Somebody is given a token, and comes with it to any member; at times another newcomer comes with the same token to another
 * member. Who has heard no answer asks again.
 */
export function joinSpare(world: ChangingWorld, peer: SimPeer): void {
  const { kernel, spare } = world
  if (spare === undefined || spare.life !== undefined || spare.disk.cluster !== undefined) return
  const expiresMs = spare.wallMs() + INVITED_MS
  const invite = { id: TOKEN, role: 'storage', votes: kernel.chance(0.5), expiresMs } as const
  const rivals = kernel.chance(0.3)
  peer.membership
    .change(addInvite(invite))
    .then(() => {
      if (rivals) void ask(world, { id: RIVAL, name: RIVAL, address: '/ip4/10.0.0.98/tcp/7400' })
      comeIn(world)
    })
    .catch(() => {})
}

function comeIn(world: ChangingWorld): void {
  const { kernel, spare, start } = world
  if (spare === undefined) return
  const heard = kernel.chance(0.7)
  void ask(world, { id: spare.name, name: spare.name, address: '/ip4/10.0.0.99/tcp/7400' }).then(record => {
    if (!heard || record === undefined || spare.life !== undefined) return
    spare.disk.cluster ??= record
    start(spare)
  })
}

/** What the member that is asked answers: the cluster's record, or nothing where it refuses. */
async function ask({ kernel, peers }: ChangingWorld, newcomer: Newcomer): Promise<ClusterRecord | undefined> {
  const asked = kernel.pick(peers()) as SimPeer | undefined
  if (asked === undefined) return undefined
  const { membership, life } = asked
  const request = encodeJoinRequest({ cluster: membership.record().id, ...newcomer, signature: new Uint8Array(64) })
  const deps = { membership, secret: new Uint8Array(32), settings: {}, log: SILENT, verify: async () => true }
  const bytes = await answerJoin({ ...deps, wallMs: () => life.host.wallMs() }, TOKEN, request)
  const reply = parseJoinReply(bytes)
  kernel.note(() => `${life.host.name} answers ${newcomer.id}: ${JSON.stringify({ ...reply, record: '', secret: '' })}`)
  return reply.kind === 'welcome' ? reply.record : undefined
}

/** One of many only, since nobody repairs what it takes with it. */
export function leave({ kernel, cluster }: ChangingWorld, peer: SimPeer): void {
  const { members, removed } = cluster()
  const stores = members.filter(({ id, role, leaving }) => role === 'storage' && !leaving && id !== RIVAL)
  if (removed.length > 0 || members.some(member => member.leaving) || stores.length <= FEWEST_STORES) return
  peer.membership.change(wishLeave(kernel.pick(members).id, kernel.chance(0.5))).catch(() => {})
}

/** What people do in the end: who leaves gives up its VMs, who never came is removed, and a newcomer that has not heard that it was let in asks again. */
export function helpMembers(world: ChangingWorld, peer: SimPeer | undefined): void {
  const { cluster, spare, start } = world
  const record = cluster()
  for (const { id, leaving, forced } of record.members) {
    if ((leaving || id === RIVAL) && !forced) peer?.membership.change(wishLeave(id, true)).catch(() => {})
  }
  if (spare === undefined || memberById(record, spare.name) === undefined || peer === undefined) return
  if (spare.disk.cluster === undefined) comeIn(world)
  else start(spare)
}
