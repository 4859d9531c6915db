/**
 * The threads that run a guest give way to those that serve it. On a host whose processors are all busy the guests' own
 * work would otherwise lengthen each other's cuts: QEMU's other threads and the peer are woken a dozen times in one.
 *
 * While a VM is cut its own vCPUs go first instead: they run no guest then, but QEMU waits for each of them, when it
 * stops them and again when it sends the devices (an empty call on every vCPU, so that none is within a write). With
 * the low priority that wait was 37 to 51 ms of the slowest pauses, on two busy cores.
 */
import { setPriority } from 'node:os'
import { isRecord } from './qmp-protocol.ts'
import type { QmpClient } from './qmp.ts'

/** A third of the weight (sched(7)): enough to be second, far from starved. Anybody may raise the niceness of its own. */
const NICE = 5
/** As the peer's (`host/priority.ts`). */
const NICE_IN_A_CUT = -10

export class Vcpus {
  readonly #threads: readonly number[]

  private constructor(threads: readonly number[]) {
    this.#threads = threads
  }

  static async of(qmp: QmpClient): Promise<Vcpus> {
    const vcpus = await qmp.command('query-cpus-fast')
    const threads = (Array.isArray(vcpus) ? vcpus : []).map((vcpu): unknown =>
      isRecord(vcpu) ? vcpu['thread-id'] : undefined
    )
    return new Vcpus(threads.filter(thread => typeof thread === 'number'))
  }

  giveWay(): void {
    this.#set(NICE)
  }

  /** Needs CAP_SYS_NICE; without it they stay where they are. */
  goFirst(): void {
    this.#set(NICE_IN_A_CUT)
  }

  #set(nice: number): void {
    for (const thread of this.#threads) {
      try {
        setPriority(thread, nice)
      } catch {
        // Not allowed here (another user, seccomp), or the VM is gone: longer cuts on a busy host, nothing worse.
      }
    }
  }
}
