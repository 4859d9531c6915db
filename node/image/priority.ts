/** The scheduling priority of one thread of this process. Linux only, as everything here. */
import { readlinkSync } from 'node:fs'
import { setPriority } from 'node:os'

/** Ten steps are a tenth of the weight (sched(7)): what waits for nobody gives way to what a VM waits for. */
const NICE = 10

/**
 * Lets the calling thread give way to all others for good. Packing an image is seconds of work that nobody waits for,
 * while elsewhere on the host a VM may stand still for its cut: with the same priority the cuts of a group's other VMs
 * took 57 to 115 ms beside it (three VMs, two cores).
 */
export function giveWay(): void {
  // The link names the thread that reads it: PID/task/TID.
  const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1))
  try {
    setPriority(thread, NICE)
  } catch {
    // Not allowed here (seccomp): slower cuts, nothing worse.
  }
}
