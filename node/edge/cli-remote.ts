/** Which peer a command speaks to: options of every command that speaks to one, and what stands in for them. */
import type { Command } from 'commander'
import { runDirOf } from '../../config/limits.ts'
import type { Config } from '../../config/schema.ts'
import { UsageError } from '../errors.ts'
import { ApiClient } from './client.ts'

export interface WhereOptions {
  readonly socket?: string
  readonly config?: string
  readonly url?: string
  readonly tokenFile?: string
  readonly ca?: string
  /** `config` was named on the command line, and does not stand in from the environment. */
  readonly configNamed?: boolean
}

/** The machine, as finding a peer needs it. */
export interface WhereHost {
  /** The config file to use where no option names one. */
  readonly defaultConfigFile: string | undefined
  /** The peer elsewhere to speak to where no option names one. */
  readonly defaultRemote: Pick<WhereOptions, 'url' | 'tokenFile' | 'ca'>
  loadConfig(file: string): Promise<Config>
  /** A token in a file that nobody else may read. */
  readToken(file: string): Promise<string>
  readCertificate(file: string): Promise<string>
}

export function whereOptions(command: Command, { defaultConfigFile }: WhereHost): Command {
  return command
    .hook('preAction', (_, action) => {
      typedBefore(action)
      action.setOptionValue('configNamed', action.getOptionValueSource('config') === 'cli')
    })
    .option('--socket <path>', "the peer's socket (api.sock in its run folder)")
    .option('--config <file>', "the peer's config file, to find its socket", defaultConfigFile)
    .option('--url <url>', 'a peer elsewhere, such as https://10.0.0.1:7480 (default: DIAPAUSE_URL)')
    .option('--token-file <file>', 'for --url: a file with a token for it (default: DIAPAUSE_TOKEN_FILE)')
    .option('--ca <file>', 'for --url: trust only this certificate, or what it has signed (default: DIAPAUSE_CA)')
}

const WHERE = ['socket', 'config', 'url', 'tokenFile', 'ca']

/** `members --url URL remove oak` names a peer as `members remove oak --url URL` does, and not that of the environment. */
function typedBefore(action: Command): void {
  const names = WHERE.filter(name => action.options.some(option => option.attributeName() === name))
  if (names.some(name => action.getOptionValueSource(name) === 'cli')) return
  for (let above = action.parent; above !== null; above = above.parent) {
    const command = above
    const typed = names.filter(name => command.getOptionValueSource(name) === 'cli')
    for (const name of typed) action.setOptionValueWithSource(name, command.getOptionValue(name), 'cli')
    if (typed.length > 0) return
  }
}

/**
 * What an option names goes before what the environment does, and a socket before a URL. UsageError SOCKET_MISSING,
 * TOKEN_MISSING, TOKEN_FILE, API_URL.
 */
export async function clientOf(options: WhereOptions, host: WhereHost): Promise<ApiClient> {
  if (options.socket !== undefined) return new ApiClient(options.socket)
  const { defaultRemote } = host
  const { config, configNamed = false } = options
  if (options.url !== undefined) return await remote({ ...defaultRemote, ...options, url: options.url }, host)
  if (!configNamed && defaultRemote.url !== undefined) {
    return await remote({ ...defaultRemote, ...options, url: defaultRemote.url }, host)
  }
  if (config === undefined) {
    const ways = 'its socket (--socket PATH), its config (--config FILE), or where it is (--url URL --token-file FILE)'
    throw new UsageError('SOCKET_MISSING', `which peer? Name ${ways}`)
  }
  const { peer } = await host.loadConfig(config)
  return new ApiClient(`${runDirOf(peer)}/api.sock`)
}

async function remote(
  { url, tokenFile, ca }: WhereOptions & { readonly url: string },
  host: WhereHost
): Promise<ApiClient> {
  if (tokenFile === undefined) {
    const message = `${url} takes a token: make one at a peer (diapause tokens new) and name its file with --token-file`
    throw new UsageError('TOKEN_MISSING', message)
  }
  const token = await host.readToken(tokenFile)
  return new ApiClient({ url, token, ...(ca !== undefined && { ca: await host.readCertificate(ca) }) })
}
