/** `diapause tokens`: who may ask what of the cluster's peers over TCP. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { ApiRole } from '../../protocols/membership/api-tokens.ts'
import type { ApiClient } from './client.ts'
import { table } from './format.ts'
import type { TokenStatus } from './token-view.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

/** As API_ROLES; here, because what that needs is slow to load. */
const ROLES = ['view', 'operate', 'admin'] as const satisfies readonly ApiRole[]

interface Options {
  readonly json?: boolean
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function tokenCommands(
  diapause: Command,
  host: ProgressHost & { print(text: string): void },
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const tokens = speaking(diapause, 'tokens')
    .description('list the tokens of the API, which every peer of the cluster takes')
    .enablePositionalOptions()
    .action(async (options: Options) => {
      const list = await (await clientOf(options)).tokens()
      host.print(options.json ? JSON.stringify(list, null, 2) : tokensText(list))
    })
  const role = new Option('--role <role>', 'view (look), operate (snapshots, restores, drills), or admin (everything)')
  speaking(tokens, 'new')
    .description('make a token and print it, once; keep it like a password')
    .requiredOption('--name <name>', 'by which it is listed and removed')
    .addOption(role.choices(ROLES).makeOptionMandatory())
    .option('--expires <days>', 'how long it may be used (default: until it is removed)', days)
    .action(async (options: Options & { name: string; role: ApiRole; expires?: number }) => {
      const { name, role, expires: expiresDays } = options
      const client = await clientOf(options)
      const making = client.newToken({ name, role, ...(expiresDays !== undefined && { expiresDays }) })
      const made = await whileWaiting(host, `the cluster is told of token ${name}`, making)
      host.print(options.json ? JSON.stringify(made) : made.token)
    })
  speaking(tokens, 'remove <name>')
    .description('take a token back: no peer takes it any longer, and what it has open ends')
    .action(async (name: string, options: Options) => {
      await (await clientOf(options)).removeToken(name)
      host.print(options.json ? JSON.stringify({ removed: name }) : `token ${name} is removed`)
    })
}

export function tokensText(tokens: readonly TokenStatus[]): string {
  if (tokens.length === 0) return 'there are no tokens: the API is asked through the socket of a peer only'
  const rows = tokens.map(({ name, role, madeMs, expiresMs, expired }) => {
    const until = expiresMs === undefined ? 'it is removed' : day(expiresMs)
    return [name, role, day(madeMs), expired ? `${until} (expired)` : until]
  })
  return table([['token', 'role', 'made', 'until'], ...rows]).join('\n')
}

const day = (ms: number): string => new Date(ms).toISOString().slice(0, 10)

function days(text: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number of days.')
}
