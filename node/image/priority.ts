/** The scheduling priority of one thread of this process. Linux only, as everything here. */
import { readlinkSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'

/** Ten steps are a tenth of the weight (sched(7)): what waits for nobody gives way to what a VM waits for. */
const NICE = 10

/**
 * Packing an image is seconds of work that nobody waits for, while elsewhere on the host a VM may stand still for its
 * cut: with the same priority the cuts of a group's other VMs took 57 to 115 ms beside it (three VMs, two cores). So
 * the thread gives way, but not while its own VM is cut: it has nothing to do then, and yet the main thread waits for
 * it at times, within V8 (for a lock in garbage collection, as the scheduler's trace showed: 20 ms of a pause).
 */
export class ThreadPriority {
  readonly #thread: number
  readonly #before: number

  private constructor(thread: number) {
    this.#thread = thread
    this.#before = getPriority(thread)
  }

  /** Of the calling thread. */
  static own(): ThreadPriority {
    // The link names the thread that reads it: PID/task/TID.
    return new ThreadPriority(Number(readlinkSync('/proc/thread-self').split('/').at(-1)))
  }

  giveWay(): void {
    this.#set(NICE)
  }

  /** As before `giveWay`: needs CAP_SYS_NICE, else nothing changes. */
  goOn(): void {
    this.#set(this.#before)
  }

  #set(nice: number): void {
    try {
      setPriority(this.#thread, nice)
    } catch {
      // Not allowed here (another user, seccomp): longer cuts on a busy host, nothing worse.
    }
  }
}
