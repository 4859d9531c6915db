/** What stands in the header of an image's manifest, in formats 2 and 3. Pure. */
import { z } from 'zod'
import type { ImageManifest, ImageStats } from '../ports.ts'
import { ACCEL, MAX_ID_BYTES, STATS } from './manifest-checks.ts'

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
  stats: z.strictObject({
    pages: count,
    pagesNonZero: count,
    pagesChanged: count,
    bytesRaw: count,
    bytesData: count,
    bytesStored: count,
    inFlightFrames: count
  })
}

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
    stats: Object.fromEntries(STATS.map(name => [name, stats[name]])) as unknown as ImageStats
  }
}
