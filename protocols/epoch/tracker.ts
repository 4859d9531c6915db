/** What a peer knows of an epoch that is not decided yet, as far as it knows. */
export interface Tracker {
  readonly epoch: number
  readonly sinceMs: number
  readonly prepared: Set<string>
  /** When a VM that is not prepared was last heard to get on. */
  readonly heardMs: Map<string, number>
  /** When this peer learned that all VMs are prepared. */
  allPreparedMs: number
  readonly cutAtWallMs: Map<string, number>
  readonly durable: Map<string, string>
  failed: string | undefined
  /** Since when this peer knows enough to decide: everything is durable, or something has failed. */
  decidableMs: number | undefined
  /** When this peer last asked for a commit or abort; asked again after a while, since a change may fail. */
  askedMs: number
}

export const newTracker = (epoch: number, nowMs: number): Tracker => ({
  epoch,
  sinceMs: nowMs,
  prepared: new Set(),
  heardMs: new Map(),
  allPreparedMs: Number.POSITIVE_INFINITY,
  cutAtWallMs: new Map(),
  durable: new Map(),
  failed: undefined,
  decidableMs: undefined,
  askedMs: Number.NEGATIVE_INFINITY
})

export const heardMs = (tracker: Tracker, vm: string): number => tracker.heardMs.get(vm) ?? tracker.sinceMs

/** VM → hash of its manifest, by name. */
export const imagesOf = ({ durable }: Tracker): Record<string, string> =>
  Object.fromEntries([...durable].sort(([a], [b]) => (a < b ? -1 : 1)))

export function whyAborted(
  { failed, durable }: Tracker,
  vms: readonly { readonly id: string }[],
  deadlineMs: number
): string {
  const missing = vms.filter(({ id }) => !durable.has(id)).map(({ id }) => id)
  return failed ?? `${missing.join(', ')} not durable after ${deadlineMs} ms`
}
