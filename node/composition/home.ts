/** Opens what a peer is before it says anything: identity, data folder, keys. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { runDirOf } from '../../config/limits.ts'
import type { Config } from '../../config/schema.ts'
import { memberById } from '../../protocols/membership/record.ts'
import { UsageError } from '../errors.ts'
import { systemClock } from '../host/clock.ts'
import { boundConsoleLogs } from '../host/console-log.ts'
import { clusterAtStart, readCluster, saveCluster } from '../host/cluster-file.ts'
import { openDataDir } from '../host/data-dir.ts'
import { identitySeed, loadOrCreateIdentity } from '../host/identity.ts'
import { createKeyBox } from '../host/key-box.ts'
import { readSecret } from '../host/secret.ts'
import type { Run } from './run.ts'

/** Who this peer is and where it lives. Stale copies of its VMs are dead when this resolves. */
export async function openHome(config: Config, { log, teardown }: Run) {
  const { dataDir } = config.peer
  const runDir = runDirOf(config.peer)
  const { privateKey, peerId: self } = await loadOrCreateIdentity(dataDir)
  const cluster = await clusterAtStart(config, self)
  const data = await openDataDir({ dataDir, peerId: self, cluster: config.cluster.name })
  teardown.add(() => data.close())
  if (!isDeepStrictEqual(await readCluster(dataDir), cluster)) await saveCluster(dataDir, cluster)
  const { secretFile } = config.cluster
  const secret = secretFile === undefined ? undefined : await readSecret(secretFile)
  if (secret === undefined && cluster.keys === undefined) {
    throw new UsageError('SECRET_MISSING', 'cluster.secretFile is missing, and the cluster has no other data key yet')
  }
  const consoles = join(runDir, 'console')
  await mkdir(consoles, { recursive: true, mode: 0o700 })
  teardown.add(boundConsoleLogs({ folder: consoles, clock: systemClock, log }))
  // A witness loads nothing of what VMs need: it is to be small.
  const storing = memberById(cluster, self)?.role === 'storage'
  const hosting = storing ? await import('./hosting.ts') : undefined
  await hosting?.clearStale({ self, runDir, dataDir, clock: systemClock, log })
  teardown.add(() => hosting?.removeVmSockets(runDir)) // a VM that was ended while it was being resumed leaves one
  return {
    config,
    log,
    clock: systemClock,
    random: Math.random,
    self,
    privateKey,
    box: createKeyBox(self, identitySeed(privateKey)),
    secret,
    runDir,
    hosting,
    data,
    /** What this peer knew of its cluster when it started; `voice.membership` knows more. */
    cluster
  }
}
export type Home = Awaited<ReturnType<typeof openHome>>
