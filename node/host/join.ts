/**
 * `diapause join`: makes this host a member of a cluster with a token that a member has printed. It may be given again with
 * the same data folder when it was interrupted, also where the cluster had admitted this peer already.
 */
import { checkConfig } from '../../config/parse.ts'
import { SHARED_SECTIONS } from '../../config/shared.ts'
import { problemText } from '../../config/words.ts'
import { requestJoin } from '../../protocols/join-channel.ts'
import { encodeJoinRequest, type JoinReply, joinProof, parseJoinReply } from '../../protocols/membership/join.ts'
import { memberById } from '../../protocols/membership/record.ts'
import { decodeToken, type Token } from '../../protocols/membership/token.ts'
import { DiapauseError, hasCode, messageOf, UsageError } from '../errors.ts'
import { wallMs } from './clock.ts'
import { identityFromSeed, loadOrCreateIdentity } from './identity.ts'
import { type MadePeer, type NewPeer, type NewPeerOptions, planNewPeer, writeNewPeer } from './new-peer.ts'

/** For one member: a handshake, and a change of a register on busy hosts, which may take its `giveUpMs` twice. A guess. */
const ASK_TIMEOUT_MS = 20_000

/** Refusals after which another member may do better: this one does not reach a majority just now. */
const PASSING = /^(REGISTER_\w+|JOIN_FAILED)$/

type Welcome = Extract<JoinReply, { kind: 'welcome' }>

/**
 * UsageError TOKEN_INVALID, NEW_PEER_INVALID, NEW_PEER_EXISTS, JOIN_UNREACHABLE, JOIN_REFUSED, or the code and message with
 * which the cluster refused (`judgeJoin`). `waitsFor` gets whom it asks; `tell` a line of what remains to be read.
 */
export async function joinCluster(
  options: NewPeerOptions & { readonly token: string; waitsFor(what: string): void; tell(text: string): void }
): Promise<MadePeer> {
  const token = decodeToken(options.token)
  const peer = await planNewPeer(options, token.cluster.name, token.cluster.id)
  const { privateKey, peerId: id } = await loadOrCreateIdentity(peer.dataDir)
  const invite = await identityFromSeed(token.seed)
  const signature = await privateKey.sign(joinProof(token.cluster.id, invite.peerId, id))
  const { name, address } = peer
  const request = encodeJoinRequest({ cluster: token.cluster.id, id, name, address, signature })
  const welcome = await askAll(token, options, async member =>
    parseJoinReply(
      await requestJoin({ inviteKey: invite.privateKey, peer: member, request, timeoutMs: ASK_TIMEOUT_MS })
    )
  )
  const { record, secret } = welcome
  if (record.id !== token.cluster.id || memberById(record, id) === undefined) {
    throw new DiapauseError('JOIN_MESSAGE', 'the member answered with the record of a cluster without this peer')
  }
  const settings = checkedSettings(peer, welcome)
  await writeNewPeer(peer, { record, secret, settings, by: 'join' })
  if (settings['home'] !== undefined) {
    options.tell(
      `the cluster has a second home: give this peer credentials for it, if it needs any ([home] in ${peer.configFile})`
    )
  }
  return { id, name, cluster: record.name, configFile: peer.configFile }
}

/** Under this peer's own identity: to one that was removed a member says so. Whatever else comes is an error. */
export const askWhetherRemoved = (
  privateKey: Parameters<typeof requestJoin>[0]['inviteKey'],
  member: { readonly id: string; readonly address: string }
): Promise<Uint8Array> =>
  requestJoin({ inviteKey: privateKey, peer: member, request: new Uint8Array(1), timeoutMs: ASK_TIMEOUT_MS })

async function askAll(
  token: Token,
  { tell, waitsFor }: { tell(text: string): void; waitsFor(what: string): void },
  ask: (member: Token['members'][number]) => Promise<JoinReply>
): Promise<Welcome> {
  let problem: unknown
  for (const member of token.members) {
    const at = `the member at ${member.address}`
    waitsFor(`${at} is asked`)
    try {
      const reply = await ask(member)
      if (reply.kind === 'welcome') return reply
      const refusal = new UsageError(reply.code, reply.message)
      if (!PASSING.test(reply.code)) throw refusal
      problem = refusal
      tell(`${at}: ${reply.message}`)
    } catch (error) {
      if (!hasCode(error, 'JOIN_UNREACHABLE') && !hasCode(error, 'JOIN_REFUSED')) throw error
      // What a member said counts more than that another could not be reached.
      if (problem === undefined || hasCode(problem, 'JOIN_UNREACHABLE')) problem = error
      tell(`${at}: ${messageOf(error)}`)
    }
  }
  if (hasCode(problem, 'JOIN_REFUSED') && token.expiresMs <= wallMs()) {
    const at = new Date(token.expiresMs).toISOString()
    throw new UsageError('INVITE_EXPIRED', `the token expired at ${at}: make another with \`diapause invite\``)
  }
  throw problem
}

/** What came from the member, if this version of diapause can run with it. */
function checkedSettings(peer: NewPeer, { settings }: Welcome): Record<string, unknown> {
  const shared = Object.fromEntries(
    Object.entries(settings).filter(([name]) => SHARED_SECTIONS.some(shared => shared === name))
  )
  const parsed = checkConfig({ ...peer.config, ...shared })
  if (parsed.ok) return shared
  const problems = parsed.problems.map(problem => `  ${problemText(problem)}`).join('\n')
  throw new DiapauseError(
    'JOIN_SETTINGS',
    `this version of diapause cannot run with the cluster's settings:\n${problems}`
  )
}
