/** `diapause upgrade check`: which version each member runs, and whether the next may be stopped for a new one. */
import type { Command } from 'commander'
import { DiapauseError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { table } from './format.ts'
import { type UpgradeReport, upgradeReport } from './upgrade.ts'

export interface UpgradeHost {
  readonly version: string
  print(text: string): void
}

/** `speaking` makes a command that speaks to a peer, which `clientOf` its options finds. */
export function upgradeCommand(
  diapause: Command,
  host: UpgradeHost,
  speaking: (parent: Command, nameAndArguments: string) => Command,
  clientOf: (options: object) => Promise<ApiClient>
): void {
  const upgrade = diapause.command('upgrade').description('upgrade a running cluster, one peer at a time')
  speaking(upgrade, 'check')
    .description('which version each member runs, and whether one may be stopped for a new one; fails (1) where not')
    .action(async (options: { json?: boolean }) => {
      const report = upgradeReport(host.version, await (await clientOf(options)).overview())
      host.print(options.json ? JSON.stringify(report, null, 2) : upgradeText(report))
      if (report.waits.length > 0)
        throw new DiapauseError('UPGRADE_WAIT', `no peer is to be stopped now: ${report.waits.join('; ')}`)
    })
}

export function upgradeText({ program, members, waits, next, resting }: UpgradeReport): string {
  const rows = members.map(({ name, version, standing }) => [name, version ?? '?', standing])
  const newer = members.filter(({ standing }) => standing === 'newer').map(({ name }) => name)
  return [
    `this program is diapause ${program}`,
    ...table([['member', 'version', 'against it'], ...rows]),
    ...(newer.length === 0 ? [] : [`newer than this program: ${newer.join(', ')}; ask with theirs`]),
    ...resting.map(
      group =>
        `group ${group} rests: start it (diapause vm start ${group}) before you go back to a version without vm stop`
    ),
    ...(waits.length === 0 ? [next === null ? 'no member is older' : nextText(next)] : [])
  ].join('\n')
}

function nextText({ name, vms }: NonNullable<UpgradeReport['next']>): string {
  const moved = vms.length === 0 ? '' : ` (${vms.join(', ')} go on elsewhere from their last snapshot: take one before)`
  return `next: stop ${name}${moved}, install diapause there, start it, and check again`
}
