/**
 * What a peer has seen of an epoch, for people and for policies: what became of it, why, and what it cost each VM. It is kept on
 * disk (`node/store/epoch-history.ts`) and told to others, so `parseSeenEpoch` takes nothing that is beyond these limits.
 *
 * Peers see different things: who was away lacks an epoch, and only who opened it knows why. `mergeSeen` joins what several
 * have seen. No decision about data is ever made from it.
 */
import { z } from 'zod'
import { groupNameSchema, MAX_GROUP_VMS } from '../../config/vm.ts'
import type { PeerId } from '../core.ts'
import { imageStatsSchema } from '../image-stats.ts'

/** Longest text of a reason. */
export const MAX_REASON = 300

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
/** Wall clocks since 1970, and durations. */
const ms = z.number().min(0).max(1e14)
const peer = z.string().min(1).max(100)
const text = z.string().max(MAX_REASON)

const seenCutSchema = z.strictObject({
  /** By the wall clock of its host. */
  cutAtMs: ms.optional(),
  /** From the mark until all was copied that can be copied while it runs; from the word to cut until it was. */
  prepareMs: ms.optional(),
  leadMs: ms.optional(),
  /** How long it stood still. */
  pauseMs: ms.optional(),
  /** From its cut until its image was durable, by the clock of whoever saw both. */
  durableMs: ms.optional(),
  /** Pages, bytes and frames in flight of its image. */
  image: imageStatsSchema.optional()
})

export const seenEpochSchema = z.strictObject({
  group: groupNameSchema,
  /** A group that was forgotten and made again counts its epochs anew: a generation and a number are one epoch. */
  generation: count,
  epoch: count,
  /** 'open': not decided, as far as is known. */
  outcome: z.enum(['open', 'committed', 'aborted']),
  /** When this peer learned that it was opened, by its wall clock. */
  openedAtMs: ms,
  /** From then until it was decided. */
  tookMs: ms.optional(),
  /** Between its first cut and its last by the wall clocks of their hosts. Absent: not all were seen. */
  skewMs: ms.optional(),
  /** Why it was aborted. */
  reason: text.optional(),
  /** Who opened it, by which policy ('request': a person), and what that said. Known to who opened it. */
  cause: z.strictObject({ by: peer, policy: z.string().min(1).max(60), why: text }).optional(),
  /** By VM, those of which something was seen. */
  vms: z.record(groupNameSchema, seenCutSchema).refine(vms => Object.keys(vms).length <= MAX_GROUP_VMS)
})

export type SeenEpoch = Readonly<Omit<z.output<typeof seenEpochSchema>, 'vms'>> & {
  readonly vms: Readonly<Record<string, SeenCut>>
}
export type SeenCut = Readonly<z.output<typeof seenCutSchema>>
export type EpochCause = NonNullable<SeenEpoch['cause']>

export const parseSeenEpoch = (value: unknown): SeenEpoch => seenEpochSchema.parse(value)

/** One name an epoch of a group. */
export const seenKey = ({ generation, epoch }: Pick<SeenEpoch, 'generation' | 'epoch'>): string =>
  `${generation}/${epoch}`

/** When an epoch of a group was committed, as this peer saw it, by its wall clock. Undefined: it did not see all of it. */
export function committedMsOf(seen: readonly SeenEpoch[], epoch: number): number | undefined {
  const found = seen.findLast(each => each.epoch === epoch && each.outcome === 'committed')
  return found?.tookMs === undefined ? undefined : found.openedAtMs + found.tookMs
}

/**
 * What several peers have seen of a group's epochs, by generation and number, oldest first. Of who saw it decided, the one that
 * took the longest has seen it from the start; `seenBy` are all of whom an entry is.
 */
export function mergeSeen(
  accounts: readonly { readonly by: PeerId; readonly epochs: readonly SeenEpoch[] }[]
): (SeenEpoch & { readonly seenBy: readonly PeerId[] })[] {
  const merged = new Map<string, SeenEpoch & { readonly seenBy: readonly PeerId[] }>()
  for (const { by, epochs } of accounts) {
    for (const epoch of epochs) {
      const other = merged.get(seenKey(epoch))
      merged.set(seenKey(epoch), other === undefined ? { ...epoch, seenBy: [by] } : join(other, epoch, by))
    }
  }
  return [...merged.values()].sort((a, b) => a.generation - b.generation || a.epoch - b.epoch)
}

function join(a: SeenEpoch & { readonly seenBy: readonly PeerId[] }, b: SeenEpoch, by: PeerId) {
  const [better, other] = isBetter(b, a) ? [b, a] : [a, b]
  const vms = new Map<string, SeenCut>(Object.entries(other.vms))
  for (const [vm, cut] of Object.entries(better.vms)) vms.set(vm, { ...vms.get(vm), ...cut })
  const cause = better.cause ?? other.cause
  return {
    ...other,
    ...better,
    ...(cause && { cause }),
    vms: Object.fromEntries(vms),
    seenBy: [...new Set([...a.seenBy, by])].sort()
  }
}

/** Decided before open; then who watched for longer. The rest makes the order of accounts not matter. */
function isBetter(a: SeenEpoch, b: SeenEpoch): boolean {
  const rank = ({ outcome }: SeenEpoch): number => ['open', 'aborted', 'committed'].indexOf(outcome)
  if (rank(a) !== rank(b)) return rank(a) > rank(b)
  const [longA, longB] = [a.tookMs ?? -1, b.tookMs ?? -1]
  if (longA !== longB) return longA > longB
  return a.openedAtMs < b.openedAtMs
}
