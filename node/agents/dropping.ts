/** Lets go what is kept no more. */
import { hasCode, messageOf } from '../errors.ts'
import type { Log, ShardStore } from '../ports.ts'

export interface Unkept {
  readonly streams: readonly string[]
  readonly manifests: readonly string[]
}

/** What its disk does not let go stays for the next time, and keeps back nothing else. STORE_CLOSED. */
export async function dropAll(
  store: Pick<ShardStore, 'dropStream' | 'dropManifest'>,
  { streams, manifests }: Unkept,
  log: Pick<Log, 'warn'>
): Promise<void> {
  const stays = (what: object) => (error: unknown) => {
    if (hasCode(error, 'STORE_CLOSED')) throw error
    log.warn(
      { ...what, error: messageOf(error) },
      'what is kept no more cannot be removed from the disk; it is tried again'
    )
  }
  for (const stream of streams) await store.dropStream(stream).catch(stays({ stream }))
  for (const manifest of manifests) await store.dropManifest(manifest).catch(stays({ manifest }))
}
