/** Answers those who come with an invitation, and tells who was removed that it was: the cluster's register decides, its answer carries all that a member needs. */
import type { PeerId } from '../../protocols/core.ts'
import { admit } from '../../protocols/membership/changes.ts'
import {
  encodeJoinReply,
  type JoinReply,
  type JoinRequest,
  joinProof,
  judgeJoin,
  parseJoinRequest
} from '../../protocols/membership/join.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Log } from '../ports.ts'
import type { MembershipAgent } from './membership.ts'

export interface JoinsDeps {
  readonly membership: Pick<MembershipAgent, 'record' | 'refresh' | 'change'>
  /** Of the cluster; undefined where this peer was not given it, because there were other data keys by then. */
  readonly secret: Uint8Array | undefined
  readonly settings: Readonly<Record<string, unknown>>
  readonly log: Log
  wallMs(): number
  /** Whether `signature` of `bytes` was made with the key of `id`. */
  verify(id: PeerId, bytes: Uint8Array, signature: Uint8Array): Promise<boolean>
}

/** `invite`: the key that the connection was proven with: of an invitation, or of a removed peer. Never rejects. */
export async function answerJoin(deps: JoinsDeps, invite: PeerId, bytes: Uint8Array): Promise<Uint8Array> {
  // It asks under its own identity, whatever it sends, and is told this alone (`removal-news.ts`).
  if (deps.membership.record().removed.includes(invite)) {
    return encodeJoinReply({
      kind: 'refused',
      code: 'MEMBER_REMOVED',
      message: `${invite} was removed from the cluster`
    })
  }
  let reply: JoinReply
  try {
    reply = await judge(deps, invite, parseJoinRequest(bytes))
  } catch (error) {
    const code = error instanceof DiapauseError ? error.code : 'JOIN_FAILED'
    reply = { kind: 'refused', code, message: messageOf(error).slice(0, 1_000) }
  }
  if (reply.kind === 'refused') deps.log.warn({ invite, code: reply.code, why: reply.message }, 'refused a newcomer')
  return encodeJoinReply(reply)
}

async function judge(deps: JoinsDeps, invite: PeerId, request: JoinRequest): Promise<JoinReply> {
  const { membership, secret, settings, verify } = deps
  const { id, signature } = request
  if (!(await verify(id, joinProof(request.cluster, invite, id), signature))) {
    throw new DiapauseError('JOIN_SIGNATURE', `the newcomer does not hold the key of ${id}`)
  }
  const verdictOf = (record: ClusterRecord) => judgeJoin(record, invite, request, deps.wallMs())
  let record = await membership.refresh()
  if (verdictOf(record).kind === 'admit') {
    record = await membership.change(current => {
      const verdict = verdictOf(current)
      return verdict.kind === 'admit' ? admit(verdict.invite, request)(current) : undefined
    })
  }
  const verdict = verdictOf(record)
  if (verdict.kind === 'admitted') {
    // Storage members are given the data keys when they run, and witnesses none.
    const given = record.keys === undefined && secret !== undefined ? { secret } : {}
    return { kind: 'welcome', record, settings, ...given }
  }
  if (verdict.kind === 'refuse') return { ...verdict, kind: 'refused' }
  throw new DiapauseError('JOIN_FAILED', 'the cluster changed at this moment: try again')
}
