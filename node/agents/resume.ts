/** How a VM of this host goes on from an image: by post-copy out of the shards, or on a standby copy that is of that image. */
import type { Clock, Machine, NicPort, Restore } from '../ports.ts'
import { afterLastWords } from './last-words.ts'

export interface PageCounts {
  readonly pagesFaulted: number
  readonly pagesPushed: number
}

interface Resuming {
  readonly nic: NicPort
  /** The VM may execute. */
  readonly mayRun: Promise<unknown>
  /** As in `LocalVmDeps`. */
  readonly together?: () => Promise<void>
  readonly clock: Clock
  readonly bootSet: Promise<Restore>
  /** Where the machine listens for its stream. */
  readonly socketPath: string
  /** Rejects where it is over; waits while the lease, which may have lapsed since `mayRun`, is not ours. */
  alive(): Promise<void>
}

/**
 * Resolves when the VM runs. `complete` settles when its last page has come and it can be cut; where it rejects before that, so
 * does this.
 */
export async function resumeByPostcopy(
  machine: Machine,
  { nic, mayRun, together, clock, alive, bootSet, socketPath }: Resuming
): Promise<{ readonly complete: Promise<PageCounts> }> {
  const connectable = Promise.withResolvers<void>()
  const runs = machine.startIncoming(socketPath, connectable.resolve)
  const served = (async () => {
    await Promise.race([connectable.promise, runs])
    const [restore] = await Promise.all([bootSet, mayRun])
    await alive()
    await nic.inject(restore.frames)
    await together?.()
    await alive()
    return await restore.serve(socketPath)
  })()
  const whole = Promise.all([served, runs.then(() => machine.incomingComplete())])
  const complete = afterLastWords(
    clock,
    whole.then(([counts]) => counts)
  )
  complete.catch(() => {}) // the caller awaits it after this resolves, or hears of the failure from here
  await Promise.race([runs, complete])
  return { complete }
}

/** As `resumeByPostcopy`: the devices are loaded while the lease is being acquired, and the VM then goes on by a word. */
export async function resumeOnStandby(
  machine: Machine,
  { nic, mayRun, together, alive, bootSet, socketPath }: Resuming
): Promise<{ readonly complete: Promise<PageCounts> }> {
  const restore = await bootSet
  const serving = Promise.withResolvers<PageCounts>()
  const complete = serving.promise
  complete.catch(() => {}) // as above
  await nic.inject(restore.frames) // a restore that has been served has none any more
  const load = machine.load?.(socketPath, () => serving.resolve(restore.serve(socketPath)))
  // Where nobody comes to QEMU's socket it waits for ever: a thread that has died says so by `complete` alone.
  const loaded = load && Promise.race([load, complete.then(() => load)])
  await Promise.all([loaded, mayRun])
  await together?.()
  await alive()
  await machine.resume()
  return { complete }
}
