/**
 * The driver's half of QEMU's migration: background snapshots out, post-copy in. The stream itself is the image
 * worker's.
 *
 * A background snapshot of a stopped VM saves the devices, write-protects RAM by userfaultfd, and then streams RAM
 * while the VM runs. Up to 8.2 QEMU starts the VM again by itself (it calls `vm_start`); from 9.0 on it restores the
 * state before, which is "stopped" (it calls `vm_resume`). There the VM is continued by us, as soon as that is right:
 * pages are only sent once RAM is write-protected, so the first page counted in `query-migrate` says that it is.
 *
 * **A stream that breaks off kills the VM.** Where the receiver closes its socket, QEMU (7.2.22, measured) leaves RAM
 * write-protected, with nobody to lift that: every thread that writes to RAM, the main loop with QMP included, waits
 * for ever, and a second snapshot cannot help. So receivers must read to the end, also when they want it no more; and
 * a receiver that pauses for long pauses the VM, because a page is writable only after it has been sent.
 */
import { DiapauseError } from '../errors.ts'
import type { Clock } from '../ports.ts'
import { handled, type QmpClient } from './qmp.ts'
import { isRecord, type QmpEvent } from './qmp-protocol.ts'
import type { GuestPower } from './resets.ts'

/** Bytes a second; QEMU's default of 128 MB/s would stretch every snapshot. 20 GB/s is "no limit". */
const MAX_BANDWIDTH = 20_000_000_000
const POLL_MS = 1
/** A BIOS that begins anew resets twice more at most (measured, SeaBIOS of QEMU 7.2). A guess of what is enough for any. */
const MAX_STOPS = 10
/** States that QEMU enters by itself, and out of which nobody is to take a VM: its processor or a device has failed. */
const STUCK = ['internal-error', 'io-error', 'guest-panicked', 'watchdog']

/**
 * What is migrated next: RAM and devices of a VM that goes on, or of one that stays (whole-stream.ts), devices alone
 * (device-state.ts), or everything in.
 */
export type Mode = 'snapshot' | 'whole' | 'devices' | 'postcopy'

const WORDS = {
  snapshot: 'background snapshots',
  whole: 'migrations',
  devices: 'streams without shared RAM',
  postcopy: 'post-copy'
}

/** Sets what lasts for a mode. Their capabilities exclude each other. HYPERVISOR_SNAPSHOT where the host cannot. */
export async function prepare(qmp: QmpClient, mode: Mode): Promise<void> {
  const wanted = {
    events: true,
    'postcopy-ram': mode === 'postcopy',
    'background-snapshot': mode === 'snapshot',
    'x-ignore-shared': mode === 'devices',
    'pause-before-switchover': mode === 'devices'
  }
  const capabilities = Object.entries(wanted).map(([capability, state]) => ({ capability, state }))
  try {
    await qmp.command('migrate-set-capabilities', { capabilities })
    await qmp.command('migrate-set-parameters', { 'max-bandwidth': MAX_BANDWIDTH })
  } catch (cause) {
    if (!(cause instanceof DiapauseError) || cause.code !== 'QMP_REFUSED') throw cause
    throw new DiapauseError(
      'HYPERVISOR_SNAPSHOT',
      `This host's QEMU cannot do ${WORDS[mode]}: ${cause.message}. ` +
        'It needs Linux 5.7 or later and the right to use userfaultfd (root, or sysctl vm.unprivileged_userfaultfd=1)',
      { cause }
    )
  }
}

/** The VM's state, as `query-status` names it. HYPERVISOR_STOPPED where it has stopped by itself, for good. */
export async function runState(qmp: Pick<QmpClient, 'command'>): Promise<string> {
  const reply = await qmp.command('query-status')
  const status = isRecord(reply) ? String(reply.status) : ''
  if (!STUCK.includes(status)) return status
  throw new DiapauseError('HYPERVISOR_STOPPED', `it has stopped by itself and cannot go on (QEMU says ${status})`, {
    details: { status }
  })
}

/**
 * Stops a VM so that a background snapshot may be taken; the moment it stopped, by the clock given.
 *
 * The processor of a guest that resets its machine asks QEMU's main loop for it. Where that is just stopping the VM, it
 * resets the stopped one, which is 'prelaunch' then. A snapshot begins with the state 'paused', and no way leads there from
 * 'prelaunch' (`runstate_transitions_def` in runstate.c, from 7.2 to the newest): QEMU aborts. `stop` does nothing to a VM that
 * stands still, so that one goes on for a moment and is stopped again. Once `query-status` has been answered the main loop has
 * had its turn, and nobody is left who could ask for a reset. A guest that turns itself off in that moment boots anew first.
 *
 * HYPERVISOR_CUT where the guest resets again and again; it runs then. HYPERVISOR_STOPPED as `runState`.
 */
export async function standStill(
  qmp: QmpClient,
  clock: Clock,
  bootAnew: GuestPower['bootAnew'] = async () => false
): Promise<number> {
  for (let stops = 0; stops < MAX_STOPS; stops++) {
    const stoppedAtMs = clock.now()
    await qmp.command('stop')
    const state = await runState(qmp)
    if (await bootAnew()) continue
    if (state !== 'prelaunch') return stoppedAtMs
    await qmp.command('cont')
  }
  throw new DiapauseError(
    'HYPERVISOR_CUT',
    'The guest resets its machine again and again; it runs on without a snapshot'
  )
}

/** The next end of a migration: completed, failed, cancelled, or (incoming) postcopy-paused: its source is gone. */
export function migrationEnd(qmp: QmpClient): Promise<QmpEvent> {
  const ends = ['completed', 'failed', 'cancelled', 'postcopy-paused']
  return qmp.waitEvent('MIGRATION', event => ends.includes(String(event.data.status)))
}

/**
 * Starts a background snapshot of the stopped VM to the unix socket `path` and resolves when the VM runs again;
 * `streamed` settles when all is sent. Rejects with HYPERVISOR_CUT where it could not be started, the VM running again
 * in that case, too. HYPERVISOR_STREAM, from here or from `streamed`, means that the VM is lost: see above.
 */
export async function backgroundSnapshot(
  qmp: QmpClient,
  options: { readonly path: string; readonly resumesByItself: boolean; readonly clock: Clock }
): Promise<{ streamed: Promise<void> }> {
  const resumed = handled(qmp.waitEvent('RESUME').then(() => 'resumed'))
  let begun = false
  void handled(qmp.waitEvent('MIGRATION', event => event.data.status === 'active').then(() => (begun = true)))
  const ended = migrationEnd(qmp)
  try {
    await qmp.command('migrate', { uri: `unix:${options.path}` })
  } catch (cause) {
    await qmp.command('cont')
    throw cutFailed(options.path, cause)
  }
  const first = handled(Promise.race([resumed, ended.then(event => String(event.data.status))]))
  if (!options.resumesByItself) await continueOnceProtected(qmp, first, options.clock)
  const outcome = await first
  if (outcome !== 'resumed' && outcome !== 'completed') {
    // Before it is 'active' it has not come so far as to protect anything.
    if (begun) throw brokenOff(outcome)
    const why = await failureOf(qmp)
    await continueIfStopped(qmp)
    throw cutFailed(options.path, why)
  }
  await resumed
  return { streamed: handled(settled(qmp, ended)) }
}

async function settled(qmp: QmpClient, ended: Promise<QmpEvent>): Promise<void> {
  const status = String((await ended).data.status)
  // Nothing is asked of QEMU here: it would not answer. Events come from another of its threads.
  if (status !== 'completed') throw brokenOff(status)
  await cleanedUp(qmp)
}

/** A migration's last event comes before QEMU has cleaned up, which its main loop does: two turns of that, and it may migrate again. */
export async function cleanedUp(qmp: QmpClient): Promise<void> {
  await qmp.command('query-status')
  await qmp.command('query-status')
}

function brokenOff(status: string): DiapauseError {
  return new DiapauseError(
    'HYPERVISOR_STREAM',
    `The snapshot's stream broke off (QEMU says ${status}), which leaves the VM's memory write-protected for ever: ` +
      'a receiver must read to the end',
    { details: { status } }
  )
}

/** For QEMU 9.0 and later, see above. `first` is the snapshot's first sign: resumed, or how it ended. */
async function continueOnceProtected(qmp: QmpClient, first: Promise<string>, clock: Clock): Promise<void> {
  let sign = ''
  const noted = handled(
    first.then(outcome => {
      sign = outcome
    })
  )
  while (sign === '' && !(await sendsPages(qmp))) {
    await Promise.race([noted, new Promise<void>(resolve => clock.after(POLL_MS, resolve))])
  }
  if (sign === '' || sign === 'completed') await qmp.command('cont')
}

async function sendsPages(qmp: QmpClient): Promise<boolean> {
  const reply = await qmp.command('query-migrate')
  if (!isRecord(reply) || !isRecord(reply.ram)) return false
  return Number(reply.ram.normal) + Number(reply.ram.duplicate) > 0
}

/** QEMU's words for why the migration failed. */
export async function failureOf(qmp: QmpClient): Promise<string> {
  const reply = await qmp.command('query-migrate')
  return isRecord(reply) && typeof reply['error-desc'] === 'string' ? reply['error-desc'] : 'it gives no reason'
}

async function continueIfStopped(qmp: QmpClient): Promise<void> {
  if ((await runState(qmp)) !== 'running') await qmp.command('cont')
}

export function cutFailed(path: string, why: unknown): DiapauseError {
  const words = why instanceof Error ? why.message : String(why)
  return new DiapauseError(
    'HYPERVISOR_CUT',
    `QEMU could not start its snapshot to ${path} (${words}); the VM runs on without one`,
    { cause: why instanceof Error ? why : undefined, details: { path } }
  )
}
