/** How a VM that runs is cut: by a stream of all of it, or of its devices where its RAM is a file that others copy. */
import type { Clock, MachineCut } from '../ports.ts'
import { hasCode } from '../errors.ts'
import { backgroundSnapshot, cleanedUp, standStill } from './background-snapshot.ts'
import { continueAfterDevices, stopToSendDevices } from './device-state.ts'
import type { QmpClient } from './qmp.ts'
import { sendWhole } from './whole-stream.ts'

export interface CutParts {
  /** Of the socket that its stream goes to. */
  readonly path: string
  /** It is not to go on. */
  readonly stays: boolean
  /** Whether this QEMU starts a VM again when its background snapshot has begun. */
  readonly resumesByItself: boolean
  readonly clock: Clock
  /** Awaited while it stands still. */
  frozen(): Promise<void>
  /** Somebody has called `stop` meanwhile. */
  stopWanted(): boolean
  /** Throws where that is so. */
  unlessStopped(): void
}

export type Cut = Pick<MachineCut, 'pauseMs' | 'streamed'>

export async function cutAll(qmp: QmpClient, parts: CutParts): Promise<Cut> {
  const { path, stays, clock } = parts
  const from = await standStill(qmp, clock)
  try {
    await parts.frozen()
  } catch (error) {
    await qmp.command('cont')
    throw error
  }
  parts.unlessStopped()
  const { streamed } = stays ? await sendWhole(qmp, path) : await backgroundSnapshot(qmp, parts)
  return { pauseMs: clock.now() - from, streamed }
}

export async function cutDevices(qmp: QmpClient, parts: CutParts): Promise<Cut> {
  const { path, stays, clock } = parts
  const stream = await stopToSendDevices(qmp, path, clock)
  let failure: Error | undefined
  try {
    await parts.frozen()
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
  if (!stays || failure !== undefined) await continueAfterDevices(qmp, clock)
  const pauseMs = clock.now() - stream.stoppedAtMs
  if (failure === undefined) return { pauseMs, streamed: cleanedUp(qmp) }
  await cleanedUp(qmp)
  throw failure
}
