/** How much RAM this host gives to VMs (`hypervisor.vmMemoryMiB`). */
import { statfs } from 'node:fs/promises'
import { totalmem } from 'node:os'
import type { HypervisorSettings } from '../../config/schema.ts'

const MIB = 2 ** 20
/** The part of the host's memory that is left to the peer, each VM's QEMU beside its RAM, and the system. A guess. */
const LEFT = 0.15

/** In MiB. `capture`: how VMs of this host are cut; those with `dirty` have their RAM in `ramDir`, which bounds it, too. */
export async function vmMemoryMiB(
  { vmMemoryMiB: said, ramDir }: Pick<HypervisorSettings, 'vmMemoryMiB' | 'ramDir'>,
  capture: 'dirty' | 'portable' | undefined
): Promise<number> {
  if (said !== undefined) return said
  const limit = process.constrainedMemory()
  const memory = limit > 0 ? Math.min(limit, totalmem()) : totalmem()
  const most = Math.floor(((1 - LEFT) * memory) / MIB)
  if (capture !== 'dirty') return most
  try {
    const { blocks, bsize } = await statfs(ramDir)
    return Math.min(most, Math.floor((blocks * bsize) / MIB))
  } catch {
    return most // the hypervisor says what is wrong with the folder
  }
}
