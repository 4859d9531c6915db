/** `diapause why VM`: why a VM was moved, or was not. */
import type { Command } from 'commander'
import { MAX_AGO_MS } from '../../protocols/decisions/merge.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { whyText } from './why.ts'

interface WhyOptions {
  readonly group?: string
  readonly since?: string
  readonly json?: boolean
  readonly here?: boolean
  readonly all?: boolean
}

/** `command`: with the options of all commands that speak to a peer. */
export function whyCommand(
  command: Command,
  clientOf: (options: object) => Promise<ApiClient>,
  print: (text: string) => void
): void {
  command
    .description('show why a VM was moved, or was not: a timeline of what all peers noted')
    .option('--group <group>', 'the VM of this group; needed where several groups have one of that name')
    .option('--since <time>', 'how far back, e.g. 90s, 10m, 4h or 7d (default: all that is kept, its last episodes)')
    .option('--all', 'every line, and what came to nothing: suspicions that were refuted, leases that were renewed')
    .option('--here', 'only what this peer noted itself')
    .action(async (vm: string, options: WhyOptions) => {
      const agoMs = options.since === undefined ? MAX_AGO_MS : sinceMs(options.since)
      const client = await clientOf(options)
      const group = options.group ?? groupOf(vm, await client.groups())
      const story = await client.why({ group, vm, agoMs, here: options.here === true })
      const text = { all: options.all === true, long: options.since !== undefined }
      print(options.json === true ? JSON.stringify(story, null, 2) : whyText(story, text))
    })
}

const UNIT_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** '10m' in milliseconds. UsageError SINCE_INVALID. */
export function sinceMs(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  const ms = Number(digits) * (UNIT_MS[unit] ?? Number.NaN)
  if (ms > 0 && ms <= MAX_AGO_MS) return ms
  throw new UsageError('SINCE_INVALID', `--since ${text}: expected a number and s, m, h or d, e.g. 90s, 10m, 4h or 7d`)
}

/** The one group that has such a VM. UsageError VM_UNKNOWN, VM_AMBIGUOUS. */
export function groupOf(vm: string, groups: readonly GroupRecord[]): string {
  const having = groups.filter(group => group.vms.some(({ id }) => id === vm)).map(({ id }) => id)
  const [group, ...others] = having
  if (group === undefined) {
    const removed = 'of a group that was removed, name the group: --group GROUP'
    throw new UsageError('VM_UNKNOWN', `no group here has a VM "${vm}"; ${removed}`)
  }
  if (others.length > 0) {
    throw new UsageError('VM_AMBIGUOUS', `several groups have a VM "${vm}" (${having.join(', ')}): --group GROUP`)
  }
  return group
}
