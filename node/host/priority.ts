/**
 * A peer that is woken late looks dead to the others and lengthens the pauses of its VMs, however little it has to do: so it
 * goes before the guests and before its own bulk work, as the membership daemons of other clusters do (Corosync runs with a
 * real-time scheduler). QEMU inherits this; its guests' threads and the image workers give way (`hypervisor/vcpus.ts`,
 * `image/priority.ts`).
 */
import { setPriority } from 'node:os'

/** Ten steps are ten times the weight (sched(7)). */
const NICE = -10

/** For the calling thread and those it starts from now on. False where that is not allowed (no CAP_SYS_NICE). */
export function goFirst(): boolean {
  try {
    setPriority(0, NICE)
    return true
  } catch {
    return false
  }
}
