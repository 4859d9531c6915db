/** Where VMs would go on hosts that give so much memory, and which would find no room, before anything is bought. */
import { placeVms } from '../planning.ts' // from 'diapause/planning'

export function roomFor(
  vmsMiB: Readonly<Record<string, number>>,
  hostsMiB: Readonly<Record<string, number>>
): { owners: Readonly<Record<string, string>>; homeless: string[] } {
  const vms = Object.entries(vmsMiB).map(([id, memoryMiB]) => ({ id, memoryMiB }))
  const known = Object.entries(hostsMiB).map(([peer, vmMemoryMiB]) => ({ peer, vmMemoryMiB }))
  const { owners, homeless } = placeVms(vms, {}, { hosts: Object.keys(hostsMiB), groups: [], known })
  return { owners, homeless: homeless.map(({ id }) => id) }
}
