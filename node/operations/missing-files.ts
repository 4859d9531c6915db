/** Hosts that lack what VMs boot from: nobody finds out why a VM starts nowhere, so nothing is made that would not start. */
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import type { LackingHost } from '../agents/boot-files.ts'
import { UsageError } from '../errors.ts'

/** UsageError FILES_MISSING where there are any. `hint`: what else can be done. */
export function requireNoneLacking(record: ClusterRecord, lacking: readonly LackingHost[], hint = ''): void {
  if (lacking.length === 0) return
  const at = lacking.map(({ peer, paths }) => `${paths.join(' and ')} at ${memberById(record, peer)?.name ?? peer}`)
  throw new UsageError(
    'FILES_MISSING',
    `The VMs boot from files that are not there: ${at.toSorted().join(', ')}. Put them on every host that may run the VMs, at the same paths.${hint} Nothing was made.`,
    { details: { lacking } }
  )
}
