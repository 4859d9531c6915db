/**
 * How many losses an image bears that has just been stored: it leans on older streams, of which less may be there than was to be.
 * Pure.
 */
import { DiapauseError } from '../errors.ts'
import { tolerates } from '../planning/holders.ts'
import type { ImageManifest } from '../ports.ts'
import type { Placed } from './placing.ts'

/**
 * How many peers, whichever, may be lost: of its weakest stream, the last of which is its own. EPOCH_LEANS_ON_LOST where of an older
 * one fewer columns are left than it takes to read it: nothing was as durable as it seems then, and the epoch before is no worse.
 */
export function lossesBorne(
  { streams, stats }: Pick<ImageManifest, 'streams' | 'stats'>,
  { peers, storedAt }: Pick<Placed, 'peers' | 'storedAt'>
): number {
  const borne = streams.map(({ stream, k, m, holders }, i) => {
    if (i === streams.length - 1) return tolerates(holders, m - (stats.columnsMissing ?? 0))
    const now = storedAt?.(stream)
    const left = now?.filter(peer => peer !== '').length ?? k
    if (left < k) {
      throw new DiapauseError(
        'EPOCH_LEANS_ON_LOST',
        `Parts of this VM are only in ${stream}, of which ${left} columns are left and ${k} are needed: bring back members that have others.`,
        { details: { stream, left, k } }
      )
    }
    return tolerates(now ?? holders, m, peers)
  })
  return Math.min(...borne)
}
