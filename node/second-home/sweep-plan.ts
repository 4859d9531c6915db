/**
 * What may be removed of a group in a second home. Pure.
 *
 * Whoever copies puts chunks first, then the stream that names them, then the epoch that names the stream. So what no epoch
 * names may be that of a copier at work, also on another host that has just lost the group, and is left alone until it is old:
 * a copier takes no chunk for there that is older than half of that, but puts it again, and gives up an epoch that takes longer
 * than the other half.
 */

/** A week: 3 TB are copied in half of it at 10 MB/s; clocks do not differ by so much. What ended copies left lies as long. A guess. */
export const GRACE_MS = 604_800_000

/** An object by its hash. */
export interface StoredHash {
  readonly hash: string
  readonly putMs: number
}

/**
 * Names of epochs to remove, all but the newest `keep` and the one just `copied`; and hashes of the streams that the others
 * name. Their names are in the order in which they were taken (`layout.ts`).
 */
export function planEpochs(
  epochs: readonly { readonly name: string; readonly streams: readonly string[] }[],
  keep: number,
  copied?: string
): {
  readonly remove: readonly string[]
  readonly streams: ReadonlySet<string>
} {
  const newestFirst = epochs.toSorted((a, b) => (a.name < b.name ? 1 : -1))
  const kept = newestFirst.filter(({ name }, at) => at < Math.max(1, keep) || name === copied)
  return {
    remove: newestFirst.filter(each => !kept.includes(each)).map(({ name }) => name),
    streams: new Set(kept.flatMap(({ streams }) => streams))
  }
}

export const isOld = (putMs: number, nowMs: number): boolean => putMs < nowMs - GRACE_MS

/** Hashes of what is neither named nor young. */
export const planObjects = (
  stored: readonly StoredHash[],
  named: ReadonlySet<string>,
  nowMs: number
): readonly string[] =>
  stored.filter(({ hash, putMs }) => !named.has(hash) && isOld(putMs, nowMs)).map(({ hash }) => hash)
