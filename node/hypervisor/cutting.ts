/** How a VM that runs is cut: by a stream of all of it, or of its devices where its RAM is a file that others copy. */
import type { Clock, MachineCut } from '../ports.ts'
import { DiapauseError, hasCode } from '../errors.ts'
import { backgroundSnapshot, cleanedUp, standStill } from './background-snapshot.ts'
import { continueAfterDevices, stopToSendDevices } from './device-state.ts'
import type { QmpClient } from './qmp.ts'
import type { GuestPower } from './resets.ts'
import { sendWhole } from './whole-stream.ts'

export interface CutParts {
  /** Of the socket that its stream goes to. */
  readonly path: string
  /** It is not to go on. */
  readonly stays: boolean
  /** Whether this QEMU starts a VM again when its background snapshot has begun. */
  readonly resumesByItself: boolean
  readonly clock: Clock
  /** A VM that is off is not saved: it boots anew first, or the cut comes to nothing. */
  readonly power: GuestPower
  /** Awaited while it stands still. */
  frozen(): Promise<void>
  /** Somebody has called `stop` meanwhile. */
  stopWanted(): boolean
  /** Throws where that is so. */
  unlessStopped(): void
}

export type Cut = Pick<MachineCut, 'pauseMs' | 'streamed'>

export async function cutAll(qmp: QmpClient, parts: CutParts): Promise<Cut> {
  const { path, stays, clock, power } = parts
  const from = await standStill(qmp, clock, power.bootAnew)
  try {
    await frozenAndOn(qmp, parts)
  } catch (error) {
    if (!(await power.bootAnew())) await qmp.command('cont')
    throw error
  }
  parts.unlessStopped()
  const { streamed } = stays ? await sendWhole(qmp, path) : await backgroundSnapshot(qmp, parts)
  return { pauseMs: clock.now() - from, streamed }
}

export async function cutDevices(qmp: QmpClient, parts: CutParts): Promise<Cut> {
  const { path, stays, clock, power } = parts
  await power.bootAnew()
  const stream = await stopToSendDevices(qmp, path, clock)
  let failure: Error | undefined
  try {
    await frozenAndOn(qmp, parts)
  } catch (error) {
    failure = error as Error
  }
  // Also then: cancelled instead, QEMU would start the VM by itself, and a stop may be wanted.
  await stream.finish().catch((error: Error) => {
    if (hasCode(error, 'HYPERVISOR_STREAM')) throw error
    failure ??= error
  })
  if (parts.stopWanted()) await qmp.command('stop')
  parts.unlessStopped()
  const goesOn = !stays || failure !== undefined
  if (goesOn && !(await power.bootAnew())) await continueAfterDevices(qmp, clock)
  const pauseMs = clock.now() - stream.stoppedAtMs
  if (failure === undefined) return { pauseMs, streamed: cleanedUp(qmp) }
  await cleanedUp(qmp)
  throw failure
}

/**
 * The VM stands still, and all is done that is to be done then. HYPERVISOR_CUT where its guest has turned it off in the last moment
 * before: what it wished for then has been heard meanwhile, because the main loop has had its turn.
 */
async function frozenAndOn(qmp: QmpClient, parts: CutParts): Promise<void> {
  await Promise.all([parts.frozen(), cleanedUp(qmp)])
  if (!parts.power.off) return
  const message = 'The guest turned itself off just as its VM was cut; it boots anew, and can be cut again'
  throw new DiapauseError('HYPERVISOR_CUT', message, { details: { path: parts.path } })
}
