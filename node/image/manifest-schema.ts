/** What stands in the header of an image's manifest, in formats 2 to 4. Pure. */
import { z } from 'zod'
import { imageStatsSchema } from '../../protocols/image-stats.ts'
import type { ByteRange, ImageManifest } from '../ports.ts'
import { ACCEL, MAX_DISKS, MAX_ID_BYTES, MAX_INDEX_STREAMS, MAX_STREAM_BYTES } from './manifest-checks.ts'

export const countSchema = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const count = countSchema
const id = z.string().max(MAX_ID_BYTES)
export const rangeSchema = z.strictObject({ offset: count, length: count })

export const imageSchema = {
  group: id,
  vm: id,
  generation: count,
  epoch: count,
  memoryMiB: count.min(1),
  accel: z.enum(ACCEL),
  /** Of the last stream. */
  machine: rangeSchema,
  index: rangeSchema,
  frames: rangeSchema,
  stats: imageStatsSchema
}

/** From format 3 on. */
export const disksSchema = z.array(z.strictObject({ blocks: count.max(2 ** 32) })).max(MAX_DISKS)
export const streamNamesSchema = z
  .array(z.strictObject({ stream: z.string().max(MAX_STREAM_BYTES), manifest: z.string().regex(/^[0-9a-f]{64}$/) }))
  .min(1)
  .max(MAX_INDEX_STREAMS)

/** In this order; those that are absent are left out. */
const STATS = imageStatsSchema.keyof().options

export const rangeOf = ({ offset, length }: ByteRange): ByteRange => ({ offset, length })

/** Names in a fixed order. */
export function imageOf(manifest: Omit<ImageManifest, 'streams'>) {
  const { group, vm, generation, epoch, memoryMiB, accel, machine, index, frames, stats } = manifest
  return {
    group,
    vm,
    generation,
    epoch,
    memoryMiB,
    accel,
    machine: rangeOf(machine),
    index: rangeOf(index),
    frames: rangeOf(frames),
    stats: Object.fromEntries(STATS.map(name => [name, stats[name]])) as unknown as ImageManifest['stats']
  }
}
