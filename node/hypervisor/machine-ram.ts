/**
 * RAM of one machine, and how its cuts are made: by its written pages ('dirty') where the host can track them and the VM's
 * specification allows it, else by background snapshots ('portable'). A VM that is held to a mode is never cut in the other:
 * held to 'dirty' it does not start where RAM cannot be tracked, and is not cut any more when its tracker has died.
 */
import type { VmSpec } from '../../protocols/group.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { CaptureNow, Log, RamTracking } from '../ports.ts'
import type { SharedRam } from './shared-ram.ts'

/** Not a shift: 2 GiB are more than 31 bits. */
const MIB = 1_048_576

export interface HostRam {
  /** RAM whose written pages are known; rejects where there is none to be had now. Undefined: never on this host. */
  readonly makeRam: ((bytes: number, waits: boolean) => Promise<SharedRam>) | undefined
  /** Why not, where it is undefined. */
  readonly captureWhy: string | undefined
  readonly log: Log
}

export class MachineRam {
  readonly #spec: VmSpec
  readonly #host: HostRam
  #ram: SharedRam | undefined
  #armed = false
  /** Why it is not tracked. */
  #why: string

  constructor(spec: VmSpec, host: HostRam) {
    this.#spec = spec
    this.#host = host
    const own = spec.capture === 'portable' ? 'its specification says so (capture = "portable")' : undefined
    this.#why = own ?? host.captureWhy ?? 'its RAM is not whole yet'
  }

  /** Defined while cuts send no RAM. */
  get tracking(): RamTracking | undefined {
    return this.#armed ? this.#ram : undefined
  }

  get capture(): CaptureNow {
    return this.#armed ? { mode: 'dirty' } : { mode: 'portable', why: this.#why }
  }

  /** What QEMU is to inherit; undefined: RAM is its own. `waits`: nobody makes room for it. HYPERVISOR_CAPTURE where the VM may not be cut so. */
  async make(waits = false): Promise<SharedRam | undefined> {
    if (this.#spec.capture === 'portable') return undefined
    try {
      this.#ram = await this.#host.makeRam?.(this.#spec.memoryMiB * MIB, waits)
    } catch (error) {
      this.#fallBack(error)
    }
    if (this.#ram === undefined) this.requireMode()
    return this.#ram
  }

  /** QEMU `pid` runs and uses no userfaultfd (of which only one can protect RAM at a time) as a post-copy does. As `make`. */
  async arm(pid: number | undefined): Promise<void> {
    const ram = this.#ram
    if (ram === undefined || pid === undefined) return
    try {
      await ram.arm(pid)
      this.#armed = true
      void ram.lost.then(why => {
        if (this.#armed) this.#fallBack(why)
      })
    } catch (error) {
      this.#fallBack(error)
      this.requireMode()
    }
  }

  /**
   * As `arm`, of a QEMU that waits and has written nothing: the caller fills the file and knows what it holds, so what is told of
   * is what the VM has written since it runs. The file's path. HYPERVISOR_CAPTURE where there is none.
   */
  async armEmpty(pid: number | undefined): Promise<string> {
    const ram = this.#ram
    if (ram !== undefined) {
      ram.requireEmpty()
      await this.arm(pid)
      if (this.#armed) {
        ram.isKnown()
        return ram.ramPath
      }
    }
    throw new DiapauseError('HYPERVISOR_CAPTURE', `VM ${this.#spec.id} cannot wait on a RAM file here: ${this.#why}`)
  }

  /** Throws HYPERVISOR_CAPTURE where the VM may only be cut by its written pages, and they are not known. */
  requireMode(): void {
    if (this.#armed || this.#spec.capture !== 'dirty') return
    throw new DiapauseError(
      'HYPERVISOR_CAPTURE',
      `VM ${this.#spec.id} may only be cut by copying what it writes (capture = "dirty"), which does not work here: ` +
        `${this.#why}. Mend that and start the VM again, run it on another host, or take capture out of its specification`
    )
  }

  async close(): Promise<void> {
    this.#armed = false
    await this.#ram?.close()
  }

  #fallBack(cause: unknown): void {
    this.#armed = false
    this.#why = messageOf(cause)
    const now =
      this.#spec.capture === 'dirty'
        ? 'this VM is not cut any more: it may only be cut by copying what it writes'
        : 'this VM is cut by background snapshots of all its RAM'
    this.#host.log.warn({ vm: this.#spec.id, why: this.#why }, now)
  }
}
