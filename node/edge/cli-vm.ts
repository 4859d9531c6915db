/** `diapause vm`: defining, listing, stopping, starting and removing VMs, which go by groups, and their consoles. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { UsageError, messageOf } from '../errors.ts'
import { adoptedRequest, type AdoptOptions, withAdoptOptions } from './cli-adopt.ts'
import { type ConsoleHost, openConsole } from './cli-console.ts'
import { startCommand, stopCommand } from './cli-rest.ts'
import { groupOf } from './cli-why.ts'
import type { ApiClient } from './client.ts'
import { confirm, type Question } from './confirm.ts'
import { painted, type Terminal } from './terminal.ts'
import { listedVms, vmListText } from './vm-list.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'
import { plural } from './plural.ts'

/** The machine, as these commands need it. */
export interface VmHost extends ConsoleHost, ProgressHost {
  readonly terminal: Terminal
  definitionToRequest(text: string): Promise<unknown>
  /** All of standard input. */
  readInput(): Promise<string>
  print(text: string): void
}

interface Shared {
  readonly json?: boolean
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function vmCommands(
  diapause: Command,
  host: VmHost,
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const vms = diapause
    .command('vm')
    .description('define, list, stop, start and remove VMs, which go by groups; their consoles')
  defineCommand(speaking(vms, 'define [file]'), host, clientOf)
  vms
    .command('schema')
    .description('print the JSON Schema of definitions, for editors')
    .option('--json', 'print JSON, as it does without')
    .action(async () =>
      host.print((await import('../../config/definition-schema.ts')).definitionSchemaText().trimEnd())
    )
  speaking(vms, 'list')
    .description('list all VMs of the cluster: where they run, and what the death of their host would mean now')
    .action(async (options: Shared) => {
      const overview = await (await clientOf(options)).overview()
      const listed = listedVms(overview)
      if (options.json) host.print(JSON.stringify(listed, null, 2))
      else host.print(painted(vmListText(listed, overview.groups), host.terminal))
    })
  stopCommand(speaking(vms, 'stop <group>'), host, clientOf)
  startCommand(speaking(vms, 'start <group>'), host, clientOf)
  removeCommand(speaking(vms, 'rm <group>'), host, clientOf)
  speaking(vms, 'console <vm> [text]')
    .description('look at the serial console of a VM wherever it runs, and type on it; or type one line')
    .option('--group <group>', 'the VM of this group; needed where several groups have one of that name')
    .option('--log', 'print its last words and leave')
    .action(async (vm: string, text: string | undefined, options: Shared & { group?: string; log?: boolean }) => {
      const client = await clientOf(options)
      const group = options.group ?? groupOf(vm, await client.groups())
      if (text === undefined) await openConsole(client, { group, vm, follow: options.log !== true }, host)
      else await client.typeConsole(group, vm, `${text}\n`)
      if (text !== undefined && options.json) host.print(JSON.stringify({ group, vm, typed: text }))
    })
}

function defineCommand(command: Command, host: VmHost, clientOf: (options: object) => Promise<ApiClient>): void {
  withAdoptOptions(command)
    .description(
      'make a group of VMs from its definition in YAML (-: standard input; `vm schema` says what stands in it), or adopt a VM'
    )
    .option('--dry-run', 'make nothing: say what would be made, or what keeps it from being made')
    .action(async (file: string | undefined, options: Shared & AdoptOptions & { dryRun?: boolean }) => {
      const adopted = await adoptedRequest(file, options, host.print)
      if (adopted === 'printed') return
      const request = adopted?.definition ?? (await host.definitionToRequest(await definitionIn(file, host)))
      const dryRun = options.dryRun === true
      const client = await clientOf(options)
      const doing = dryRun ? 'the definition is looked at' : 'the group is made'
      const record = await whileWaiting(host, doing, client.createGroup(request, { dryRun }))
      const price = record.outputCommit ? '; each answer of theirs to the outside waits for the next epoch' : ''
      const what = `group ${record.id} with ${plural(record.vms.length, 'VM')} ${dryRun ? 'can be made' : 'is made'}${price}`
      host.print(options.json ? JSON.stringify(record, null, 2) : what)
      if (options.json) return
      const { members } = await whileWaiting(host, 'members are asked for', client.status())
      const names = new Map(members.map(({ id, name }) => [id, name]))
      for (const { id } of record.vms) {
        const owner = record.owners[id] ?? ''
        host.print(`  ${id} on ${names.get(owner) ?? owner}`)
      }
    })
}

function removeCommand(command: Command, host: VmHost, clientOf: (options: object) => Promise<ApiClient>): void {
  command
    .description('stop the VMs of a group and forget its snapshots')
    .option('--yes', 'do not ask')
    .action(async (name: string, options: Shared & { yes?: boolean }) => {
      const client = await clientOf(options)
      if (options.yes !== true) await confirm(host, () => removalOf(client, name))
      await whileWaiting(host, `the VMs of ${name} end`, client.removeGroup(name))
      host.print(options.json ? JSON.stringify({ removed: name }) : `group ${name} is removed`)
    })
}

async function removalOf(client: ApiClient, name: string): Promise<Question> {
  const record = (await client.groups()).find(({ id }) => id === name)
  if (record === undefined) throw new UsageError('GROUP_UNKNOWN', `there is no group "${name}" in this cluster`)
  const vms = record.vms.map(({ id }) => id).join(', ')
  const epochs = (record.committed === null ? 0 : 1) + (record.kept?.length ?? 0)
  const ask = `End ${vms} and forget ${plural(epochs, 'snapshot')} of ${name}, for good?`
  return { whether: `whether to remove ${name}`, ask, otherwise: 'nothing was removed' }
}

async function definitionIn(file: string | undefined, host: VmHost): Promise<string> {
  if (file === undefined)
    throw new UsageError('DEFINITION_MISSING', 'name the file of a definition, or - for standard input')
  return file === '-' ? await host.readInput() : readDefinition(file)
}

function readDefinition(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError('DEFINITION_FILE', `cannot read the definition ${file}: ${messageOf(cause)}`, { cause })
  }
}
