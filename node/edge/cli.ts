/**
 * The command line: `diapause up` runs a peer, the other commands speak to one through its socket. What needs the
 * machine comes in as `CliHost`, and what is slow to load only when a command needs it.
 *
 * Exit codes: 0 done; 1 it failed; 2 what was asked for cannot be (usage, config, no such peer or group).
 */
import { Command } from 'commander'
import type { Config } from '../../config/schema.ts'
import { UsageError } from '../errors.ts'
import { keyCommands } from './cli-keys.ts'
import { completionCommands } from './cli-completion.ts'
import { dashboardCommand } from './cli-dashboard.ts'
import { drillCommands, type DrillHost } from './cli-drill.ts'
import { epochCommands } from './cli-epochs.ts'
import { homeCommands, type HomeHost } from './cli-home.ts'
import { type ImageHost, imageCommands } from './cli-images.ts'
import { memberCommands, type MemberHost } from './cli-members.ts'
import { logCommand } from './cli-log.ts'
import { notifyCommands } from './cli-notify.ts'
import { planCommand } from './cli-plan.ts'
import { policyCommands } from './cli-policy.ts'
import { upgradeCommand } from './cli-upgrade.ts'
import { whyCommand } from './cli-why.ts'
import { redundancyCommands } from './cli-redundancy.ts'
import { tokenCommands } from './cli-tokens.ts'
import type { ApiClient } from './client.ts'
import { clientOf, type WhereHost, whereOptions, type WhereOptions } from './cli-remote.ts'
import { type DoctorHost, doctorCommand } from './doctor.ts'
import { asksForJson, errorText, inOurWords, toldError } from './explain.ts'
import { statusCommands, type StatusHost } from './cli-status.ts'
import { vmCommands, type VmHost } from './cli-vm.ts'
import type { ReadyPeer } from './view.ts'
import { seenToWait, whileWaiting } from './waiting.ts'

export interface CliHost
  extends WhereHost,
    MemberHost,
    ImageHost,
    HomeHost,
    DrillHost,
    StatusHost,
    VmHost,
    Pick<DoctorHost, 'examine'> {
  readonly version: string
  /** Runs a peer until it is told to stop. `begun`: its API answers. */
  runPeer(config: Config, begun: (peer: ReadyPeer) => void): Promise<void>
  /** The peer id of a data folder; makes an identity where there is none. */
  identity(dataDir: string): Promise<string>
  /** Programs of the checkout that this program runs from, if it does. */
  readonly scripts?: readonly ('demo' | 'bench')[]
  /** Runs one until it ends: its exit code. */
  runScript(name: 'demo' | 'bench', words: readonly string[]): Promise<number>
}

interface PeerOptions extends WhereOptions {
  readonly json?: boolean
}

/** Runs one command line (without `node` and script) and gives the exit code. */
export async function runCli(args: readonly string[], own: CliHost): Promise<number> {
  const { host, begin, end } = seenToWait(own)
  const json = asksForJson(args)
  let code = 0
  try {
    await program(host, { ended: it => (code = it), asking: begin, json }).parseAsync([...args], { from: 'user' })
    return code
  } catch (error) {
    return explain(error, json, host)
  } finally {
    end()
  }
}

function explain(error: unknown, json: boolean, { printError }: CliHost): number {
  const told = toldError(error)
  if (told === undefined) return 0
  const text = json ? JSON.stringify({ error: told }) : errorText(error)
  if (text !== undefined) printError(text)
  return told.exitCode
}

interface Running {
  /** The exit code of another program that a command was. */
  readonly ended: (code: number) => void
  /** Before a command that asks a peer and is done when that has answered: its name, and that it waits. */
  readonly asking: (what: string) => void
  /** What is wrong with the command line is told as JSON, and so not by commander. */
  readonly json: boolean
}

const idle: Running = { ended: () => {}, asking: () => {}, json: false }

/** All commands. */
export function program(host: CliHost, { ended, asking, json }: Running = idle): Command {
  const diapause = new Command('diapause')
    .description('Keeps a cluster of virtual machines alive with nobody in charge.')
    .version(host.version)
    .exitOverride()
    .enablePositionalOptions() // a command's options are its own, not those of its subcommands
    .showHelpAfterError('(--help shows what is possible)')
    .showSuggestionAfterError()
    .configureOutput({
      writeOut: text => host.print(text.trimEnd()),
      outputError: (text, write) => write(inOurWords(text)),
      writeErr: text => void (json || host.printError(text.trimEnd()))
    })
  const under = (parent: Command, nameAndArguments: string): Command =>
    peerCommand(parent, host, nameAndArguments).hook('preAction', (_, action) => {
      const { follow, watch }: { follow?: boolean; watch?: boolean } = action.opts()
      if (follow !== true && watch !== true) asking(`${nameOf(action)} waits for the peer`)
    })
  const atTop = (nameAndArguments: string): Command => under(diapause, nameAndArguments)
  const client = (options: PeerOptions): Promise<ApiClient> => clientOf(options, host)
  peerCommands(diapause, host)
  statusCommands(atTop, host, client)
  vmCommands(diapause, host, under, client)
  memberCommands(diapause, host, under, client)
  keyCommands(diapause, host, under, client)
  notifyCommands(diapause, host, under, client)
  tokenCommands(diapause, host, under, client)
  epochCommands(diapause, host, under, client)
  policyCommands(diapause, host, under, client)
  drillCommands(diapause, host, under, client)
  doctorCommand(diapause, host, host.defaultConfigFile)
  imageCommands(atTop, host, client)
  redundancyCommands(atTop, host, client)
  homeCommands(diapause, host, under, client)
  whyCommand(atTop('why <vm>'), client, host.print)
  planCommand(atTop('plan [group]'), client, host.print)
  logCommand(atTop('log'), host, client)
  dashboardCommand(atTop('dashboard'), host, client)
  upgradeCommand(diapause, host, under, client)
  const { defaultConfigFile: config } = host
  completionCommands(diapause, host.print, options =>
    client({ ...(config !== undefined && { config }), ...options, configNamed: 'config' in options })
  )
  checkoutCommands(diapause, host, ended)
  groupHelp(diapause)
  return diapause
}

function peerCommands(diapause: Command, host: CliHost): void {
  diapause
    .command('up')
    .description('run a peer until SIGINT or SIGTERM')
    .option('--config <file>', 'its config file (TOML)', host.defaultConfigFile)
    .option('--json', 'when it is ready, print a line of JSON with what it is: the one line without "level" in its log')
    .action(async (options: PeerOptions) => {
      if (options.config === undefined) throw new UsageError('CONFIG_MISSING', 'a peer needs its config: --config FILE')
      const config = await host.loadConfig(options.config)
      const begun = Promise.withResolvers<ReadyPeer>()
      const running = host.runPeer(config, begun.resolve)
      const ready = await whileWaiting(host, 'the peer starts', Promise.race([begun.promise, running]))
      if (options.json && ready !== undefined) host.print(JSON.stringify(ready))
      await running
    })
  diapause
    .command('identity')
    .description('print the peer id of a data folder; an identity is made where there is none')
    .requiredOption('--data-dir <dir>', "the peer's data folder")
    .option('--json', 'print JSON')
    .action(async ({ dataDir, json }: { dataDir: string; json?: boolean }) => {
      const id = await whileWaiting(host, 'the identity is read or made', host.identity(dataDir))
      host.print(json ? JSON.stringify({ id }) : id)
    })
}

/** As it is typed, without the program's own. */
const nameOf = (command: Command): string =>
  command.parent?.parent ? `${nameOf(command.parent)} ${command.name()}` : command.name()

/** A command that speaks to a peer. */
function peerCommand(parent: Command, host: CliHost, nameAndArguments: string): Command {
  return whereOptions(parent.command(nameAndArguments), host).option('--json', 'print JSON')
}

/** As `--help` lists them: by what people do. */
const helpGroups: Readonly<Record<string, readonly string[]>> = {
  'A cluster and its members:': ['init', 'join', 'up', 'invite', 'members', 'leave', 'keys', 'tokens', 'upgrade'],
  'VMs and their snapshots:': ['vm', 'snapshot', 'epochs', 'restore', 'drill', 'policy', 'export', 'import'],
  'A second home:': ['home', 'recovery-key'],
  'What is, was and would be:': ['status', 'events', 'why', 'plan', 'verify', 'repair', 'dashboard', 'notify', 'log'],
  'This host:': ['doctor', 'identity', 'completion', 'demo', 'bench']
}

const EXIT_CODES = `
Exit codes: 0 it is done; 1 it failed; 2 what was asked for cannot be, and nothing was done.
Which peer: --socket PATH, --url URL or --config FILE, the first that is typed; where none is, DIAPAUSE_URL (with
DIAPAUSE_TOKEN_FILE and DIAPAUSE_CA), else DIAPAUSE_CONFIG.
NO_COLOR=1: no colours.`

function groupHelp(diapause: Command): void {
  for (const [heading, names] of Object.entries(helpGroups)) {
    for (const command of diapause.commands) if (names.includes(command.name())) command.helpGroup(heading)
  }
  diapause.addHelpText('after', EXIT_CODES)
}

/** What only a checkout has: `diapause demo` is `npm run demo`. */
function checkoutCommands(diapause: Command, host: CliHost, ended: (code: number) => void): void {
  const about = {
    demo: 'five peers and three VMs on this machine, kill -9 of a host, and everything back (--help: its options)',
    bench: 'measure something; without a name: what there is to be measured'
  } as const
  for (const name of host.scripts ?? []) {
    diapause
      .command(name)
      .description(about[name])
      .argument('[words...]', 'its own arguments and options')
      .allowUnknownOption()
      .passThroughOptions()
      .helpOption(false)
      .action(async (words: readonly string[]) => ended(await host.runScript(name, words)))
  }
}
