/**
 * An epoch of a group in a second home. Its header says, for everybody who reads the bucket, whose epoch it is and which
 * objects it needs: that is what cleaning up goes by, which has no key. How it is read is sealed under the cluster's recovery
 * key (`protocols/membership/recovery.ts`), with the header authenticated beside it: the VMs' specifications, the images'
 * manifests, what they boot from, and the keys of this group's streams, which are no data keys but made of them for the group.
 * Pure but for hashes.
 */
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { z } from 'zod'
import { retentionSchema } from '../../config/schema.ts'
import { vmSpecSchema } from '../../config/vm.ts'
import { openWithRecovery, recoveryName, recoveryPublic, sealForRecovery } from '../../protocols/membership/recovery.ts'
import type { RetentionPolicy, VmSpec } from '../../protocols/group.ts'
import { DiapauseError, messageOf, UsageError } from '../errors.ts'
import type { FileNote } from './boot-files.ts'
import { encodeFrame, invalid, openFrame, parseJson } from './frame.ts'
import { MAX_OBJECT_BYTES } from './layout.ts'

/** What is sealed has at most this many bytes before it is packed: manifests of 64 VMs. A guess with room. */
const MAX_BODY_BYTES = 64 << 20

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const hash = z.string().regex(/^[0-9a-f]{64}$/)
const base64 = z.string().regex(/^[A-Za-z0-9_-]*$/)
const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/)

const headerSchema = z.strictObject({
  cluster: z.strictObject({ id: z.string().regex(/^[0-9a-f]{32}$/), name: z.string().max(40) }),
  group: name,
  epoch: count,
  generation: count,
  /** Wall clock of the peer that copied it. */
  copiedMs: count,
  /** Which recovery key opens it (`recoveryName`). */
  recovery: z.string().regex(/^[0-9a-f]{16}$/),
  vms: z.array(name).min(1).max(64),
  streams: z
    .array(
      z.strictObject({
        stream: z.string().max(300),
        /** Hash of its manifest in the cluster, and of its object here. */
        manifest: hash,
        object: hash,
        bytes: count
      })
    )
    .max(10_000)
})

const key = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const bodySchema = z.strictObject({
  vms: z.array(vmSpecSchema).min(1).max(64),
  outputCommit: z.boolean(),
  openFlow: z.boolean(),
  retention: retentionSchema.optional(),
  /** By VM: the manifest of its image. */
  images: z.record(name, base64),
  keys: z.array(z.strictObject({ id: count, key, baseKey: key.optional() })).max(1_000),
  /** What the VMs boot from; absent in copies of before such files were copied. */
  files: z
    .array(z.strictObject({ path: z.string().min(1).max(4096), hash, bytes: count, stream: hash }))
    .max(128)
    .optional()
})

export type EpochHeader = z.output<typeof headerSchema>

export interface EpochBody {
  readonly vms: readonly VmSpec[]
  readonly outputCommit: boolean
  readonly openFlow: boolean
  readonly retention?: RetentionPolicy | undefined
  readonly images: Readonly<Record<string, Uint8Array>>
  readonly keys: readonly GroupKey[]
  readonly files?: readonly FileNote[] | undefined
}

/** A data key as it is for the streams of one group, and for those of bases. */
export interface GroupKey {
  readonly id: number
  readonly key: Uint8Array
  readonly baseKey?: Uint8Array | undefined
}

/**
 * `once`: 32 random bytes. `recoveryPart`: the public part of the key. HOME_UNREADABLE where nobody could read what would be
 * written: whoever finds that out after a fire has nothing.
 */
export function encodeEpoch(
  about: Omit<EpochHeader, 'recovery'>,
  body: EpochBody,
  { recoveryPart, once }: { readonly recoveryPart: string; readonly once: Uint8Array }
): Uint8Array {
  const header = Buffer.from(JSON.stringify({ ...about, recovery: recoveryName(recoveryPart) } satisfies EpochHeader))
  const plain = Buffer.from(JSON.stringify(textOf(body)))
  const packed = zstdCompressSync(plain)
  const sealed = sealForRecovery(recoveryPart, { context: CONTEXT, beside: header, once }, packed)
  const bytes = encodeFrame('epoch', header, sealed)
  try {
    bodyOf(parseJson(bodySchema, plain), decodeHeader(bytes))
    if (plain.length > MAX_BODY_BYTES || bytes.length > MAX_OBJECT_BYTES)
      throw invalid(`${plain.length} bytes are sealed in it`)
  } catch (cause) {
    throw unreadable(about, cause)
  }
  return bytes
}

export const unreadable = ({ group, epoch }: Pick<EpochHeader, 'group' | 'epoch'>, cause: unknown) =>
  new DiapauseError(
    'HOME_UNREADABLE',
    `epoch ${epoch} of group "${group}" is not copied, as nobody could read the copy: ${messageOf(cause)}`,
    { cause }
  )

/** What everybody may read. HOME_INVALID. */
export const decodeHeader = (bytes: Uint8Array): EpochHeader =>
  parseJson(headerSchema, openFrame('epoch', bytes).header)

/** HOME_INVALID; UsageError RECOVERY_KEY_OTHER where it was sealed under another key. */
export function openEpoch(
  bytes: Uint8Array,
  secret: Uint8Array
): { readonly header: EpochHeader; readonly body: EpochBody } {
  const frame = openFrame('epoch', bytes)
  const header = parseJson(headerSchema, frame.header)
  const here = recoveryName(recoveryPublic(secret))
  if (header.recovery !== here) {
    throw new UsageError(
      'RECOVERY_KEY_OTHER',
      `epoch ${header.epoch} of group "${header.group}" was sealed under recovery key ${header.recovery}, and this one is ${here}`
    )
  }
  const packed = openWithRecovery(secret, { context: CONTEXT, beside: frame.header }, frame.more)
  if (packed === undefined) throw invalid('what is sealed in it was altered')
  return { header, body: bodyOf(parseJson(bodySchema, unpack(packed)), header) }
}

const CONTEXT = 'diapause home epoch 1'

function unpack(packed: Uint8Array): Uint8Array {
  try {
    return zstdDecompressSync(packed, { maxOutputLength: MAX_BODY_BYTES })
  } catch (cause) {
    throw invalid('what is sealed in it does not unpack', cause)
  }
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const bytesOf = (value: string): Uint8Array => new Uint8Array(Buffer.from(value, 'base64url'))

function textOf({
  vms,
  outputCommit,
  openFlow,
  retention,
  images,
  keys,
  files
}: EpochBody): z.input<typeof bodySchema> {
  return {
    vms: vms as z.input<typeof bodySchema>['vms'],
    outputCommit,
    openFlow,
    ...(retention && { retention }),
    images: Object.fromEntries(Object.entries(images).map(([vm, bytes]) => [vm, text(bytes)])),
    keys: keys.map(each => ({
      id: each.id,
      key: text(each.key),
      ...(each.baseKey && { baseKey: text(each.baseKey) })
    })),
    ...(files && files.length > 0 && { files: [...files] })
  }
}

function bodyOf({ vms, images, keys, ...settings }: z.output<typeof bodySchema>, { group }: EpochHeader): EpochBody {
  const missing = vms.find(vm => images[vm.id] === undefined)
  if (missing !== undefined) {
    throw new DiapauseError('HOME_INVALID', `the epoch of group "${group}" has no image of VM ${missing.id}`)
  }
  return {
    ...settings,
    vms,
    images: Object.fromEntries(Object.entries(images).map(([vm, value]) => [vm, bytesOf(value)])),
    keys: keys.map(each => ({
      id: each.id,
      key: bytesOf(each.key),
      ...(each.baseKey === undefined ? {} : { baseKey: bytesOf(each.baseKey) })
    }))
  }
}
