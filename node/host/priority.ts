/**
 * A peer that is woken late looks dead to the others and lengthens the pauses of its VMs, however little it has to do: so it
 * goes before the guests and before its own bulk work, as the membership daemons of other clusters do (Corosync runs with a
 * real-time scheduler). QEMU inherits this; its guests' threads and the image workers give way (`hypervisor/vcpus.ts`,
 * `image/priority.ts`).
 */
import { readdirSync, readFileSync } from 'node:fs'
import { setPriority } from 'node:os'

/** Ten steps are ten times the weight (sched(7)). */
const NICE = -10
/** The threads of V8 that collect garbage with the main thread, which waits for them. They run before any of our code does. */
const HELPERS = 'V8Worker'

/** For the calling thread, those it starts from now on, and V8's. False where that is not allowed (no CAP_SYS_NICE). */
export function goFirst(): boolean {
  try {
    setPriority(0, NICE)
    for (const thread of readdirSync('/proc/self/task')) {
      if (readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim() === HELPERS) setPriority(Number(thread), NICE)
    }
    return true
  } catch {
    return false
  }
}
