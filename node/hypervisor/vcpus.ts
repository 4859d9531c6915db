/**
 * The threads that run a guest give way to those that serve it. On a host whose processors are all busy the guests' own
 * work would otherwise lengthen each other's cuts: QEMU's other threads and the peer are woken a dozen times in one.
 */
import { setPriority } from 'node:os'
import { isRecord } from './qmp-protocol.ts'
import type { QmpClient } from './qmp.ts'

/** A third of the weight (sched(7)): enough to be second, far from starved. Anybody may raise the niceness of its own. */
const NICE = 5

export async function letGuestGiveWay(qmp: QmpClient): Promise<void> {
  const vcpus = await qmp.command('query-cpus-fast')
  for (const vcpu of Array.isArray(vcpus) ? vcpus : []) {
    const thread: unknown = isRecord(vcpu) ? vcpu['thread-id'] : undefined
    if (typeof thread !== 'number') continue
    try {
      setPriority(thread, NICE)
    } catch {
      // Not allowed here (another user, seccomp): longer cuts on a busy host, nothing worse.
    }
  }
}
