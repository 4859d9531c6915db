/** `diapause home` and `diapause recovery-key`: epochs in a second home, and the key that opens them. */
import type { Command } from 'commander'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'
import type { HomeEpoch, HomeListing } from '../ports.ts'
import type { ApiClient } from './client.ts'
import { table } from './format.ts'
import type { HomeCopied, HomePlace, HomeStatus } from './home-view.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

/** The machine, as these commands need it. */
export interface HomeHost extends ProgressHost {
  print(text: string): void
  readCredentials(file: string): Promise<NonNullable<HomePlace['credentials']>>
  /** The text of a file that nobody else may read. UsageError RECOVERY_KEY, RECOVERY_KEY_EXPOSED. */
  readRecoveryKey(file: string): Promise<string>
  /** The key as a person keeps it, and its public part. */
  newRecoveryKey(): Promise<{ readonly text: string; readonly name: string; readonly public: string }>
}

interface Shared {
  readonly json?: boolean
  readonly from?: string
  readonly credentialsFile?: string
}

type Speaking = (parent: Command, nameAndArguments: string) => Command

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function homeCommands(
  diapause: Command,
  host: HomeHost,
  speaking: Speaking,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const home = diapause.command('home').description('epochs in a bucket or a directory outside of the cluster')
  const tell = (value: unknown, { json }: Shared, text: string): void =>
    host.print(json ? JSON.stringify(value, null, 2) : text)
  speaking(home, 'status')
    .description('which groups are copied there, by whom, and how that goes')
    .action(async (options: Shared) => {
      const status = await (await clientOf(options)).home()
      tell(status, options, statusText(status))
    })
  speaking(home, 'push <group>')
    .description('copy the last epoch of a group there now')
    .option('--all', 'look for all of it there, and send again what went astray')
    .action(async (group: string, options: Shared & { all?: boolean }) => {
      const copying = (await clientOf(options)).pushHome({ group, all: options.all === true })
      const copy = await whileWaiting(host, `${group} is copied`, copying)
      const what = `${copy.streamsCopied} of its ${copy.streams} streams were not there, ${megabytes(copy.bytesSent)} sent`
      tell(copy, options, `epoch ${copy.epoch} of ${group} is copied: ${what}${withoutText(copy)}`)
    })
  withPlace(speaking(home, 'list'))
    .description('list the epochs that are there')
    .action(async (options: Shared) => {
      const listing = await (await clientOf(options)).listHome(await placeOf(options, host))
      const damaged = listing.damaged.map(({ name }) => `cannot be read: ${name}`)
      tell(listing, options, [...listText(listing.epochs), ...damaged, ...othersText(listing)].join('\n'))
    })
  verifyCommand(home, host, speaking, clientOf)
  restoreCommand(home, host, speaking, clientOf)
  recoveryCommand(diapause, host, speaking, clientOf)
}

const withPlace = (command: Command): Command =>
  command
    .option('--from <url>', "dir:/FOLDER or s3://BUCKET/PREFIX?endpoint=URL (default: that of the peer's config)")
    .option(
      '--credentials-file <file>',
      'a TOML file with accessKeyId and secretAccessKey (default: those of the peer)'
    )

async function placeOf({ from, credentialsFile }: Shared, host: HomeHost): Promise<HomePlace> {
  if (credentialsFile !== undefined && from === undefined)
    throw new UsageError('HOME_URL', '--credentials-file goes with --from URL')
  return {
    ...(from !== undefined && { from }),
    ...(credentialsFile !== undefined && { credentials: await host.readCredentials(credentialsFile) })
  }
}

function verifyCommand(
  home: Command,
  host: HomeHost,
  speaking: Speaking,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  withPlace(speaking(home, 'verify <group>'))
    .description('look whether all of an epoch is there; fails (1) where not')
    .option('--epoch <number>', 'which (default: the newest)', epochNumber)
    .option('--cluster <id>', 'of which cluster (default: this one, or with --from the only one)')
    .option('--deep', 'read all of it and check it')
    .action(async (group: string, options: Shared & { epoch?: number; cluster?: string; deep?: boolean }) => {
      const { epoch, cluster, deep = false } = options
      const wish = { ...(await placeOf(options, host)), group, epoch, cluster, deep }
      const looking = (await clientOf(options)).verifyHome(wish)
      const check = await whileWaiting(host, `the copy of ${group} is ${deep ? 'read' : 'looked at'}`, looking)
      const { of, streams, chunks, bytes, damaged } = check
      const name = `epoch ${of.epoch} of ${group}`
      const text = `${name}: ${streams} streams in ${chunks} chunks, ${megabytes(bytes)}${deep ? ', all read' : ''}`
      host.print(options.json ? JSON.stringify(check, null, 2) : text)
      if (damaged.length === 0) return
      const shown = damaged.slice(0, 10).join(', ')
      throw new DiapauseError(
        'HOME_DAMAGED',
        `${name} is not whole: ${damaged.length} objects, ${shown}. Delete those that are altered there; home push --all sends them again`
      )
    })
}

function restoreCommand(
  home: Command,
  host: HomeHost,
  speaking: Speaking,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  withPlace(speaking(home, 'restore'))
    .description('make groups that go on from epochs that are there: of every group, or of one')
    .requiredOption('--recovery-key-file <file>', 'the recovery key, as it was printed; nobody else may read the file')
    .option('--group <group>', 'only this one')
    .option('--epoch <number>', 'which (default: the newest)', epochNumber)
    .option('--cluster <id>', 'of which cluster, where several have such a group')
    .option('--owner <peer>', 'the member that is to run the VMs (default: the cluster chooses)')
    .option('--force', 'also of a cluster that copied within the last hour: its hosts are off, I have looked')
    .action(
      async (
        options: Shared & {
          recoveryKeyFile: string
          group?: string
          epoch?: number
          cluster?: string
          owner?: string
          force?: boolean
        }
      ) => {
        const { group, epoch, cluster, owner, recoveryKeyFile, force = false } = options
        const recoveryKey = await host.readRecoveryKey(recoveryKeyFile)
        const wish = { ...(await placeOf(options, host)), recoveryKey, group, epoch, cluster, owner, force }
        const restoring = (await clientOf(options)).restoreHome(wish)
        const restored = await whileWaiting(host, 'groups are brought from the second home', restoring)
        const lines = restored.map(
          each =>
            `group ${each.group} goes on from epoch ${each.epoch} of cluster ${each.clusterName}, copied ${timeOf(each.copiedMs)}`
        )
        host.print(options.json ? JSON.stringify(restored, null, 2) : lines.join('\n'))
      }
    )
}

function recoveryCommand(
  diapause: Command,
  host: HomeHost,
  speaking: Speaking,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const recovery = diapause.command('recovery-key').description('the key that opens epochs in the second home')
  speaking(recovery, 'new')
    .description('make one and print it, once: the cluster keeps only what it seals to')
    .option('--replace <name>', 'in the place of this one; what it has sealed it still opens')
    .action(async (options: Shared & { replace?: string }) => {
      const client = await clientOf(options)
      const { text, name, public: publicPart } = await host.newRecoveryKey()
      // First of all: an answer that is lost on its way must not leave a cluster that seals to a key which nobody has seen.
      if (!options.json) host.print(`Recovery key ${name}, which counts when this command says so:\n\n    ${text}\n`)
      const wish = { public: publicPart, ...(options.replace !== undefined && { replaces: options.replace }) }
      try {
        const status = await whileWaiting(host, 'the cluster is told of the key', client.setRecovery(wish))
        const said = `It counts. Keep it where the cluster is not; nobody can print it again, and without it what is in the second
home is lost. What was copied before stays sealed to the key before; \`diapause home push GROUP\` copies anew.`
        host.print(options.json ? JSON.stringify({ ...status, key: text }, null, 2) : said)
      } catch (error) {
        throw mayCount(error, name, options.json === true ? text : undefined)
      }
    })
}

/** Refusals of the cluster are sure; whatever else went wrong, it may have taken the key. */
function mayCount(error: unknown, name: string, text: string | undefined): unknown {
  if (error instanceof DiapauseError && error.code.startsWith('RECOVERY_KEY')) return error
  const key = text === undefined ? 'it is printed above' : `it is ${text}`
  const message = `${messageOf(error)} Recovery key ${name} may be in force nevertheless: ${key}, keep it until \`diapause home status\` names another`
  return new DiapauseError(error instanceof DiapauseError ? error.code : 'RECOVERY_KEY_UNSURE', message, {
    cause: error
  })
}

function epochNumber(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new UsageError('CLI_EPOCH', `${JSON.stringify(text)} is not the number of an epoch`)
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
const timeOf = (ms: number): string => new Date(ms).toISOString()

/** Of VMs that boot from what the copier lacks. */
const withoutText = ({ without }: HomeCopied): string =>
  without.length === 0 ? '' : `, without ${without.join(' and ')}, which its host does not have`

function statusText({ url, recovery, groups }: HomeStatus): string {
  return [
    url === null ? 'this peer has no second home ([home] in its config)' : `second home ${url}`,
    recovery === null
      ? 'no recovery key yet: nothing is copied until there is one (diapause recovery-key new)'
      : `sealed to recovery key ${recovery.name}, made ${timeOf(recovery.madeMs)}`,
    ...groups.map(({ group, copier, here, copying, last, failed }) =>
      [
        `${group}: copied by ${copier}${here ? '' : ', as far as that has a second home in its config: ask there'}`,
        last && `epoch ${last.epoch} at ${timeOf(last.atMs)}, ${megabytes(last.bytesSent)} sent${withoutText(last)}`,
        copying && `epoch ${copying.epoch}: ${megabytes(copying.doneBytes)} of ${megabytes(copying.allBytes)}`,
        failed && `failed at ${timeOf(failed.atMs)}: ${failed.message} [${failed.code}]`
      ]
        .filter(part => part !== undefined)
        .join('; ')
    )
  ].join('\n')
}

/** A program that knows other names than ours may have put them there: an older version, or a newer one. */
function othersText({ others }: HomeListing): string[] {
  if (others.length === 0) return []
  const more = others.length > 3 ? ` and ${others.length - 3} more` : ''
  return [`passed over, as no epoch is called so: ${others.slice(0, 3).join(', ')}${more}`]
}

function listText(epochs: readonly HomeEpoch[]): string[] {
  if (epochs.length === 0) return ['no epochs']
  return table([
    ['cluster', 'group', 'epoch', 'VMs', 'bytes', 'copied', 'recovery key'],
    ...epochs.map(({ cluster, clusterName, group, epoch, vms, bytes, copiedMs, recovery }) => [
      `${clusterName} ${cluster}`,
      group,
      `${epoch}`,
      `${vms.length}`,
      megabytes(bytes),
      timeOf(copiedMs),
      recovery
    ])
  ])
}
