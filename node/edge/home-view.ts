/** The second home of the cluster's groups, as the edge asks a peer for it; part of `PeerView`. */
import { z } from 'zod'
import { check, problemText } from '../../config/words.ts'
import { groupNameSchema } from '../../config/vm.ts'
import { clusterIdSchema } from '../../protocols/membership/record.ts'
import { recoveryPublicSchema } from '../../protocols/membership/recovery.ts'
import { UsageError } from '../errors.ts'
import type { HomeCheck, HomeCopy, HomeEpoch, HomeListing } from '../ports.ts'

export interface HomeView {
  status(): HomeStatus
  /** Copies the committed epoch of a group now. HOME_NONE, HOME_NO_KEY, HOME_BUSY, GROUP_UNKNOWN, EPOCH_NOT_KEPT, NOT_STORAGE. */
  push(wish: HomePushWish): Promise<HomeCopied>
  list(place: HomePlace): Promise<HomeListing>
  /** HOME_NO_EPOCH. */
  verify(wish: HomeVerifyWish): Promise<HomeCheck & { readonly of: HomeEpoch }>
  /**
   * Makes groups that go on from epochs of a second home, which may be another cluster's: of each group that the key opens, or of
   * one. What they boot from the new cluster keeps itself; where it was not copied, hosts must have it (FILES_MISSING).
   * Resolves when their records are decided. HOME_NO_EPOCH, RECOVERY_KEY, HOME_YOUNG, GROUP_EXISTS, IMPORT_ACCEL, NO_HOST, NOT_STORAGE.
   */
  restore(wish: HomeRestoreWish): Promise<readonly HomeEpoch[]>
  /** What epochs are sealed to from now on. RECOVERY_KEY_THERE where there is one, unless it is the one to be replaced. */
  setRecovery(wish: RecoveryWish): Promise<RecoveryStatus>
}

/** `without`: what its VMs boot from, and the copier does not have: the hosts of another cluster must have it. */
export type HomeCopied = HomeCopy & { readonly epoch: number; readonly without: readonly string[] }

/** A name of the key that tells it from others, and when it was made. */
export interface RecoveryStatus {
  readonly name: string
  readonly madeMs: number
}

export interface HomeStatus {
  /** Null: the config of this peer has none. */
  readonly url: string | null
  readonly recovery: RecoveryStatus | null
  /** Groups of the cluster. */
  readonly groups: readonly HomeGroupStatus[]
}

export interface HomeGroupStatus {
  readonly group: string
  /** Name of the member that copies it. */
  readonly copier: string
  /** Whether that is this peer. Only it knows whether its config has a second home. */
  readonly here: boolean
  /** What follows is of copies by this peer since it started. */
  readonly copying?: { readonly epoch: number; readonly doneBytes: number; readonly allBytes: number } | undefined
  readonly last?: (HomeCopied & { readonly atMs: number }) | undefined
  readonly failed?: { readonly atMs: number; readonly code: string; readonly message: string } | undefined
}

const credentialsSchema = z.strictObject({
  accessKeyId: z.string().min(1).max(4096),
  secretAccessKey: z.string().min(1).max(4096),
  sessionToken: z.string().min(1).max(4096).optional()
})

/** Absent: as the peer's config has it. */
const place = { from: z.string().max(2100).optional(), credentials: credentialsSchema.optional() }
const epoch = z.number().int().min(0).optional()

export const placeSchema = z.strictObject(place)
export type HomePlace = z.output<typeof placeSchema>

export const verifySchema = z.strictObject({
  ...place,
  cluster: clusterIdSchema.optional(),
  group: groupNameSchema,
  epoch,
  deep: z.boolean().default(false)
})
export type HomeVerifyWish = z.output<typeof verifySchema>

export const restoreSchema = z.strictObject({
  ...place,
  /** As it was printed. */
  recoveryKey: z.string().max(1_000),
  cluster: clusterIdSchema.optional(),
  group: groupNameSchema.optional(),
  epoch,
  owner: z.string().max(200).optional(),
  /** The cluster that copied is known to be gone, however lately it did. */
  force: z.boolean().default(false)
})
export type HomeRestoreWish = z.output<typeof restoreSchema>

export const pushSchema = z.strictObject({
  group: groupNameSchema,
  /** Every chunk is looked for. */
  all: z.boolean().default(false)
})
export type HomePushWish = z.output<typeof pushSchema>

export const recoverySchema = z.strictObject({
  public: recoveryPublicSchema,
  /** Name of the key that it takes the place of. */
  replaces: z
    .string()
    .regex(/^[0-9a-f]{16}$/)
    .optional()
})
export type RecoveryWish = z.output<typeof recoverySchema>

/** UsageError HOME_REQUEST lists every problem, as the others here. */
export const parseHomePlace = (raw: unknown): HomePlace => checked(placeSchema, raw)
export const parseVerifyWish = (raw: unknown): HomeVerifyWish => checked(verifySchema, raw)
export const parseRestoreWish = (raw: unknown): HomeRestoreWish => checked(restoreSchema, raw)
export const parsePushWish = (raw: unknown): HomePushWish => checked(pushSchema, raw)
export const parseRecoveryWish = (raw: unknown): RecoveryWish => checked(recoverySchema, raw)

function checked<T>(schema: z.ZodType<T>, raw: unknown): T {
  const shape = check(schema, raw)
  if (shape.ok) return shape.value
  const { problems } = shape
  throw new UsageError('HOME_REQUEST', problems.map(problemText).join('\n'), { details: { problems } })
}
