/** Images out of the cluster and into it: what the edge asks of a peer. */
import { z } from 'zod'
import { check, problemText } from '../../config/words.ts'
import { groupNameSchema, vmSpecSchema } from '../../config/vm.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'

export interface ImageView {
  /**
   * The image of a VM at an epoch that is kept, by default the last committed. GROUP_UNKNOWN, VM_UNKNOWN, EPOCH_NOT_KEPT,
   * NOT_STORAGE (a witness has no key), and what reading an image rejects with.
   */
  export(wish: ExportWish): Promise<ExportedImage>
  /**
   * Makes a group of one VM that starts from an image: its migration stream, then its disks. Resolves when the record is
   * decided. UsageErrors: GROUP_EXISTS, IMPORT_ACCEL, IMPORT_MACHINE, IMPORT_SIZE, IMPORT_DISK, IMPORT_INVALID; NOT_STORAGE, NO_HOST,
   * HOST_NOT_ALIVE, MIGRATION_STREAM_…, and what storing an image rejects with.
   */
  import(wish: ImportWish, content: AsyncIterable<ImportedFile>): Promise<GroupRecord>
}

export interface ImportedFile {
  readonly name: string
  /** To be read to its end before the next file. */
  readonly content: AsyncIterable<Uint8Array>
}

export interface ExportWish {
  readonly group: string
  readonly vm: string
  readonly epoch?: number | undefined
}

export interface ExportedImage {
  readonly about: ImageAbout
  /** One after the other, each to be read to its end. Leaving early ends it. */
  files(): AsyncGenerator<ExportedFile>
}

export interface ExportedFile {
  readonly name: string
  /** Only of a size that is known well enough to tell how far it is. */
  readonly expectedBytes?: number
  readonly executable?: boolean
  readonly content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

/** What a person and an import must know of an image. */
export const imageAboutSchema = z.strictObject({
  group: groupNameSchema,
  epoch: z.number().int().min(0),
  generation: z.number().int().min(0),
  accel: z.enum(['kvm', 'tcg']),
  /** Of QEMU. */
  machine: z.string().max(100),
  hypervisor: z.string().max(100),
  spec: vmSpecSchema
})
export type ImageAbout = Omit<z.output<typeof imageAboutSchema>, 'spec'> & { readonly spec: VmSpec }

export interface ImportWish {
  readonly group: string
  /** Name or id of the peer that is to run it; absent: the cluster chooses. */
  readonly owner?: string | undefined
  readonly about: ImageAbout
}

const wishSchema = z.strictObject({
  group: groupNameSchema,
  owner: z.string().max(200).optional(),
  about: imageAboutSchema
})

/** UsageError IMPORT_INVALID lists every problem. */
export function parseImportWish(raw: unknown): ImportWish {
  const shape = check(wishSchema, raw)
  if (shape.ok) return shape.value
  const lines = shape.problems.map(problem => `  ${problemText(problem)}`)
  throw new UsageError('IMPORT_INVALID', `what is to be imported is described wrong:\n${lines.join('\n')}`)
}
