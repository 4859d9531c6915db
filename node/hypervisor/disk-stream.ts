/**
 * Disks that QEMU reads from elsewhere are made local while the VM runs: `block-stream` copies what lies in the bottom node of
 * a chain (NBD) into the layer above it, which nothing else writes, then the bottom leaves the chain and is closed. Layers
 * above may be cut and merged meanwhile. One disk after the other and not faster than told: what the guest reads itself
 * comes first. A stream whose source fails is begun again later, where it ended: what is there is not read twice.
 */
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { handled, type QmpClient } from './qmp.ts'
import { isRecord } from './qmp-protocol.ts'

/** Half of what a gigabit link carries: the cluster's other traffic is the epochs. A guess. */
const BYTES_PER_SECOND = 64 << 20
const PROGRESS_MS = 1_000
/** A source that failed may be back: a peer that restarts takes some seconds. A guess. */
const RETRY_MS = 2_000

/** Names of block nodes. */
export interface FarDisk {
  /** The layer that is to hold all. */
  readonly into: string
  /** Below it, at the end of the chain. */
  readonly from: string
}

export interface StreamProgress {
  /** What was looked at of one disk; zeros count. */
  readonly doneBytes: number
  readonly bytes: number
  readonly disk: number
}

export interface StreamOptions {
  readonly clock: Clock
  readonly log: Log
  /** For the log. */
  readonly vm: string
  readonly bytesPerSecond?: number
  readonly retryMs?: number
  onProgress?(progress: StreamProgress): void
}

/** Resolves when nothing of `disks` is read from their `from` any more, and these are closed. Rejects where QEMU is gone. */
export async function streamDisks(qmp: QmpClient, disks: readonly FarDisk[], options: StreamOptions): Promise<void> {
  const { clock, log, vm, retryMs = RETRY_MS } = options
  for (const [disk, nodes] of disks.entries()) {
    for (;;) {
      const error = await streamOnce(qmp, nodes, { job: `local-${nodes.into}`, disk }, options)
      if (error === undefined) break
      log.warn({ vm, disk, error }, 'a disk could not be made local yet: this is tried again')
      await new Promise<void>(resolve => clock.after(retryMs, resolve))
    }
    await qmp.command('blockdev-del', { 'node-name': nodes.from })
  }
}

/** The error with which the job ended; undefined: with success. */
async function streamOnce(
  qmp: QmpClient,
  { into }: FarDisk,
  { job, disk }: { readonly job: string; readonly disk: number },
  { clock, onProgress, bytesPerSecond = BYTES_PER_SECOND }: StreamOptions
): Promise<string | undefined> {
  const concluded = qmp.waitEvent('JOB_STATUS_CHANGE', ({ data }) => data.id === job && data.status === 'concluded')
  // Kept when it has ended: else nobody could ask how.
  const kept = { 'auto-dismiss': false, 'on-error': 'report' }
  const done = handled(concluded.then(() => true as const))
  try {
    await qmp.command('block-stream', { 'job-id': job, device: into, speed: bytesPerSecond, ...kept })
  } catch (error) {
    if (hasCode(error, 'QMP_REFUSED')) return messageOf(error)
    throw error
  }
  for (let ended = false; !ended; ) {
    const pause = Promise.withResolvers<false>()
    const disarm = clock.after(PROGRESS_MS, () => pause.resolve(false))
    ended = await Promise.race([done, pause.promise])
    disarm()
    const progress = ended ? undefined : await progressOf(qmp, job)
    if (progress) onProgress?.({ ...progress, disk })
  }
  const error = await errorOf(qmp, job)
  await qmp.command('job-dismiss', { id: job })
  return error
}

async function progressOf(qmp: QmpClient, job: string): Promise<Omit<StreamProgress, 'disk'> | undefined> {
  const found = await entry(qmp, 'query-block-jobs', ({ device }) => device === job)
  if (typeof found?.offset !== 'number' || typeof found.len !== 'number') return undefined
  return { doneBytes: found.offset, bytes: found.len }
}

async function errorOf(qmp: QmpClient, job: string): Promise<string | undefined> {
  const found = await entry(qmp, 'query-jobs', ({ id }) => id === job)
  if (found === undefined) throw new DiapauseError('QMP_MALFORMED', `QEMU does not know of job ${job}, which has ended`)
  return found.error === undefined ? undefined : messageOf(found.error)
}

async function entry(
  qmp: QmpClient,
  query: string,
  matches: (entry: Record<string, unknown>) => boolean
): Promise<Record<string, unknown> | undefined> {
  const list = await qmp.command(query)
  return Array.isArray(list) ? list.filter(isRecord).find(matches) : undefined
}
