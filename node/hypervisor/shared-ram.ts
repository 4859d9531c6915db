/**
 * RAM of a VM as a file that its peer can read too, and the knowledge of which of its pages were written. The file has no
 * name: it is unlinked before QEMU starts, which gets it as an inherited descriptor, so nothing is left behind however
 * peer and QEMU die. The driver keeps a descriptor; others open `ramPath` for one of their own.
 */
import { execFile } from 'node:child_process'
import { close, closeSync, fstatSync, ftruncateSync, openSync, statfsSync, unlinkSync } from 'node:fs'
import { rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, PageRanges, RamTracking } from '../ports.ts'
import { type NativeParts, buildNative, underHandoff } from './native.ts'
import { RamRoom } from './ram-room.ts'
import { type Listening, SpareTracker } from './spare-tracker.ts'
import type { TrackerProcess } from './tracker.ts'

const run = promisify(execFile)

/** statfs(2): TMPFS_MAGIC. Elsewhere RAM would be written to a disk, and post-copy could not fill it. */
const TMPFS = 0x01021994
const PROBE_MS = 10_000
const PAGE_BYTES = 4096
/** Left free in the folder for others: whoever writes to a full tmpfs's mapping is killed (SIGBUS). A guess. */
const RESERVE_BYTES = 64 << 20

export interface ProbeOptions {
  /** On a tmpfs. */
  readonly folder: string
  readonly runDir: string
  readonly clock: Clock
  /** Of `buildNative`: its `own`. */
  readonly nativeDir?: string | undefined
}

/** RAM files of one driver, all in one folder. */
export class RamFolder {
  readonly #native: NativeParts
  readonly #folder: string
  readonly #trackers: SpareTracker
  readonly #open = new Set<SharedRam>()
  /** Of RAM that waits for room or for its helper: as much of it is promised as of what is open. */
  readonly #room = new RamRoom()
  #made = 0

  private constructor(native: NativeParts, folder: string, runDir: string, clock: Clock) {
    this.#native = native
    this.#folder = folder
    this.#trackers = new SpareTracker({ binary: native.tracker, runDir, clock })
  }

  /** Compiles the helpers and tries them in `folder`. Rejects with the reason for which this host cannot track RAM. */
  static async probe(options: ProbeOptions): Promise<RamFolder> {
    const { folder, runDir, clock, nativeDir } = options
    const native = await buildNative({ own: nativeDir })
    if ((await statfs(folder)).type !== TMPFS) {
      throw new DiapauseError('HYPERVISOR_TRACKING', `${folder} is no tmpfs (hypervisor.ramDir)`)
    }
    try {
      await run(native.tracker, ['probe', folder], { timeout: PROBE_MS, ...underHandoff(native) })
    } catch (cause) {
      const { stderr } = cause as { stderr?: string }
      throw new DiapauseError('HYPERVISOR_TRACKING', stderr?.trim() || messageOf(cause), { cause })
    }
    return new RamFolder(native, folder, runDir, clock)
  }

  /**
   * RAM for a VM that is about to start; rejects with HYPERVISOR_TRACKING where there is no room, also after `makeRoom`, or no
   * helper.
   */
  async make(bytes: number, makeRoom?: (bytes: number) => Promise<void>): Promise<SharedRam> {
    const requireRoom = (wanted: number, promised: number): void => this.#requireRoom(wanted, promised)
    const takeBack = await this.#room.promise(bytes, requireRoom, makeRoom)
    try {
      const fd = this.#createFile(bytes)
      let listening: Listening
      try {
        listening = await this.#trackers.take(bytes / PAGE_BYTES)
      } catch (error) {
        closeSync(fd)
        throw error
      }
      const ram: SharedRam = new SharedRam({
        fd,
        bytes,
        ...listening,
        handoff: this.#native.handoff,
        onClosed: () => void this.#open.delete(ram)
      })
      this.#open.add(ram)
      return ram
    } finally {
      takeBack()
    }
  }

  /** No RAM is made any more. */
  close(): Promise<void> {
    return this.#trackers.close()
  }

  /** tmpfs takes memory when it is written, so what the VMs here have not yet written is not free either. */
  #requireRoom(bytes: number, promised: number): void {
    const { bavail, bsize } = statfsSync(this.#folder)
    const all = [...this.#open].reduce((sum, ram) => sum + ram.unwrittenBytes, promised)
    const free = bavail * bsize - all - RESERVE_BYTES
    if (bytes <= free) return
    throw new DiapauseError(
      'HYPERVISOR_TRACKING',
      `${this.#folder} has room for ${inMiB(Math.max(0, free))} MiB, and the VM needs ${inMiB(bytes)} MiB: enlarge that tmpfs, or set hypervisor.ramDir`
    )
  }

  /** Synchronous, so that no end of this process can leave the name behind. */
  #createFile(bytes: number): number {
    const path = join(this.#folder, `diapause-${process.pid}-${++this.#made}`)
    const fd = openSync(path, 'wx+', 0o600)
    unlinkSync(path)
    ftruncateSync(fd, bytes)
    return fd
  }
}

const inMiB = (bytes: number): number => Math.floor(bytes / 1_048_576)

interface SharedRamParts {
  readonly fd: number
  readonly bytes: number
  readonly tracker: TrackerProcess
  readonly handoff: string
  readonly socketPath: string
  onClosed(): void
}

/** One VM's RAM. Made before QEMU, armed when the VM runs, closed when QEMU is gone. */
export class SharedRam implements RamTracking {
  readonly ramPath: string
  /** What QEMU inherits. */
  readonly fd: number
  readonly environment: Readonly<Record<string, string>>
  /** Resolves (never rejects) when pages cannot be tracked any more, with the reason. */
  readonly lost: Promise<DiapauseError>
  readonly #parts: SharedRamParts
  #everything = true
  #closed = false

  constructor(parts: SharedRamParts) {
    this.#parts = parts
    this.fd = parts.fd
    this.ramPath = `/proc/${process.pid}/fd/${parts.fd}`
    this.environment = { LD_PRELOAD: parts.handoff, DIAPAUSE_UFFD: parts.socketPath }
    this.lost = parts.tracker.ended
  }

  /** Bytes of the VM's RAM for which tmpfs has no memory yet. */
  get unwrittenBytes(): number {
    return this.#closed ? 0 : Math.max(0, this.#parts.bytes - fstatSync(this.fd).blocks * 512)
  }

  /** Begins to track QEMU `pid`, which has started and uses no userfaultfd of its own. HYPERVISOR_TRACKING. */
  async arm(pid: number): Promise<void> {
    const { tracker, bytes } = this.#parts
    const { dev, ino } = fstatSync(this.fd, { bigint: true })
    await tracker.arm(pid, { dev, ino, bytes })
  }

  /** HYPERVISOR_TRACKING where anything was written to it. */
  requireEmpty(): void {
    if (fstatSync(this.fd).blocks === 0) return
    throw new DiapauseError('HYPERVISOR_TRACKING', 'QEMU has written to RAM of a VM that it has not loaded yet')
  }

  /** What it holds is known: `changed` does not begin with all of it. */
  isKnown(): void {
    this.#everything = false
  }

  async changed(): Promise<PageRanges> {
    const ranges = await this.#parts.tracker.scan()
    if (!this.#everything) return ranges
    this.#everything = false
    return Uint32Array.of(0, this.#parts.bytes / PAGE_BYTES)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#parts.tracker.kill()
    this.#parts.onClosed()
    await promisify(close)(this.fd)
    await rm(this.#parts.socketPath, { force: true })
  }
}
