/** `diapause verify` says how many losses what is stored bears, `diapause repair` makes it bear all that it should. */
import type { Command } from 'commander'
import { DiapauseError } from '../errors.ts'
import type { ImageHost } from './cli-images.ts'
import type { ApiClient } from './client.ts'
import { table } from './format.ts'
import {
  type ImageRedundancy,
  isWhole,
  type RepairReport,
  type VerifyReport,
  type WorkProgress
} from './redundancy-view.ts'
import { whileWaiting } from './waiting.ts'

interface Shared {
  readonly json?: boolean
}

/** Of a long list people are shown so many; `--json` has all. */
const SHOWN = 20

/** What was read, so that nobody takes more for checked than was. */
const DEEP =
  'read: every column by the member that has it, data and parity, and compared with its manifest; then the data of every stream, from wherever it comes first'

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function redundancyCommands(
  speaking: (nameAndArguments: string) => Command,
  host: ImageHost,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  /** `what` is waited for at first; after that what `work` tells of itself. */
  const following = <T>(
    what: string,
    work: (progress: (of: WorkProgress) => void, signal: AbortSignal) => Promise<T>
  ): Promise<T> =>
    host.interruptible(signal =>
      whileWaiting(host, what, now => work(({ text, done, total }) => now(`${text}: ${done} of ${total}`), signal))
    )
  speaking('verify [name]')
    .description(
      'look whether all that snapshots need is stored, of all groups or of a group or VM; fails (1) where not'
    )
    .option('--deep', 'read every column where it lies, parity too, and the data of every stream as a restore does')
    .action(async (name: string | undefined, options: Shared & { deep?: boolean }) => {
      const client = await clientOf(options)
      const wish = { name, deep: options.deep === true }
      const report = await following('what is stored is looked at', (progress, signal) =>
        client.verify(wish, progress, signal)
      )
      host.print(options.json ? JSON.stringify(report, null, 2) : verifyText(report))
      if (!isWhole(report))
        throw new DiapauseError('REDUNDANCY_LACKS', 'something is missing: `diapause repair` mends what can be')
    })
  speaking('repair')
    .description('rebuild now what is missing, also of members that are only dead; fails (1) where that cannot be')
    .action(async (options: Shared) => {
      const client = await clientOf(options)
      const report = await following('what is missing is looked for', (progress, signal) =>
        client.repair(progress, signal)
      )
      host.print(options.json ? JSON.stringify(report, null, 2) : repairText(report))
      if (report.impossible.length > 0)
        throw new DiapauseError('REPAIR_IMPOSSIBLE', 'not everything can be repaired now')
    })
}

export function verifyText(report: VerifyReport): string {
  const { images, missing, damaged, unreadable, silent, deep } = report
  const rows = images.map(image => [
    `${image.group}/${image.vm}`,
    String(image.epoch),
    String(image.streams),
    String(image.columns),
    String(image.missing),
    toleratesText(image)
  ])
  return [
    ...(rows.length === 0
      ? ['no snapshot is kept']
      : table([['vm', 'epoch', 'streams', 'columns', 'missing', 'bears'], ...rows])),
    ...(silent.length === 0 ? [] : [`out of reach: ${silent.join(', ')}`]),
    ...shown(missing, ({ stream, column, holder }) => `missing: column ${column} of ${stream} (of ${holder})`),
    ...shown(damaged, ({ stream, grid, column, member }) => {
      return `damaged: column ${column} of grid ${grid} of ${stream} at ${member}, which repairs it`
    }),
    ...shown(unreadable, ({ what, why }) => `cannot be read: ${what}: ${why}`),
    ...(deep ? [DEEP] : []),
    isWhole(report) ? `nothing is missing${deep ? ' or damaged' : ''}` : 'not everything is there'
  ].join('\n')
}

export function repairText({ rebuilt, impossible }: RepairReport): string {
  const done = rebuilt === 0 ? 'nothing was rebuilt' : `${rebuilt} columns were rebuilt`
  if (impossible.length === 0) return `${done}; nothing is missing`
  return [done, ...shown(impossible, ({ what, why }) => `not repaired: ${what}: ${why}`)].join('\n')
}

function toleratesText({ tolerates }: ImageRedundancy): string {
  if (tolerates < 0) return 'CANNOT BE READ NOW'
  if (tolerates === 0) return 'no loss'
  return tolerates === 1 ? 'the loss of any member' : `the loss of any ${tolerates} members`
}

function shown<T>(all: readonly T[], text: (each: T) => string): string[] {
  const more = all.length - SHOWN
  return [...all.slice(0, SHOWN).map(text), ...(more > 0 ? [`… and ${more} more (--json has all)`] : [])]
}
