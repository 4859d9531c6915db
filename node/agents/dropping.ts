/** Lets go what is kept no more. */
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Log, ShardStore } from '../ports.ts'

export interface Unkept {
  readonly streams: readonly string[]
  readonly manifests: readonly string[]
}

/** Streams in a row for which the index fails: more than one bad block of it is likely to be. A guess. */
const INDEX_FAILURES = 2

/**
 * What its disk does not let go stays for the next time, and keeps back nothing else: how much that is, and the first of it, is told in
 * one line. Where the index of all streams fails again and again the others would fail as well: they stay too. STORE_CLOSED.
 */
export async function dropAll(
  store: Pick<ShardStore, 'dropStream' | 'dropManifest'>,
  { streams, manifests }: Unkept,
  log: Pick<Log, 'warn'>
): Promise<void> {
  const failed: { readonly what: object; readonly error: unknown }[] = []
  const tried = async (what: object, drop: Promise<void>): Promise<unknown> => {
    try {
      await drop
      return undefined
    } catch (error) {
      if (hasCode(error, 'STORE_CLOSED')) throw error
      failed.push({ what, error })
      return error
    }
  }
  let [untried, inARow] = [streams.length, 0]
  for (const stream of streams) {
    untried--
    inARow = isOfIndex(await tried({ stream }, store.dropStream(stream))) ? inARow + 1 : 0
    if (inARow === INDEX_FAILURES) break
  }
  for (const manifest of manifests) await tried({ manifest }, store.dropManifest(manifest))
  const [first] = failed
  if (first === undefined) return
  log.warn(
    { ...first.what, error: messageOf(first.error), failed: failed.length, untried },
    'what is kept no more cannot be removed from the disk; it is tried again'
  )
}

/** A full disk is none: files go all the same, and make the room that the index needs. */
const isOfIndex = (error: unknown): boolean =>
  error instanceof DiapauseError && error.details['index'] === true && error.code !== 'STORE_FULL'
