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
 * | cut     | VM `vm` was cut: tell its own VMs how many frames that VM had sent to them before; remember how long it took. `atWallMs` is the wall clock of its host, for reports only |
 * | durable | VM `vm`'s image is durable under `manifest`; whoever knows this of all VMs may commit |
 * | failed  | VM `vm` cannot make this epoch: the epoch may be aborted now instead of at its deadline |
 */
import { z } from 'zod'
import { retentionSchema } from '../../config/schema.ts'
import type { GroupRecord } from '../group.ts'
import { imageStatsSchema } from '../image-stats.ts'

const name = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/)
  .describe('a name: a letter or digit, then up to 62 of letters, digits, _, . and -')
const peer = z.string().min(1).max(100)
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const duration = z.number().min(0)
const path = z.string().min(1).max(4096).describe('the path of a file, the same on every host that may run the VM')
const hash = z.string().regex(/^[0-9a-f]{64}$/)

/** Epochs of a group that are read at the same time, in exports. A guess. */
export const MAX_HELD = 8
/** Epochs that a group keeps at the most: all that the longest policy asks for, and all that people hold. */
export const MAX_KEPT = 256
/** Of these, epochs that people hold by a name. A guess. */
export const MAX_HOLDS = 32
/** At most this many VMs in a group: the record must fit a register (64 KiB). */
export const MAX_GROUP_VMS = 64

/** Why a drill failed, in characters: its report says more. A guess. */
export const MAX_DRILL_WORDS = 400

/** Guesses; the machine type has room for more. */
const MAX_NICS = 8
const MAX_DISKS = 8
const MAX_CPUS = 64
const MAX_PROGRAM_WORDS = 32
/** An hour: a guess. */
const MAX_GUEST_AGENT_MS = 3_600_000
/** 1 TiB: blocks of 4 KiB of all disks and RAM together are numbered by 32 bits. */
const MAX_DISK_MIB = 1 << 20

const mac = z
  .string()
  .regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/)
  .describe('a unicast MAC address, lower case with colons, such as "52:54:00:00:00:01"')
const network = z
  .string()
  .regex(/^(shared\/)?[a-z0-9][a-z0-9-]{0,39}$/)
  .describe('the name of a network, or "shared/" and a name, or "uplink"')

/** Names a network that has two NICs: the description of the whole list would leave that to be found. */
function onDifferentNetworks(nics: readonly { network: string }[], context: z.RefinementCtx): void {
  nics.forEach(({ network: on }, index) => {
    if (nics.findIndex(other => other.network === on) === index) return
    const message = `a network of its own: two NICs are on ${JSON.stringify(on)}`
    context.addIssue({ code: 'custom', path: [index, 'network'], message, params: { says: true } })
  })
}

const word = z
  .string()
  .regex(/^[^\0]*$/)
  .max(1024)
  .describe('a text of at most 1024 characters')

const guestAgentSchema = z
  .strictObject({
    afterRestore: z
      .array(word)
      .max(MAX_PROGRAM_WORDS)
      .refine(([program]) => program?.startsWith('/'))
      .describe(
        `the path of a program in the guest, which begins with "/", and at most ${MAX_PROGRAM_WORDS - 1} arguments`
      )
      .optional(),
    timeoutMs: z.number().int().min(100).max(MAX_GUEST_AGENT_MS).optional()
  })
  .describe('a table, such as {} or { afterRestore = ["/usr/local/sbin/restored"], timeoutMs = 30000 }')

const objectiveMs = z.number().int().min(1).max(86_400_000)

export const vmSpecSchema = z
  .strictObject({
    id: name,
    mac: mac.optional(),
    nics: z
      .array(z.strictObject({ mac, network }))
      .min(1)
      .max(MAX_NICS)
      .superRefine(onDifferentNetworks)
      .describe(`1 to ${MAX_NICS} NICs (mac and network), all on different networks`)
      .optional(),
    memoryMiB: z
      .number()
      .int()
      .min(16)
      .max(1 << 20),
    cpus: z.number().int().min(1).max(MAX_CPUS).optional(),
    disks: z
      .array(
        z.strictObject({
          sizeMiB: z.number().int().min(1).max(MAX_DISK_MIB),
          base: z.strictObject({ path, format: z.enum(['raw', 'qcow2']) }).optional()
        })
      )
      .min(1)
      .max(MAX_DISKS)
      .describe(`1 to ${MAX_DISKS} disks (sizeMiB, and base with path and format where it is not empty)`)
      .optional(),
    capture: z.enum(['dirty', 'portable']).optional(),
    standby: z.number().int().min(0).max(1).describe('0 or 1 hosts that keep a standby copy').optional(),
    apart: name.optional(),
    generationId: z.boolean().optional(),
    clock: z.enum(['wall', 'continue']).optional(),
    guestAgent: guestAgentSchema.optional(),
    objective: z
      .strictObject({ backMs: objectiveMs.optional(), lossMs: objectiveMs.optional() })
      .refine(({ backMs, lossMs }) => backMs !== undefined || lossMs !== undefined)
      .describe('backMs or lossMs or both, in milliseconds from 1 to a day')
      .optional(),
    kernel: path,
    initrd: path,
    append: z.string().max(2048).describe('the command line of the kernel: a text of at most 2048 characters')
  })
  .refine(spec => (spec.mac === undefined) !== (spec.nics === undefined))
  .describe('a VM with either mac or nics')

export const groupNameSchema = name
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
  open: z.strictObject({ epoch: count, proposer: peer, deadlineMs: count }).nullable(),
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
    leadMs: duration
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
