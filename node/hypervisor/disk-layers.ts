/**
 * The disks of one running VM: the files of their chains (`disk-chain.ts`), the transaction of a cut, and the jobs that merge
 * layers and stream what is still elsewhere, one at a time and only while they disturb no cut. A job that fails harms
 * nothing: the chain stays as it is, and longer.
 *
 * A cut that sends devices (device-state.ts) has QEMU give up all its disks for a moment, and that fails while a job writes
 * to one. So jobs are held from `prepare` to `goOn`: one that is under way may end by itself for a while, which doubles
 * each time it does not suffice (a merge that is cancelled begins again), and is cancelled then.
 *
 * No job ends by itself: it waits until it is told to change the chain. Whenever a VM is stopped, also by its guest, QEMU 7.2 drains all
 * disks; a job that changes a chain within that leaves it drained for ever, and what the guest asks of its disk waits as long.
 */
import { closeSync, ftruncateSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, DiskControl, DiskFile, Log, MachineDisks } from '../ports.ts'
import { type DiskSpec, disksOf, type VmSpec } from '../../protocols/group.ts'
import { chainsOf, diskArguments, type DiskChain, type DiskJob, type Layer } from './disk-chain.ts'
import { readQcow2Header } from './qcow2.ts'
import { emptyLayer } from './qcow2-layer.ts'
import type { QmpClient } from './qmp.ts'

const MIB = 1_048_576
/** What a merge after an ordinary epoch takes; a guess. */
const PATIENCE_MS = 50
/** Longest wait for a job before a cut. A guess: at 500 MB/s a merge of 10 GB. */
const MAX_PATIENCE_MS = 20_000
/** To a job that failed. What is elsewhere may be back after some seconds (a peer that restarts). A guess. */
const RETRY_MS = 2_000
/** Chains that are as long are told of: each read looks into every layer. A guess. */
const LONG_CHAIN = 64

export class DiskLayers implements DiskControl {
  readonly #vm: VmSpec
  readonly #folder: string
  readonly #chains: readonly DiskChain[]
  readonly #log: Log
  readonly #clock: Clock
  #qmp: QmpClient | undefined
  /** The job under way; resolves when QEMU has ended it. Never rejects. */
  #job: { readonly id: string; readonly kind: DiskJob['kind']; readonly ended: Promise<void> } | undefined
  #jobs = 0
  #held = true
  #inCut = false
  /** `goOn` was called: while a VM is restored its disks are left alone. */
  #begun = false
  #patienceMs = PATIENCE_MS
  #warnedAt = LONG_CHAIN
  readonly #here = Promise.withResolvers<void>()

  constructor(vm: VmSpec, disks: MachineDisks | undefined, { log, clock }: { log: Log; clock: Clock }) {
    this.#vm = vm
    this.#log = log
    this.#clock = clock
    this.#folder = disks?.folder ?? ''
    this.#chains = chainsOf(vm, this.#folder, disks?.starts ?? [])
    if (this.#chains.length !== (disks?.starts.length ?? 0)) {
      throw new DiapauseError(
        'HYPERVISOR_DISKS',
        `VM ${vm.id}: its disks were not given. This is a mistake of the program`
      )
    }
    this.#settleHere()
  }

  /** On the command line. */
  get arguments(): readonly string[] {
    return diskArguments(this.#chains, this.#vm)
  }

  get here(): Promise<void> {
    return this.#here.promise
  }

  /**
   * Makes the files that QEMU opens at its start. HYPERVISOR_DISK where a base cannot be used or there is no room. A base is
   * not asked for where the disk comes out of an image, which holds all of it: this host need not have the base.
   */
  async create(): Promise<void> {
    if (this.#chains.length === 0) return
    try {
      for (const [i, disk] of disksOf(this.#vm).entries()) if (!this.#chains[i]?.remote) requireBase(disk)
      await rm(this.#folder, { recursive: true, force: true })
      await mkdir(this.#folder, { recursive: true, mode: 0o700 })
      for (const chain of this.#chains) for (const { path } of chain.first) createLayer(path, chain.diskBytes)
    } catch (cause) {
      throw new DiapauseError('HYPERVISOR_DISK', `A disk of VM ${this.#vm.id} cannot be used: ${messageOf(cause)}`, {
        cause
      })
    }
  }

  /** QEMU answers. `onError`: it has stopped the VM because a disk cannot be read or written. */
  attach(qmp: QmpClient, onError: (why: DiapauseError) => void): void {
    if (this.#chains.length === 0) return
    this.#qmp = qmp
    qmp.waitEvent('BLOCK_IO_ERROR').then(
      ({ data }) => {
        const { operation, reason, device, 'node-name': node } = data
        const what = `a ${String(operation)} of ${String(device || node)} failed: ${String(reason)}`
        onError(new DiapauseError('HYPERVISOR_DISK', `it could not use its disk (${what})`, { details: { ...data } }))
      },
      () => {} // it has ended
    )
  }

  /**
   * Makes a cut short: the layers that are written after it. With `alone` no job runs from now on until `goOn`.
   * HYPERVISOR_DISK where that fails; the VM runs on.
   */
  async prepare(alone: boolean): Promise<void> {
    const qmp = this.#qmp
    if (!qmp) return
    for (const chain of this.#chains) chain.apart() // what is frozen is about to be read
    if (alone || this.#job?.kind === 'join') await this.#hold(qmp)
    for (const chain of this.#chains) {
      const wanted = chain.wanted()
      if (!wanted) continue
      // While a job was waited for QEMU may have gone, and the folder with it.
      if (this.#qmp !== qmp) throw new DiapauseError('QMP_CLOSED', 'QEMU has ended')
      try {
        createLayer(wanted.layer.path, chain.diskBytes)
        await qmp.command('blockdev-add', wanted.node)
      } catch (cause) {
        if (cause instanceof DiapauseError && !hasCode(cause, 'QMP_REFUSED')) throw cause
        throw new DiapauseError('HYPERVISOR_DISK', `No layer could be added to a disk: ${messageOf(cause)}`, { cause })
      }
      chain.added(wanted.layer)
    }
  }

  /** As `prepare`; from now on until `goOn` nothing but that lets jobs run. */
  async enterCut(alone: boolean): Promise<void> {
    this.#inCut = alone // before it waits: nothing may begin meanwhile
    try {
      await this.prepare(alone)
    } catch (error) {
      this.#inCut = false
      throw error
    }
  }

  /** The VM stands still, and was prepared: all disks are frozen as they are, at once. HYPERVISOR_DISK: none is. */
  async freeze(): Promise<void> {
    if (!this.#qmp) return
    try {
      await this.#qmp.command('transaction', { actions: this.#chains.map(chain => chain.snapshot()) })
    } catch (cause) {
      if (!hasCode(cause, 'QMP_REFUSED')) throw cause
      throw new DiapauseError('HYPERVISOR_DISK', `The disks could not be frozen: ${messageOf(cause)}`, { cause })
    }
    for (const chain of this.#chains) chain.turned()
    const length = Math.max(...this.#chains.map(chain => chain.length))
    if (length < this.#warnedAt) return
    this.#warnedAt = 2 * length
    this.#log.warn({ vm: this.#vm.id, layers: length }, 'layers of a disk are made faster than they are merged')
  }

  /** Frozen and not released, oldest first. */
  get frozen(): readonly DiskFile[] {
    return this.#chains.flatMap(chain => chain.frozen())
  }

  release(layers: readonly DiskFile[]): void {
    const paths = new Set(layers.map(({ path }) => path))
    for (const chain of this.#chains) chain.release(paths)
    this.#nextUnlessInCut()
  }

  join(): void {
    for (const chain of this.#chains) chain.join()
    this.#nextUnlessInCut()
  }

  #nextUnlessInCut(): void {
    // A cut that was prepared may have come to nothing.
    if (!this.#inCut && this.#begun) this.#held = false
    this.#next()
  }

  /** No cut is to come for now. */
  goOn(): void {
    this.#held = false
    this.#inCut = false
    this.#begun = true
    this.#next()
  }

  /** QEMU is gone. */
  async remove(): Promise<void> {
    this.#held = true
    this.#qmp = undefined
    if (this.#chains.length > 0) await rm(this.#folder, { recursive: true, force: true })
  }

  async #hold(qmp: QmpClient): Promise<void> {
    this.#held = true
    const job = this.#job
    if (!job) return
    // A stream goes on where it was: it costs nothing to break it off.
    if (job.kind !== 'stream') {
      if (!(await this.#lateAfter(job.ended, this.#patienceMs))) return
      this.#patienceMs = Math.min(2 * this.#patienceMs, MAX_PATIENCE_MS)
    }
    await qmp.command('block-job-cancel', { device: job.id }).catch(unlessRefused) // it may have ended just now
    await job.ended
  }

  async #lateAfter(done: Promise<void>, ms: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const disarm = this.#clock.after(ms, () => resolve(true))
    const late = await Promise.race([promise, done.then(() => false)])
    disarm()
    return late
  }

  /** Begins the next job where none is under way. */
  #next(): void {
    const qmp = this.#qmp
    if (this.#held || this.#job || !qmp) return
    const job = this.#chains.map(chain => chain.job()).find(each => each !== undefined)
    if (!job) return
    const id = `job${++this.#jobs}`
    const outcome = this.#run(qmp, id, job)
    const ended = outcome.then(
      () => {},
      () => {}
    )
    this.#job = { id, kind: job.kind, ended }
    outcome.then(
      completed => {
        this.#job = undefined
        if (completed) this.#patienceMs = PATIENCE_MS
        this.#next()
      },
      (error: unknown) => {
        // Not again at once: the next cut or release tries, or a while later.
        this.#job = undefined
        if (!this.#qmp) return
        this.#log.warn({ vm: this.#vm.id, job: job.kind, why: messageOf(error) }, 'a job on a disk came to nothing')
        this.#clock.after(RETRY_MS, () => this.#next())
      }
    )
  }

  /** False where it was cancelled. */
  async #run(qmp: QmpClient, id: string, job: DiskJob): Promise<boolean> {
    const over = new AbortController()
    const ends = ['BLOCK_JOB_COMPLETED', 'BLOCK_JOB_CANCELLED']
    const ended = qmp.waitEvent(ends, ({ data }) => data.device === id, over.signal)
    const done = qmp.waitEvent('BLOCK_JOB_PENDING', ({ data }) => data.id === id, over.signal)
    // Where it is refused it is just being cancelled, and where QEMU has gone nothing is left of it.
    done.then(() => qmp.command('job-finalize', { id })).catch(() => {})
    const command = job.kind === 'stream' ? 'block-stream' : 'block-commit'
    const how = { 'job-id': id, 'auto-finalize': false, ...job.arguments }
    await qmp.command(command, how).catch((error: unknown) => {
      over.abort(error) // of a job that has not begun nothing will ever be told, and this waits as long as the VM lives
      throw error
    })
    const { name, data } = await ended
    over.abort()
    if (name === 'BLOCK_JOB_CANCELLED') return false
    if (typeof data.error === 'string') {
      throw new DiapauseError('HYPERVISOR_DISK', `a job of QEMU's failed: ${data.error}`)
    }
    const chain = this.#chains[job.disk]
    const remote = chain?.remote
    for (const { node, path } of chain?.done(job) ?? []) {
      await qmp.command('blockdev-del', { 'node-name': node })
      await rm(path, { force: true })
    }
    if (job.kind === 'stream') await qmp.command('blockdev-del', { 'node-name': remote })
    this.#settleHere()
    return true
  }

  #settleHere(): void {
    if (this.#chains.every(({ remote }) => remote === undefined)) this.#here.resolve()
  }
}

function unlessRefused(error: unknown): void {
  if (!hasCode(error, 'QMP_REFUSED')) throw error
}

/** Synchronous: two system calls, and a cut is waiting. */
function createLayer(path: Layer['path'], diskBytes: number): void {
  const { head, fileBytes } = emptyLayer(diskBytes)
  const fd = openSync(path, 'w', 0o600)
  try {
    writeSync(fd, head, 0, head.length, 0)
    ftruncateSync(fd, fileBytes)
  } finally {
    closeSync(fd)
  }
}

/** What is captured of a base must be what the guest sees of it. */
function requireBase({ base, sizeMiB }: DiskSpec): void {
  if (!base) return
  const about = statSync(base.path)
  // QEMU refuses others, too; opening a pipe would wait for its writer.
  if (!about.isFile()) throw new DiapauseError('DISK_BASE', `${base.path} is no file`)
  const fd = openSync(base.path, 'r')
  try {
    const bytes = about.size
    if (base.format === 'raw') return requireSize(base.path, bytes, sizeMiB)
    const read = (offset: number, length: number): Uint8Array => {
      const chunk = Buffer.alloc(length)
      return chunk.subarray(0, readSync(fd, chunk, 0, length, offset))
    }
    const { diskBytes, hasBacking } = readQcow2Header({ bytes, read })
    if (hasBacking) {
      throw new DiapauseError(
        'QCOW2_UNSUPPORTED',
        `${base.path} leans on another image: make one of both (qemu-img convert)`
      )
    }
    requireSize(base.path, diskBytes, sizeMiB)
  } finally {
    closeSync(fd)
  }
}

function requireSize(path: string, bytes: number, sizeMiB: number): void {
  if (bytes <= sizeMiB * MIB) return
  throw new DiapauseError(
    'DISK_SIZE',
    `${path} holds ${bytes} bytes, and the disk has ${sizeMiB} MiB: make that larger`
  )
}
