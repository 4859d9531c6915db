/**
 * A migration out of a stopped VM that carries its devices and not its RAM, which is a shared file (x-ignore-shared). 320
 * to 370 kB in 2 ms (measured at 128 MB and 1 GB). It ends before the VM goes on, so unlike a background snapshot it can
 * break off without harm; but the VM stands still for whoever reads slowly, so there is a deadline.
 */
import type { Clock } from '../ports.ts'
import { DiapauseError } from '../errors.ts'
import { cutFailed, failureOf, migrationEnd } from './background-snapshot.ts'
import type { QmpClient } from './qmp.ts'
import { isRecord } from './qmp-protocol.ts'

/** A thousand times what it takes; a guess. */
const DEADLINE_MS = 2_000
const LOOK_AGAIN_MS = 1

/** Sends the stopped VM's devices to the unix socket `path`. The VM stays stopped. HYPERVISOR_CUT where it does not work. */
export async function sendDeviceState(qmp: QmpClient, path: string, clock: Clock): Promise<void> {
  const ended = migrationEnd(qmp)
  try {
    await qmp.command('migrate', { uri: `unix:${path}` })
  } catch (cause) {
    if (cause instanceof DiapauseError && cause.code !== 'QMP_REFUSED') throw cause
    throw cutFailed(path, cause)
  }
  let late = false
  const disarm = clock.after(DEADLINE_MS, () => {
    late = true
    qmp.command('migrate_cancel').catch(() => {}) // where QEMU does not answer, the command below tells
  })
  const status = String((await ended).data.status)
  disarm()
  if (status === 'completed') return
  throw cutFailed(path, late ? `its receiver took more than ${DEADLINE_MS} ms` : await failureOf(qmp))
}

/**
 * Continues a VM whose devices have just been sent. The event that says so may come a moment before QEMU has left the
 * state 'finish-migrate', in which it refuses `cont` ("Migration is not finalized yet").
 */
export async function continueAfterDevices(qmp: QmpClient, clock: Clock): Promise<void> {
  const from = clock.now()
  while ((await runState(qmp)) === 'finish-migrate' && clock.now() - from < DEADLINE_MS) {
    await new Promise<void>(resolve => clock.after(LOOK_AGAIN_MS, resolve))
  }
  await qmp.command('cont')
}

async function runState(qmp: QmpClient): Promise<unknown> {
  const reply = await qmp.command('query-status')
  return isRecord(reply) ? reply.status : undefined
}
