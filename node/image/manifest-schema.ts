/** What stands in the header of an image's manifest, in formats 2 and 3. Pure. */
import { z } from 'zod'
import { imageStatsSchema } from '../../protocols/image-stats.ts'
import type { ImageManifest } from '../ports.ts'
import { ACCEL, MAX_ID_BYTES } from './manifest-checks.ts'

export const countSchema = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const count = countSchema
const id = z.string().max(MAX_ID_BYTES)
const range = z.strictObject({ offset: count, length: count })

export const imageSchema = {
  group: id,
  vm: id,
  generation: count,
  epoch: count,
  memoryMiB: count.min(1),
  accel: z.enum(ACCEL),
  /** Of the last stream. */
  machine: range,
  index: range,
  frames: range,
  stats: imageStatsSchema
}

/** In this order; those that are absent are left out. */
const STATS = imageStatsSchema.keyof().options

/** Names in a fixed order. */
export function imageOf(manifest: Omit<ImageManifest, 'streams'>) {
  const { group, vm, generation, epoch, memoryMiB, accel, machine, index, frames, stats } = manifest
  const range = ({ offset, length }: ImageManifest['machine']) => ({ offset, length })
  return {
    group,
    vm,
    generation,
    epoch,
    memoryMiB,
    accel,
    machine: range(machine),
    index: range(index),
    frames: range(frames),
    stats: Object.fromEntries(STATS.map(name => [name, stats[name]])) as unknown as ImageManifest['stats']
  }
}
