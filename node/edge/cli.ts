/**
 * The command line: `diapause up` runs a peer, the other commands speak to one through its socket. What needs the
 * machine comes in as `CliHost`, and what is slow to load only when a command needs it.
 *
 * Exit codes: 0 done; 1 it failed; 2 what was asked for cannot be (usage, config, no such peer or group).
 */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import type { Config } from '../../config/schema.ts'
import { DiapauseError, UsageError, messageOf } from '../errors.ts'
import { keyCommands } from './cli-keys.ts'
import { drillCommands, type DrillHost } from './cli-drill.ts'
import { epochCommands } from './cli-epochs.ts'
import { homeCommands, type HomeHost } from './cli-home.ts'
import { type ImageHost, imageCommands } from './cli-images.ts'
import { memberCommands, type MemberHost } from './cli-members.ts'
import { notifyCommands } from './cli-notify.ts'
import { planCommand } from './cli-plan.ts'
import { whyCommand } from './cli-why.ts'
import { redundancyCommands } from './cli-redundancy.ts'
import { tokenCommands } from './cli-tokens.ts'
import type { ApiClient } from './client.ts'
import { clientOf, type WhereHost, whereOptions, type WhereOptions } from './cli-remote.ts'
import { type DoctorHost, doctorCommand } from './doctor.ts'
import { drillMark, epochText, eventText, statusText } from './format.ts'

export interface CliHost extends WhereHost, MemberHost, ImageHost, HomeHost, DrillHost, Pick<DoctorHost, 'examine'> {
  readonly version: string
  /** Runs a peer until it is told to stop. */
  runPeer(config: Config): Promise<void>
  /** The peer id of a data folder; makes an identity where there is none. */
  identity(dataDir: string): Promise<string>
  definitionToRequest(text: string): Promise<unknown>
}

interface PeerOptions extends WhereOptions {
  readonly json?: boolean
}

/** Runs one command line (without `node` and script) and gives the exit code. */
export async function runCli(args: readonly string[], host: CliHost): Promise<number> {
  try {
    await program(host).parseAsync([...args], { from: 'user' })
    return 0
  } catch (error) {
    return explain(error, host)
  }
}

function explain(error: unknown, host: CliHost): number {
  // Commander has printed its own message; for --help and --version its exit code is 0.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof DiapauseError) {
    host.printError(`diapause: ${error.message} [${error.code}]`)
    return error instanceof UsageError ? 2 : 1
  }
  host.printError(`diapause: ${error instanceof Error && error.stack !== undefined ? error.stack : messageOf(error)}`)
  return 1
}

function program(host: CliHost): Command {
  const diapause = new Command('diapause')
    .description('Keeps a cluster of virtual machines alive with nobody in charge.')
    .version(host.version)
    .exitOverride()
    .enablePositionalOptions() // a command's options are its own, not those of its subcommands
    .showHelpAfterError('(--help shows what is possible)')
    .showSuggestionAfterError()
    .configureOutput({
      writeOut: text => host.print(text.trimEnd()),
      writeErr: text => host.printError(text.trimEnd())
    })
  const under = (parent: Command, nameAndArguments: string): Command => peerCommand(parent, host, nameAndArguments)
  const atTop = (nameAndArguments: string): Command => under(diapause, nameAndArguments)
  const client = (options: PeerOptions): Promise<ApiClient> => clientOf(options, host)
  peerCommands(diapause, host)
  lookingCommands(diapause, host)
  groupCommands(diapause, host)
  memberCommands(diapause, host, under, client)
  keyCommands(diapause, host, under, client)
  notifyCommands(diapause, host, under, client)
  tokenCommands(diapause, host, under, client)
  epochCommands(diapause, host, under, client)
  drillCommands(diapause, host, under, client)
  doctorCommand(diapause, host, host.defaultConfigFile)
  imageCommands(atTop, host, client)
  redundancyCommands(atTop, host, client)
  homeCommands(diapause, host, under, client)
  whyCommand(atTop('why <vm>'), client, host.print)
  planCommand(atTop('plan [group]'), client, host.print)
  return diapause
}

function peerCommands(diapause: Command, host: CliHost): void {
  diapause
    .command('up')
    .description('run a peer until SIGINT or SIGTERM')
    .option('--config <file>', 'its config file (TOML)', host.defaultConfigFile)
    .action(async (options: PeerOptions) => {
      if (options.config === undefined) throw new UsageError('CONFIG_MISSING', 'a peer needs its config: --config FILE')
      await host.runPeer(await host.loadConfig(options.config))
    })
  diapause
    .command('identity')
    .description('print the peer id of a data folder; an identity is made where there is none')
    .requiredOption('--data-dir <dir>', "the peer's data folder")
    .action(async (options: { dataDir: string }) => host.print(await host.identity(options.dataDir)))
}

/** A command that speaks to a peer. */
function peerCommand(parent: Command, host: CliHost, nameAndArguments: string): Command {
  return whereOptions(parent.command(nameAndArguments), host).option('--json', 'print JSON')
}

function lookingCommands(diapause: Command, host: CliHost): void {
  peerCommand(diapause, host, 'status')
    .description('show the peer, the members as it sees them, its groups and its store')
    .action(async (options: PeerOptions) => {
      const status = await (await clientOf(options, host)).status()
      host.print(options.json ? JSON.stringify(status, null, 2) : statusText(status))
    })
  peerCommand(diapause, host, 'events')
    .description('show what happened at the peer')
    .option('--follow', 'go on with what happens from now on')
    .action(async (options: PeerOptions & { follow?: boolean }) => {
      const client = await clientOf(options, host)
      for await (const event of client.events({ follow: options.follow === true })) {
        host.print(options.json ? JSON.stringify(event) : eventText(event))
      }
    })
}

function groupCommands(diapause: Command, host: CliHost): void {
  peerCommand(diapause, host, 'snapshot <group>')
    .description('take a snapshot of a group now; fails (1) where it is aborted')
    .action(async (group: string, options: PeerOptions) => {
      const result = await (await clientOf(options, host)).takeEpoch(group)
      const why = result.reason === undefined ? '' : `: ${result.reason}`
      host.print(options.json ? JSON.stringify(result) : `epoch ${result.epoch} of ${group} ${result.outcome}${why}`)
      if (result.outcome === 'aborted')
        throw new DiapauseError('EPOCH_ABORTED', `epoch ${result.epoch} was aborted${why}`)
    })
  const vms = diapause.command('vm').description('define, list and remove VMs, which go by groups; their consoles')
  peerCommand(vms, host, 'define <file>')
    .description('make a group of VMs from its definition in YAML')
    .action(async (file: string, options: PeerOptions) => {
      const request = await host.definitionToRequest(readDefinition(file))
      const record = await (await clientOf(options, host)).createGroup(request)
      const price = record.outputCommit ? '; each answer of theirs to the outside waits for the next epoch' : ''
      const text = `group ${record.id} with ${record.vms.length} VMs is made${price}`
      host.print(options.json ? JSON.stringify(record, null, 2) : text)
    })
  vms
    .command('schema')
    .description('print the JSON Schema of definitions, for editors')
    .action(async () =>
      host.print((await import('../../config/definition-schema.ts')).definitionSchemaText().trimEnd())
    )
  peerCommand(vms, host, 'list')
    .description('list the groups that the peer knows')
    .action(async (options: PeerOptions) => {
      const records = await (await clientOf(options, host)).groups()
      if (options.json) host.print(JSON.stringify(records, null, 2))
      else
        for (const record of records)
          host.print(`${record.id}: ${record.vms.length} VMs, ${epochText(record)}${drillMark(record)}`)
    })
  peerCommand(vms, host, 'rm <group>')
    .description('stop the VMs of a group and forget its snapshots')
    .action(async (name: string, options: PeerOptions) => (await clientOf(options, host)).removeGroup(name))
  peerCommand(vms, host, 'console <group> <vm> <text>')
    .description('type a line on the serial console of a VM that runs on this peer')
    .action(async (group: string, vm: string, text: string, options: PeerOptions) => {
      await (await clientOf(options, host)).typeConsole(group, vm, `${text}\n`)
    })
}

function readDefinition(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError('DEFINITION_FILE', `cannot read the definition ${file}: ${messageOf(cause)}`, { cause })
  }
}
