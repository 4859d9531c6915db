/** `diapause dashboard`: a link to the page of a peer, with a token of its own for whoever opens it. */
import { hostname } from 'node:os'
import { type Command, Option } from 'commander'
import { isLoopbackHost, listeningOf, originOf } from '../../config/listening.ts'
import type { ApiRole } from '../../protocols/membership/api-tokens.ts'
import { UsageError } from '../errors.ts'
import type { WhereHost, WhereOptions } from './cli-remote.ts'
import type { ApiClient } from './client.ts'
import { servedAt, type ServedAt } from './served-at.ts'
import type { TalkingHost } from './waiting.ts'

/** What the tokens of links are called, so that those that have expired are found again. */
const PREFIX = 'page-'
/** Long enough for a day at work, the shortest that a token can be good for. */
const EXPIRES_DAYS = 1

interface Options extends WhereOptions {
  readonly json?: boolean
  readonly role: ApiRole
}

/**
 * The link is printed, not opened: a program's arguments, where a browser would be told of it, are seen by all users of a host.
 * `command` speaks to a peer, which `clientOf` its options finds.
 */
export function dashboardCommand(
  command: Command,
  host: Pick<WhereHost, 'loadConfig'> & Pick<TalkingHost, 'terminal' | 'print' | 'printError'>,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const role = new Option('--role <role>', 'what whoever opens it may do: view, operate or admin')
  command
    .description('print a link to the page of the cluster, which signs in whoever opens it within a day')
    .addOption(role.choices(['view', 'operate', 'admin'] satisfies ApiRole[]).default('operate'))
    .action(async (options: Options) => {
      const client = await clientOf(options)
      const served = client.origin === undefined ? await addressOf(client, options, host) : undefined
      const base = served === undefined ? client.origin : originOf(served)
      for (const { name, expired } of await client.tokens()) {
        if (expired && name.startsWith(PREFIX)) await client.removeToken(name)
      }
      const name = PREFIX + Date.now().toString(36)
      const made = await client.newToken({ name, role: options.role, expiresDays: EXPIRES_DAYS })
      const url = `${base}/#token=${made.token}`
      host.print(options.json ? JSON.stringify({ url, token: name, role: made.role, expiresMs: made.expiresMs }) : url)
      const hint = served && host.terminal.shows && !options.json ? fromElsewhere(served) : undefined
      if (hint !== undefined) host.printError(hint)
    })
}

/** As the peer last told; where that is too long ago for its events, as its config says. UsageError API_NOT_SERVED. */
async function addressOf(
  client: ApiClient,
  { config, configNamed = false, socket }: Options,
  host: Pick<WhereHost, 'loadConfig'>
): Promise<ServedAt> {
  let told = await servedAt(client)
  if (told === undefined && config !== undefined && (socket === undefined || configNamed)) {
    const { api, peer } = await host.loadConfig(config)
    const listening = listeningOf(api.listen, peer.listen)
    if (listening !== undefined) told = { ...listening, tls: api.tls !== undefined }
  }
  if (told === undefined || told === null) {
    throw new UsageError(
      'API_NOT_SERVED',
      'this peer serves no page: set [api] listen = "127.0.0.1:7480" in its config'
    )
  }
  return told
}

/** How to open the link at another computer, where it leads to this one: it says 127.0.0.1 of what listens here alone, or everywhere. */
function fromElsewhere({ host, port, tls }: ServedAt): string | undefined {
  const name = hostname()
  if (host === '0.0.0.0' || host === '::')
    return `from elsewhere: ${originOf({ host: name, port, tls })}/… in its place`
  if (!isLoopbackHost(host)) return undefined
  const at = host.includes(':') ? `[${host}]` : host
  return `from elsewhere: ssh -L ${port}:${at}:${port} ${name}, then the same link there`
}
