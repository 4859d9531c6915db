/**
 * What peers say to each other about groups and epochs (control channel, protocol "epoch"). Every message is a hint or a
 * report; truth is in the group's register. Reports of a VM count only from its owner.
 *
 * | message | the receiver must |
 * |---|---|
 * | record  | take the record if its version is newer than its own: an open epoch in it is the marker (cut your VMs) |
 * | ask     | answer with its record of each group that is newer than the version named, and of groups not named |
 * | copying | VM `vm` is not prepared yet, and gets on: those that are prepared go on waiting for it |
 * | prepared | VM `vm` has copied what can be copied while it runs: when all have, all are cut at once |
 * | cut     | VM `vm` was cut: tell its own VMs how many frames that VM had sent to them before; remember how long it took. `atWallMs` is the wall clock of its host, for reports only, as is `pauseMs`, which is absent while a member may be of an older version |
 * | durable | VM `vm`'s image is durable under `manifest`; whoever knows this of all VMs may commit |
 * | failed  | VM `vm` cannot make this epoch: the epoch may be aborted now instead of at its deadline |
 */
import { z } from 'zod'
import { recordedPolicySchema } from '../../config/policy.ts'
import { retentionSchema } from '../../config/schema.ts'
import { MAX_GROUP_VMS, groupNameSchema as name, vmSpecSchema } from '../../config/vm.ts'
import type { GroupRecord } from '../group.ts'
import { imageStatsSchema } from '../image-stats.ts'

const peer = z.string().min(1).max(100)
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const duration = z.number().min(0)
const hash = z.string().regex(/^[0-9a-f]{64}$/)

/** Epochs of a group that are read at the same time, in exports. A guess. */
export const MAX_HELD = 8
/** Epochs that a group keeps at the most: all that the longest policy asks for, and all that people hold. */
export const MAX_KEPT = 256
/** Of these, epochs that people hold by a name. A guess. */
export const MAX_HOLDS = 32

/** Why a drill failed, in characters: its report says more. A guess. */
export const MAX_DRILL_WORDS = 400

const wallMs = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional()

export const groupRecordSchema = z.strictObject({
  id: name,
  version: count,
  generation: count,
  vms: z.array(vmSpecSchema).min(1).max(MAX_GROUP_VMS),
  owners: z.record(name, peer),
  outputCommit: z.boolean().optional(),
  openFlow: z.boolean().optional(),
  lastEpoch: count,
  open: z
    .strictObject({ epoch: count, proposer: peer, deadlineMs: count, rest: z.literal(true).optional() })
    .nullable(),
  resting: z.literal(true).optional(),
  committed: z
    .strictObject({ epoch: count, generation: count, previousEpoch: count, images: z.record(name, hash), wallMs })
    .nullable(),
  held: z
    .array(z.strictObject({ epoch: count, images: z.record(name, hash), by: z.string().max(200) }))
    .max(MAX_HELD)
    .optional(),
  kept: z
    .array(z.strictObject({ epoch: count, generation: count, images: z.record(name, hash), wallMs }))
    .max(MAX_KEPT)
    .optional(),
  holds: z
    .array(z.strictObject({ epoch: count, name }))
    .max(MAX_HOLDS)
    .optional(),
  retention: retentionSchema.optional(),
  policy: recordedPolicySchema.optional(),
  drills: z
    .strictObject({
      schedule: z
        .strictObject({
          everyMs: count,
          timeoutMs: count,
          check: name.optional(),
          begunMs: wallMs,
          runs: z.string().max(200).optional()
        })
        .optional(),
      last: z
        .strictObject({
          epoch: count,
          by: peer,
          atMs: count,
          tookMs: duration,
          failed: z.string().max(MAX_DRILL_WORDS).optional()
        })
        .optional()
    })
    .optional(),
  removed: z.boolean()
})

const about = { group: name, generation: count, epoch: count, vm: name }

export const epochMessageSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('record'), record: groupRecordSchema }),
  z.strictObject({ kind: z.literal('ask'), versions: z.record(name, count) }),
  z.strictObject({ kind: z.literal('copying'), ...about }),
  z.strictObject({ kind: z.literal('prepared'), ...about }),
  z.strictObject({
    kind: z.literal('cut'),
    ...about,
    counts: z.record(name, count),
    atWallMs: z.number(),
    prepareMs: duration,
    leadMs: duration,
    pauseMs: duration.optional()
  }),
  z.strictObject({ kind: z.literal('durable'), ...about, manifest: hash, stats: imageStatsSchema }),
  z.strictObject({ kind: z.literal('failed'), ...about, reason: z.string().max(1000) })
])

export type ReportMessage = Extract<z.output<typeof epochMessageSchema>, { epoch: number }>
export type EpochMessage =
  | { kind: 'record'; record: GroupRecord }
  | { kind: 'ask'; versions: Record<string, number> }
  | ReportMessage

export const parseEpochMessage = (message: unknown): EpochMessage => epochMessageSchema.parse(message)

/** The value of a group's register, or null before the first. Throws on any other shape. */
export const parseGroupRecord = (value: unknown): GroupRecord | null =>
  value === null || value === undefined ? null : groupRecordSchema.parse(value)
