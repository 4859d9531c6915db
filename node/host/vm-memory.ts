/** How much RAM this host gives to VMs (`hypervisor.vmMemoryMiB`). */
import { totalmem } from 'node:os'
import type { HypervisorSettings } from '../../config/schema.ts'

const MIB = 2 ** 20
/** The part of the host's memory that is left to the peer, each VM's QEMU beside its RAM, and the system. A guess. */
const LEFT = 0.15

/**
 * In MiB. Where VMs' RAM lies (`ramDir`) may hold less: a VM whose RAM does not fit there is cut another way, which is better than
 * not to run.
 */
export function vmMemoryMiB({ vmMemoryMiB: said }: Pick<HypervisorSettings, 'vmMemoryMiB'>): number {
  if (said !== undefined) return said
  const limit = process.constrainedMemory()
  const memory = limit > 0 ? Math.min(limit, totalmem()) : totalmem()
  return Math.floor(((1 - LEFT) * memory) / MIB)
}
