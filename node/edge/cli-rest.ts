/** `diapause vm stop` and `vm start`: groups that rest, and run again. */
import type { Command } from 'commander'
import type { GroupRecord } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { confirm, type Question } from './confirm.ts'
import { durationText } from './format.ts'
import type { Terminal } from './terminal.ts'
import { type ProgressHost, whileWaiting } from './waiting.ts'
import { wholeNumber } from './whole-number.ts'

export interface RestHost extends ProgressHost {
  readonly terminal: Terminal
  print(text: string): void
}

interface Options {
  readonly json?: boolean
}
type StopOptions = Options & { readonly now?: boolean; readonly yes?: boolean }
type StartOptions = Options & { readonly epoch?: number; readonly force?: boolean }

export function stopCommand(command: Command, host: RestHost, clientOf: (options: object) => Promise<ApiClient>): void {
  command
    .description(
      'let a group rest: take a last epoch of it and end its VMs, until `vm start` brings them back from there'
    )
    .option('--now', 'take no epoch: what its VMs did since the last one is lost')
    .option('--yes', 'with --now: do not ask')
    .action(async (name: string, options: StopOptions) => {
      const client = await clientOf(options)
      const now = options.now === true
      const before = restingGroup(name, await client.groups())
      if (now && options.yes !== true && !before.resting) await confirm(host, () => questionOf(before))
      const doing = now ? `the VMs of ${before.id} end` : `a last epoch of ${before.id} is taken`
      const record = await whileWaiting(host, doing, client.stopGroup(before.id, { now }))
      const already = before.resting ? ' already' : ''
      const text = `group ${record.id} rests${already}, at epoch ${record.committed?.epoch}; diapause vm start ${record.id} brings it back`
      host.print(options.json ? JSON.stringify(record, null, 2) : text)
    })
}

export function startCommand(
  command: Command,
  host: RestHost,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  command
    .description('let a group that rests run again, from its last epoch')
    .option('--epoch <number>', 'an epoch that is kept, instead of the last', wholeNumber)
    .option('--force', 'also where the outside has been told what is taken back now (outputCommit)')
    .action(async (name: string, options: StartOptions) => {
      const client = await clientOf(options)
      const { epoch, force = false } = options
      const before = restingGroup(name, await client.groups())
      const deciding = client.startGroup(before.id, { epoch, force })
      const doing = `it is decided where ${before.id} runs, when leases of hosts that died with it have run out`
      const record = await whileWaiting(host, doing, deciding)
      const from = `from epoch ${record.committed?.epoch} in generation ${record.generation}`
      const text = before.resting
        ? `group ${record.id} goes on ${from}`
        : `group ${record.id} does not rest: nothing to do`
      host.print(options.json ? JSON.stringify(record, null, 2) : text)
    })
}

/**
 * A group by its name, or by that of its only VM: a group rests as a whole. UsageErrors NAME_UNKNOWN, VM_OF_GROUP, VM_OF_GROUPS.
 */
export function restingGroup(name: string, groups: readonly GroupRecord[]): GroupRecord {
  const named = groups.find(({ id }) => id === name)
  if (named !== undefined) return named
  const having = groups.filter(({ vms }) => vms.some(({ id }) => id === name))
  const [group, ...others] = having
  if (group === undefined) throw new UsageError('NAME_UNKNOWN', `there is no group "${name}", and no VM of that name`)
  if (others.length > 0) {
    const names = having.map(({ id }) => id).join(', ')
    throw new UsageError('VM_OF_GROUPS', `several groups have a VM "${name}": name the group, which is one of ${names}`)
  }
  if (group.vms.length === 1) return group
  const beside = group.vms.flatMap(({ id }) => (id === name ? [] : [id])).join(', ')
  throw new UsageError(
    'VM_OF_GROUP',
    `VM ${name} stops and starts with its group, which has ${beside} beside it: name the group, ${group.id}`
  )
}

function questionOf({ id, committed }: GroupRecord): Question {
  const { epoch, wallMs } = committed ?? {}
  const ago = wallMs === undefined ? '' : `, of ${durationText(Math.max(0, Date.now() - wallMs))} ago`
  return {
    whether: `whether to stop ${id} now`,
    ask: `End the VMs of ${id} and lose what they did since epoch ${epoch}${ago}?`,
    otherwise: 'nothing was stopped'
  }
}
