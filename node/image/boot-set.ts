/** Reads and opens the parts of an image that a restore needs before the VM runs: machine, frames, and what leads to its page table. */
import { DiapauseError, hasCode } from '../errors.ts'
import type { ByteRange } from '../ports.ts'
import { sealOf, streamIdOf, type VmFacts } from './facts.ts'
import { openPieces } from './frame-pieces.ts'
import type { ImageOutline } from './known-images.ts'
import { decodeMachine, type MachinePart } from './machine.ts'
import { PAGES_PER_MIB, type PageTable } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { decodeBootPart } from './boot-part.ts'
import { BootPages } from './boot-pages.ts'
import { type RecordKind, SALT_BYTES } from './seal.ts'
import { LazyTable } from './table-reader.ts'
import type { WorkingPage } from './working-set.ts'

export interface BootSet {
  readonly part: MachinePart
  /** Of the image. */
  readonly streams: ImageOutline['streams']
  /** Its working set, the first of it; undefined: it has none that can be read, or it was not asked for. */
  readonly boot: BootPages | undefined
  /** What the image knows of what the VM touches first, in learned order. To be asked when the VM runs: it takes time. */
  learned(): readonly WorkingPage[]
  /** Being read. */
  readonly pages: LazyTable
  /** Pieces; the first is on its way. */
  readonly frames: AsyncGenerator<Uint8Array>
}

/** IMAGE_MISMATCH (an image of another VM), IMAGE_SEAL, IMAGE_INVALID, and what `read` rejects with (SHARD_LOST). */
export async function readBootSet(
  facts: VmFacts,
  manifest: ImageOutline,
  read: ReadStream,
  { workingSet = false, firstBytes }: { readonly workingSet?: boolean; readonly firstBytes?: number } = {}
): Promise<BootSet> {
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
  const [machine, index, sealedBoot] = [
    part(manifest.machine),
    part(manifest.index),
    manifest.boot && part(manifest.boot)
  ]
  const open = async (kind: RecordKind, bytes: Promise<Uint8Array>) => {
    const [opener, sealed] = await Promise.all([seal, bytes])
    return opener.open(kind, 0, sealed)
  }
  const { streams } = manifest
  const known = async () => {
    if (sealedBoot === undefined) return undefined
    return decodeBootPart(await open('boot', sealedBoot), facts.memoryMiB * PAGES_PER_MIB, streams)
  }
  const boot = async () => {
    const found = await known().catch(unless('SHARD_LOST', 'IMAGE_SEAL', 'IMAGE_INVALID'))
    if (found === undefined || !workingSet) return { learned: () => found?.pages ?? [] }
    const pages = new BootPages({ facts, streams, part: found, read, firstBytes })
    // Where a page is lost, the image is, and nothing runs yet.
    const isRight = await pages.first.then(() => true, unless('IMAGE_SEAL', 'IMAGE_INVALID'))
    return isRight ? { learned: () => found.pages, pages } : { learned: () => [] }
  }
  const [found, openMachine, openIndex] = await Promise.all([boot(), open('machine', machine), open('index', index)])
  return {
    part: decodeMachine(openMachine),
    streams,
    boot: found.pages,
    learned: found.learned,
    pages: new LazyTable({ facts, streams, index: openIndex, read }),
    frames
  }
}

/**
 * Answers these errors with nothing: an image is whole without what is known of its first pages, which may be in a later format, not be
 * valid or not be read.
 */
const unless =
  (...codes: readonly string[]) =>
  (error: unknown): undefined => {
    if (!codes.some(code => hasCode(error, code))) throw error
  }

/** The whole page table of an image. As `readBootSet`. */
export async function readWholeTable(facts: VmFacts, manifest: ImageOutline, read: ReadStream): Promise<PageTable> {
  const { pages } = await readBootSet(facts, manifest, read)
  await pages.whole()
  return pages.table
}
