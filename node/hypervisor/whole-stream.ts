/**
 * QEMU's side of a portable cut of a VM that is to stay as it was cut: a migration of all of it, as to another host, while it stands
 * still. A background snapshot would have it go on, which QEMU does by itself before 9.0. Parsers see no difference; but here nothing is
 * write-protected, so a stream that breaks off does no harm.
 */
import { cleanedUp, cutFailed, failureOf, migrationEnd } from './background-snapshot.ts'
import { handled, type QmpClient } from './qmp.ts'

/**
 * Begins to send a VM that stands still to the unix socket `path`; `streamed` settles when all of it is sent. It must not go on
 * before: QEMU would stop it at the end. HYPERVISOR_CUT where it could not be begun: then it runs again; or from `streamed`: then it
 * may go on.
 */
export async function sendWhole(qmp: QmpClient, path: string): Promise<{ streamed: Promise<void> }> {
  const ended = migrationEnd(qmp)
  try {
    await qmp.command('migrate', { uri: `unix:${path}` })
  } catch (cause) {
    await qmp.command('cont')
    throw cutFailed(path, cause)
  }
  const streamed = ended.then(async ({ data }) => {
    if (data.status !== 'completed') throw cutFailed(path, await failureOf(qmp))
    await cleanedUp(qmp)
  })
  return { streamed: handled(streamed) }
}
