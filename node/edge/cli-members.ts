/** The commands about members: `init` and `join` make a peer's files, the others speak to a peer that runs. */
import { InvalidArgumentError, Option, type Command } from 'commander'
import { messageOf, UsageError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { confirm, type Question } from './confirm.ts'
import { DEFAULT_EXPIRY_MINUTES } from './cluster-view.ts'
import { membersText, progressText, votesText } from './format-members.ts'
import type { Terminal } from './terminal.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'

export interface NewPeerCommand {
  readonly name: string
  readonly dataDir: string
  readonly listen: string
  readonly advertise?: string | undefined
  readonly runDir?: string | undefined
  readonly configFile?: string | undefined
}

/** What init and join have made. */
export interface MadePeer {
  readonly id: string
  readonly name: string
  readonly cluster: string
  readonly configFile: string
}

/** The machine, as these commands need it. */
export interface MemberHost extends ProgressHost {
  readonly terminal: Terminal
  /** What a person types before a command's name: `diapause`, or as npm runs it. */
  readonly typed: string
  init(options: NewPeerCommand & { readonly cluster: string }): Promise<MadePeer>
  /** `waitsFor` gets whom it asks, `tell` what remains to be read: why a member did not help, what is to be done next. */
  join(
    options: NewPeerCommand & { readonly token: string; waitsFor(what: string): void; tell(text: string): void }
  ): Promise<MadePeer>
  /** Standard input, to its end. */
  readInput(): Promise<string>
  print(text: string): void
  printError(text: string): void
}

/** How often a command that waits looks how far it is. */
const PROGRESS_EVERY_MS = 500

interface Shared {
  readonly json?: boolean
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function memberCommands(
  diapause: Command,
  host: MemberHost,
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  newPeerCommands(diapause, host)
  inviteCommands(diapause, host, speaking, clientOf)
  const members = speaking(diapause, 'members')
    .description('list the members: roles, votes, liveness, and what the cluster waits for')
    .enablePositionalOptions()
    .action(async (options: Shared) => {
      const status = await (await clientOf(options)).members()
      host.print(options.json ? JSON.stringify(status, null, 2) : membersText(status))
    })
  speaking(members, 'remove <member>')
    .description('remove a member for good: it is cut off, and its identity never comes back')
    .option('--force', 'although it lives and owns VMs: they go back to their last snapshot on other hosts')
    .option('--yes', 'do not ask')
    .action(async (member: string, options: Shared & { force?: boolean; yes?: boolean }) => {
      const client = await clientOf(options)
      if (options.yes !== true) await confirm(host, () => removalOf(member))
      await withProgress(client.removeMember(member, options.force === true), client, member, host)
      done(host, options, { removed: member }, `${member} is removed`)
      await tellVotes(client, options, host)
    })
  speaking(members, 'set <member>')
    .description('give a member a vote or take it, or tell the others where it is now')
    .addOption(new Option('--votes <yes|no>', 'whether it votes').choices(['yes', 'no']).argParser(yesOrNo))
    .option('--address <address>', 'the address at which the others reach it')
    .action(async (member: string, options: Shared & { votes?: boolean; address?: string }) => {
      const { votes, address } = options
      if (votes === undefined && address === undefined) {
        throw new UsageError('MEMBER_REQUEST', 'say what to set: --votes yes, --votes no or --address ADDRESS')
      }
      const client = await clientOf(options)
      const wish = { ...(votes === undefined ? {} : { votes }), ...(address === undefined ? {} : { address }) }
      await withProgress(client.setMember(member, wish), client, member, host)
      done(host, options, { member, ...wish }, `${member} is set`)
      if (votes !== undefined) await tellVotes(client, options, host)
    })
  speaking(diapause, 'leave')
    .description('take this peer out of the cluster for good; it stops when it is done')
    .option('--force', 'although it owns VMs: they go back to their last snapshot on other hosts')
    .option('--yes', 'do not ask')
    .action(async (options: Shared & { force?: boolean; yes?: boolean }) => {
      const client = await clientOf(options)
      const { name } = await client.status()
      if (options.yes !== true) await confirm(host, () => removalOf(name))
      await withProgress(client.leave(options.force === true), client, name, host)
      done(host, options, { left: name }, `${name} has left the cluster and stops`)
      await tellVotes(client, options, host)
    })
}

function inviteCommands(
  diapause: Command,
  host: MemberHost,
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const role = new Option('--role <role>', 'storage (runs VMs, stores snapshots) or witness (only votes)')
  const invite = speaking(diapause, 'invite')
    .enablePositionalOptions()
    .description('print a token with which one peer may join the cluster; keep it like a password')
    .addOption(role.choices(['storage', 'witness']).default('storage'))
    .option('--no-vote', 'the new member has no vote')
    .option('--replace <member>', 'it comes in the stead of this member, which leaves when the new one has its vote')
    .option('--expires <minutes>', 'how long the token may be used', minutes, DEFAULT_EXPIRY_MINUTES)
    .action(async (options: Shared & { role: string; vote: boolean; replace?: string; expires: number }) => {
      const { role, vote: votes, replace: replaces, expires: expiresMinutes } = options
      const client = await clientOf(options)
      const invitation = await client.invite({ role, votes, expiresMinutes, ...(replaces && { replaces }) })
      host.print(options.json ? JSON.stringify(invitation) : invitation.token)
    })
  speaking(invite, 'withdraw <invitation>')
    .description('take an invitation back, by the id that diapause members lists: nobody joins with its token any more')
    .action(async (id: string, options: Shared) => {
      const withdrawing = (await clientOf(options)).withdrawInvite(id)
      await whileWaiting(host, 'the cluster is told', withdrawing)
      done(host, options, { withdrawn: id }, `invitation ${id} is withdrawn`)
    })
}

function newPeerCommands(diapause: Command, host: MemberHost): void {
  const newPeer = (nameAndArguments: string): Command =>
    diapause
      .command(nameAndArguments)
      .requiredOption('--name <name>', "the peer's name")
      .requiredOption('--data-dir <dir>', 'its data folder: identity, registers, snapshots')
      .option('--listen <address>', 'where it listens', '/ip4/0.0.0.0/tcp/7400')
      .option('--advertise <address>', 'where the others reach it, e.g. /ip4/10.0.0.1/tcp/7400 (default: --listen)')
      .option('--run-dir <dir>', 'its folder for sockets (default: run in the data folder)')
      .option('--config <file>', 'the config file to write (default: peer.toml in the data folder)')
      .option('--json', 'print JSON')
  type Options = Omit<NewPeerCommand, 'configFile'> & Shared & { config?: string }
  const asked = ({ name, dataDir, listen, advertise, runDir, config }: Options): NewPeerCommand => ({
    name,
    dataDir,
    listen,
    advertise,
    runDir,
    configFile: config
  })
  const made = (options: Options, peer: MadePeer, text: string): void =>
    done(
      host,
      options,
      peer,
      `${text}\nrun it (it stays in the foreground): ${host.typed} up --config ${peer.configFile}`
    )

  newPeer('init')
    .description('make a new cluster with this host as its first peer')
    .requiredOption('--cluster <name>', "the cluster's name")
    .action(async (options: Options & { cluster: string }) => {
      const making = host.init({ ...asked(options), cluster: options.cluster })
      const peer = await whileWaiting(host, `cluster ${options.cluster} is made`, making)
      made(options, peer, `cluster ${peer.cluster} is made; its first peer is ${peer.name} (${peer.id})`)
    })
  newPeer('join <token>')
    .description(
      'make this host a member of a cluster; the token comes from diapause invite. "-": it is read from standard input, as other users of the host see what a command is given'
    )
    .action(async (word: string, options: Options) => {
      const token = word === '-' ? (await host.readInput()).trim() : word
      const tell = (text: string): void => (options.json ? undefined : host.print(text))
      const peer = await whileWaiting(host, 'the token is looked at', waitsFor =>
        host.join({ ...asked(options), token, waitsFor, tell })
      )
      made(options, peer, `${peer.name} (${peer.id}) is a member of cluster ${peer.cluster}`)
    })
}

const removalOf = (member: string): Question => ({
  whether: `whether ${member} is to go`,
  ask: `Take ${member} out of the cluster? Its identity never comes back; its host may, with a new data folder.`,
  otherwise: `${member} stays`
})

function done(host: MemberHost, { json }: Shared, value: object, text: string): void {
  host.print(json ? JSON.stringify(value) : text)
}

/** How many voters may fail now. Of a peer that has left and stops there may be no answer: it is done all the same. */
async function tellVotes(client: ApiClient, { json }: Shared, host: MemberHost): Promise<void> {
  if (json) return
  const asking = client.members().catch(() => undefined)
  const status = await whileWaiting(host, 'the votes are counted', asking)
  if (status !== undefined) host.print(votesText(status))
}

/** Waits for a call, and shows what that waits for. */
async function withProgress(call: Promise<void>, client: ApiClient, member: string, host: MemberHost): Promise<void> {
  let ended = false
  const ending = call.finally(() => (ended = true))
  ending.catch(() => {}) // awaited below
  await whileWaiting(host, 'the cluster is told', async now => {
    let shown = ''
    for (;;) {
      await Promise.race([ending, new Promise(resolve => setTimeout(resolve, PROGRESS_EVERY_MS))])
      if (ended) break
      const text = await client.members().then(status => progressText(status, member), messageOf)
      if (!ended && text !== shown) now(text)
      shown = text
    }
    await ending
  })
}

function minutes(text: string): number {
  if (/^\d{1,5}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number of minutes.')
}

function yesOrNo(text: string): boolean {
  if (text === 'yes' || text === 'no') return text === 'yes'
  throw new InvalidArgumentError('It is yes or no.')
}
