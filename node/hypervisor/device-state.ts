/**
 * A migration that carries the devices of a VM and not its RAM, which is a shared file (x-ignore-shared). Connection,
 * threads and ROMs (300 kB) come first, while the VM runs; then QEMU stops it by itself and waits (pause-before-switchover)
 * until it is told to send the devices (some 50 kB). On a busy machine that is what makes the pause short: starting it
 * all on a stopped VM took 4 to 75 ms of the pause (measured under a load of 10 on two cores).
 *
 * Unlike a background snapshot it can break off without harm. But while QEMU writes the devices its main loop waits, so
 * a receiver that does not read would hold the VM, deaf to all commands, for as long: such a VM is given up.
 */
import type { Clock } from '../ports.ts'
import { DiapauseError, hasCode } from '../errors.ts'
import { cutFailed, failureOf, migrationEnd, runState } from './background-snapshot.ts'
import { handled, type QmpClient } from './qmp.ts'
import type { QmpEvent } from './qmp-protocol.ts'

/** A hundred times what it takes; a guess. */
const DEADLINE_MS = 2_000
const LOOK_AGAIN_MS = 1

export interface DeviceStream {
  /** When the VM stopped, by the clock given. */
  readonly stoppedAtMs: number
  /**
   * Sends the devices; the VM stays stopped. HYPERVISOR_CUT where that fails: then it may run again. HYPERVISOR_STREAM
   * where the receiver does not read: then it hears no command.
   */
  finish(): Promise<void>
}

/**
 * Resolves when the VM, which runs, stands still. HYPERVISOR_CUT where there is no receiver: then it runs on.
 * HYPERVISOR_STOPPED where it had stopped by itself: `continueAfterDevices` would have it fail again.
 */
export async function stopToSendDevices(qmp: QmpClient, path: string, clock: Clock): Promise<DeviceStream> {
  await runState(qmp)
  let stoppedAtMs = 0
  void qmp.waitEvent('STOP').then(
    () => (stoppedAtMs = clock.now()),
    () => {} // the commands below tell
  )
  const waits = qmp.waitEvent('MIGRATION', event => event.data.status === 'pre-switchover')
  const ended = migrationEnd(qmp)
  try {
    await qmp.command('migrate', { uri: `unix:${path}` })
  } catch (cause) {
    throw hasCode(cause, 'QMP_REFUSED') ? cutFailed(path, cause) : cause
  }
  let late = false
  const disarm = clock.after(DEADLINE_MS, () => {
    late = true
    qmp.command('migrate_cancel').catch(() => {}) // where QEMU does not answer, its connection ends, and all that waits
  })
  const { status } = (await Promise.race([waits, ended])).data
  disarm()
  if (status === 'pre-switchover') return { stoppedAtMs, finish: () => finish(qmp, { path, ended, clock }) }
  throw cutFailed(path, late ? `its receiver took more than ${DEADLINE_MS} ms` : await failureOf(qmp))
}

async function finish(
  qmp: QmpClient,
  { path, ended, clock }: { path: string; ended: Promise<QmpEvent>; clock: Clock }
): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const disarm = clock.after(DEADLINE_MS, () =>
    reject(new DiapauseError('HYPERVISOR_STREAM', `nobody read the device state from ${path} within ${DEADLINE_MS} ms`))
  )
  const work = async () => {
    try {
      await qmp.command('migrate-continue', { state: 'pre-switchover' })
    } catch (error) {
      // It has ended already, and says why below.
      if (!hasCode(error, 'QMP_REFUSED')) throw error
    }
    if ((await ended).data.status !== 'completed') throw cutFailed(path, await failureOf(qmp))
  }
  try {
    await Promise.race([handled(work()), late])
  } finally {
    disarm()
  }
}

/**
 * Continues a VM whose devices have just been sent. The event that says so may come a moment before QEMU has left the
 * state 'finish-migrate', in which it refuses `cont` ("Migration is not finalized yet").
 */
export async function continueAfterDevices(qmp: Pick<QmpClient, 'command'>, clock: Clock): Promise<void> {
  try {
    await qmp.command('cont')
    return
  } catch (error) {
    if (!hasCode(error, 'QMP_REFUSED')) throw error
  }
  const from = clock.now()
  while ((await runState(qmp)) === 'finish-migrate' && clock.now() - from < DEADLINE_MS) {
    await new Promise<void>(resolve => clock.after(LOOK_AGAIN_MS, resolve))
  }
  await qmp.command('cont')
}
