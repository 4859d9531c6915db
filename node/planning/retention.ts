/** What a peer may forget: pure. Anything it is not sure of stays. */
import { type GroupRecord, keptImages } from '../../protocols/group.ts'
import { BASES } from '../../protocols/base.ts'
import type { StreamId } from '../ports.ts'

/** The streams that an image leans on, and the names of their own manifests where it has those. */
export interface ImageStreams {
  readonly streams: readonly { readonly stream: StreamId; readonly manifest?: string | undefined }[]
}

export interface RetentionFacts {
  readonly streams: readonly StreamId[]
  /** Of images and of streams. */
  readonly manifests: readonly string[]
  /** The newest record known of each group, and the manifests of its committed epoch, and of those that are held, as far as they could be read. */
  readonly groups: readonly { record: GroupRecord; images: readonly ImageStreams[] }[]
  /** Groups that have been removed and forgotten: no record of theirs is left, and their generations are at most `floor`. */
  readonly gone: ReadonlySet<string>
  readonly floor: number
  /** Group of each manifest in `manifests` that could be read, with the generation and epoch that made it. */
  readonly about: ReadonlyMap<string, { group: string; generation: number; epoch: number }>
}

/** `GROUP/VM/GENERATION/EPOCH`; undefined for anything else. */
export function parseStreamId(
  stream: StreamId
): { group: string; vm: string; generation: number; epoch: number } | undefined {
  const [group, vm, generation, epoch, ...rest] = stream.split('/')
  if (group === undefined || vm === undefined || rest.length > 0) return undefined
  const numbers = { generation: Number(generation), epoch: Number(epoch) }
  return Number.isSafeInteger(numbers.generation) && Number.isSafeInteger(numbers.epoch)
    ? { group, vm, ...numbers }
    : undefined
}

/**
 * Streams and manifests that no restore can ask for any more: their epoch has been decided (it is not newer than the
 * last one opened, nor open now) and no image that is kept refers to them. A group whose kept manifests are
 * not all at hand keeps everything. Bases are of no group: `base-retention.ts`.
 */
export function planRetention(facts: RetentionFacts): { streams: StreamId[]; manifests: string[] } {
  const known = new Map(facts.groups.map(group => [group.record.id, group]))
  const decided = (about: { group: string; generation: number; epoch: number }): boolean => {
    if (about.group === BASES) return false // see base-retention.ts
    const group = known.get(about.group)
    if (group === undefined) return facts.gone.has(about.group) && about.generation <= facts.floor
    const { record, images } = group
    if (images.length < keptImages(record).length) return false
    if (about.generation > record.generation) return false
    if (about.generation < record.generation) return true
    return about.epoch <= record.lastEpoch && about.epoch !== record.open?.epoch
  }
  const wantedStreams = new Set(
    facts.groups.flatMap(({ images }) => images.flatMap(image => image.streams.map(s => s.stream)))
  )
  const wantedManifests = new Set(
    facts.groups.flatMap(({ record, images }) => [
      ...keptImages(record),
      ...images.flatMap(image => image.streams.flatMap(({ manifest }) => manifest ?? []))
    ])
  )
  return {
    streams: facts.streams.filter(stream => {
      const about = parseStreamId(stream)
      return about !== undefined && !wantedStreams.has(stream) && decided(about)
    }),
    manifests: facts.manifests.filter(hash => {
      const about = facts.about.get(hash)
      return about !== undefined && !wantedManifests.has(hash) && decided(about)
    })
  }
}
