/**
 * The content of a base as a stream of its own, and the disks of a VM that begin with it. In such a stream lie the blocks of
 * the base that are not zero, each whole, in their order: so whoever has the file itself knows, by counting, where each of
 * them lies, and no table of that is stored. The stream is `salt (16) | extents | lengths of the extents`.
 */
import { DiapauseError } from '../errors.ts'
import type { BaseStream, Codec, DiskFile, StreamId } from '../ports.ts'
import { ContentIds } from './content-ids.ts'
import { copyDisks } from './disk-copy.ts'
import { decodeExtentLengths, encodeExtentLengths } from './extent-lengths.ts'
import { ExtentWriter } from './extents.ts'
import { keyOf, newestKey, placesOf, sealOf, type VmFacts } from './facts.ts'
import type { PageState } from './page-state.ts'
import { PageTable, type PageStream, type StreamFacts } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { newSalt, SALT_BYTES, StreamSeal } from './seal.ts'
import { type PutColumn, StreamWriter } from './stream-writer.ts'

/** A base as the thread knows it. */
export interface UsedFile {
  readonly file: DiskFile
  readonly base: Omit<BaseStream, 'manifest'> & { readonly manifest: StreamFacts }
}

/** Resolves when all of it is durable. IMAGE_DISK, IMAGE_KEY, and what `put` rejects with. */
export async function writeBase(options: {
  readonly facts: VmFacts
  readonly file: DiskFile
  readonly stream: StreamId
  readonly holders: readonly string[]
  readonly codec: Codec
  readonly put: PutColumn
}): Promise<BaseStream> {
  const { facts, file, stream, holders, codec, put } = options
  const { id: key } = newestKey(facts)
  const salt = newSalt()
  const seal = new StreamSeal(keyOf(facts, key, stream), stream, salt)
  const writer = new StreamWriter({ stream, holders, shape: facts.shape, codec, put })
  writer.write(salt)
  const extents = new ExtentWriter(seal, bytes => writer.write(bytes))
  let blocks = 0
  await eachBlock(facts, file, writer, (_, bytes) => {
    extents.add(bytes)
    blocks++
  })
  extents.flush()
  const offset = writer.dataBytes
  writer.write(seal.seal('lengths', 0, encodeExtentLengths(Uint32Array.from(extents.lengths))))
  const lengths = { offset, length: writer.dataBytes - offset }
  const { manifest } = await writer.finish()
  return { manifest: key === 0 ? manifest : { ...manifest, key }, extents: extents.lengths.length, blocks, lengths }
}

/**
 * The committed table of `state` is from now on that of disks as their bases are, and of RAM that is all zero. IMAGE_DISK where
 * a file does not have as many blocks as are stored of it: then nothing is committed. Also what `read` rejects with.
 */
export async function useBases(
  bases: readonly UsedFile[],
  { facts, state, read }: { readonly facts: VmFacts; readonly state: PageState; readonly read: ReadStream }
): Promise<void> {
  const table = new PageTable(state.ramPages, state.pages - state.ramPages)
  const ids = new ContentIds(facts.key)
  state.reset(table)
  try {
    for (const { file, base } of bases) {
      const { stream } = base.manifest
      const known = table.streams.findIndex(each => each?.manifest.stream === stream)
      const slot = known === -1 ? table.streams.push(await openBase(facts, base, read)) - 1 : known
      let blocks = 0
      await eachBlock(facts, file, undefined, (page, bytes) => {
        table.place(page, slot, blocks++)
        state.noteHash(page, ids.of(bytes))
      })
      if (blocks === base.blocks) continue
      const why = `${file.path} has ${blocks} blocks that are not zero, and ${base.blocks} are stored of it`
      throw new DiapauseError('IMAGE_DISK', `${why}: has it changed?`)
    }
  } catch (error) {
    state.reset()
    throw error
  }
}

async function openBase(facts: VmFacts, base: UsedFile['base'], read: ReadStream): Promise<PageStream> {
  const { manifest, extents, blocks: pages, lengths } = base
  const [salt, sealed] = await Promise.all([
    read(manifest.stream, 0, SALT_BYTES),
    read(manifest.stream, lengths.offset, lengths.length)
  ])
  const opened = sealOf(facts, { manifest, salt }).open('lengths', 0, sealed)
  return { manifest, salt, extentLengths: decodeExtentLengths(opened, extents, manifest.dataBytes), pages, lengths }
}

/** Those that are not zero, in their order, numbered as the VM's pages are. Bytes are good during the call only. */
async function eachBlock(
  facts: VmFacts,
  file: DiskFile,
  writer: StreamWriter | undefined,
  take: (page: number, bytes: Uint8Array) => void
): Promise<void> {
  await copyDisks([file], placesOf(facts), {
    page: (page, bytes) => {
      if (bytes !== undefined) take(page, bytes)
    },
    congestion: () => writer?.congestion()
  })
}
