/** Reads and opens the parts of an image that a restore needs before the VM runs: machine, frames, and what leads to its page table. */
import { DiapauseError } from '../errors.ts'
import type { ByteRange } from '../ports.ts'
import { sealOf, streamIdOf, type VmFacts } from './facts.ts'
import { openPieces } from './frame-pieces.ts'
import type { ImageOutline } from './known-images.ts'
import { decodeMachine, type MachinePart } from './machine.ts'
import type { PageTable } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { type RecordKind, SALT_BYTES } from './seal.ts'
import { LazyTable } from './table-reader.ts'

export interface BootSet {
  readonly part: MachinePart
  /** Being read. */
  readonly pages: LazyTable
  /** Pieces; the first is on its way. */
  readonly frames: AsyncGenerator<Uint8Array>
}

/** IMAGE_MISMATCH (an image of another VM), IMAGE_SEAL, IMAGE_INVALID, and what `read` rejects with (SHARD_LOST). */
export async function readBootSet(facts: VmFacts, manifest: ImageOutline, read: ReadStream): Promise<BootSet> {
  const stream = manifest.streams.at(-1)
  const same = (['group', 'vm', 'memoryMiB', 'accel'] as const).every(name => manifest[name] === facts[name])
  const disks = ({ disks = [] }: Pick<ImageOutline, 'disks'>) => disks.map(({ blocks }) => blocks).join()
  if (
    !same ||
    disks(manifest) !== disks(facts) ||
    stream?.stream !== streamIdOf(facts, manifest.generation, manifest.epoch)
  ) {
    const details = { image: `${manifest.group}/${manifest.vm}`, memoryMiB: manifest.memoryMiB, accel: manifest.accel }
    throw new DiapauseError('IMAGE_MISMATCH', 'the image is of another VM, memory size, disks or accelerator', {
      details
    })
  }
  const last = stream.stream
  const part = (range: ByteRange) => read(last, range.offset, range.length)
  const seal = read(last, 0, SALT_BYTES).then(salt => sealOf(facts, { manifest: stream, salt }))
  const frames = openPieces(seal, manifest.frames, (offset, length) => read(last, offset, length))
  const [opener, machine, index] = await Promise.all([seal, part(manifest.machine), part(manifest.index)])
  const open = (kind: RecordKind, bytes: Uint8Array) => opener.open(kind, 0, bytes)
  return {
    part: decodeMachine(open('machine', machine)),
    pages: new LazyTable({ facts, streams: manifest.streams, index: open('index', index), read }),
    frames
  }
}

/** The whole page table of an image. As `readBootSet`. */
export async function readWholeTable(facts: VmFacts, manifest: ImageOutline, read: ReadStream): Promise<PageTable> {
  const { pages } = await readBootSet(facts, manifest, read)
  await pages.whole()
  return pages.table
}
