/**
 * What must hold between settings, each with the reason: ranges of single settings are in `schema.ts`. A relation is
 * checked where the sections it reads have the right shape, so that one pass names every error of a file.
 */
import { isLoopbackHost, listeningOf } from './listening.ts'
import type { Config } from './schema.ts'
import type { Problem } from './words.ts'

/** The sections that have the right shape. */
export type Sections = { readonly [Name in keyof Config]: Config[Name] | undefined }

/**
 * A unix socket's path has at most 107 bytes (sun_path of unix(7), less the final zero); the longest name that a peer
 * puts into its run folder has 36.
 */
export const MAX_RUN_DIR_BYTES = 70

export function relationProblems(sections: Sections): Problem[] {
  return [
    ...detectorProblems(sections),
    ...leaseProblems(sections),
    ...memberProblems(sections),
    ...shardProblems(sections),
    ...folderProblems(sections),
    ...apiProblems(sections),
    ...notificationProblems(sections)
  ]
}

function detectorProblems({ detector, register }: Sections): Problem[] {
  const problems: Problem[] = []
  if (detector !== undefined) {
    const { periodMs, probeTimeoutMs, suspicionMinMs, suspicionMaxMs } = detector
    // SWIM, section 3.1: what is left of the period after a failed direct probe is for the indirect ones.
    if (probeTimeoutMs >= periodMs) {
      problems.push({
        key: 'detector.probeTimeoutMs',
        expected: `less than detector.periodMs (${periodMs}), so that indirect probes have time`,
        found: String(probeTimeoutMs)
      })
    }
    if (suspicionMinMs > suspicionMaxMs) {
      problems.push({
        key: 'detector.suspicionMinMs',
        expected: `at most detector.suspicionMaxMs (${suspicionMaxMs})`,
        found: String(suspicionMinMs)
      })
    }
  }
  if (register !== undefined && register.roundTimeoutMs > register.giveUpMs) {
    problems.push({
      key: 'register.roundTimeoutMs',
      expected: `at most register.giveUpMs (${register.giveUpMs})`,
      found: String(register.roundTimeoutMs)
    })
  }
  return problems
}

/** Two renewals may be lost before a lease ends. */
function leaseProblems({ lease }: Sections): Problem[] {
  if (lease === undefined || lease.renewEveryMs * 3 <= lease.durationMs) return []
  return [
    {
      key: 'lease.renewEveryMs',
      expected: `at most a third of lease.durationMs (${lease.durationMs}), so that two renewals may be lost`,
      found: String(lease.renewEveryMs)
    }
  ]
}

function memberProblems({ members, peer }: Sections): Problem[] {
  if (members === undefined || members.length === 0) return []
  const problems: Problem[] = []
  for (const field of ['name', 'id', 'address'] as const) {
    const firstAt = new Map<string, number>()
    for (const [index, member] of members.entries()) {
      const earlier = firstAt.get(member[field])
      if (earlier === undefined) firstAt.set(member[field], index)
      else {
        const expected = `another ${field} than that of members[${earlier}]`
        problems.push({ key: `members[${index}].${field}`, expected, found: JSON.stringify(member[field]) })
      }
    }
  }
  if (!members.some(member => member.role === 'storage')) {
    problems.push({ key: 'members', expected: 'at least one with role "storage"', found: 'only witnesses' })
  }
  if (peer !== undefined && !members.some(member => member.name === peer.name)) {
    const known = members.map(member => JSON.stringify(member.name)).join(', ')
    problems.push({
      key: 'peer.name',
      expected: `the name of a member (${known}), because this peer is one of them`,
      found: JSON.stringify(peer.name)
    })
  }
  return problems
}

function shardProblems(sections: Sections): Problem[] {
  return [...spreadProblems(sections), ...columnProblems(sections)]
}

/** A column travels in one message of the bulk channel (8 MiB, `protocols/transport.ts`), with a little beside it. */
const MAX_COLUMN_BYTES = 8 * 1024 * 1024 - 4096

function columnProblems({ shards }: Sections): Problem[] {
  if (shards === undefined) return []
  const { k, m, symbolBytes } = shards
  if ((k + m) * symbolBytes <= MAX_COLUMN_BYTES) return []
  const most = Math.floor(MAX_COLUMN_BYTES / (k + m) / 8) * 8
  const expected = `at most ${most} with k + m = ${k + m}: a column of k + m symbols travels in one message of 8 MiB`
  return [{ key: 'shards.symbolBytes', expected, found: String(symbolBytes) }]
}

/**
 * The k + m columns of a snapshot go to the storage members in turn, so that with fewer members than columns some hold
 * two. The loss of any one member must leave k columns: it may hold m at most. (One storage member alone: no promise.)
 */
function spreadProblems({ shards, members }: Sections): Problem[] {
  const storage = members?.filter(member => member.role === 'storage').length ?? 0
  if (shards === undefined || storage < 2) return []
  const { k, m } = shards
  const heldByOne = Math.ceil((k + m) / storage)
  if (heldByOne <= m) return []
  return [
    {
      key: 'shards.k',
      expected: `at most ${m * storage - m} with shards.m = ${m} and ${storage} storage members: else one of them holds ${heldByOne} of ${k + m} columns, and losing it loses data`,
      found: String(k)
    }
  ]
}

/** The folder for sockets as it will be: `peer.runDir`, or `run` in the data folder. */
export const runDirOf = (peer: Config['peer']): string => peer.runDir ?? `${peer.dataDir.replace(/\/+$/, '')}/run`

function folderProblems({ peer }: Sections): Problem[] {
  if (peer === undefined) return []
  const bytes = new TextEncoder().encode(runDirOf(peer)).length
  if (bytes <= MAX_RUN_DIR_BYTES) return []
  const expected = `a path of at most ${MAX_RUN_DIR_BYTES} bytes, because the paths of sockets in it are limited to 107`
  const found = `${JSON.stringify(runDirOf(peer))} (${bytes} bytes${peer.runDir === undefined ? ', the default' : ''})`
  return [{ key: 'peer.runDir', expected, found }]
}

/** One way each, and a name of its own: by it peers know that they have the same target. */
function notificationProblems({ notifications = [] }: Sections): Problem[] {
  const problems: Problem[] = []
  for (const [index, target] of notifications.entries()) {
    const key = `notifications[${index}]`
    const { name, webhook, webhookFile, command, tokenFile, signingKeyFile } = target
    const ways = [webhook, webhookFile, command].filter(way => way !== undefined).length
    const expected = 'one of webhook, webhookFile and command'
    if (ways !== 1) problems.push({ key, expected, found: ways === 0 ? 'none of them' : `${ways} of them` })
    const first = notifications.findIndex(other => other.name === name)
    if (first < index) {
      const taken = `another name than that of notifications[${first}]`
      problems.push({ key: `${key}.name`, expected: taken, found: JSON.stringify(name) })
    }
    if (command === undefined || (tokenFile ?? signingKeyFile) === undefined) continue
    problems.push({ key, expected: 'tokenFile and signingKeyFile with a webhook only', found: 'one with a command' })
  }
  return problems
}

/** A token that anybody between may read is nobody's. */
function apiProblems({ api, peer }: Sections): Problem[] {
  if (api?.listen === undefined || peer === undefined) return []
  const listening = listeningOf(api.listen, peer.listen)
  if (listening === undefined) return []
  const { host } = listening
  const found = JSON.stringify(api.listen)
  if (isLoopbackHost(host) || api.tls !== undefined || api.plaintext) return []
  const expected =
    'an address of this host alone (127.0.0.1), or api.tls with certFile and keyFile; or api.plaintext = true, where something in front of the peer ends TLS'
  return [{ key: 'api.listen', expected, found }]
}
