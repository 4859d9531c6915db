/**
 * What a VM is made of, as people write it in a definition and as records carry it; `protocols/group.ts` says what each field
 * means. Descriptions here are what an error message says was expected, and what an editor shows.
 */
import { z } from 'zod'

/** Names of groups, their VMs, and what belongs to them. */
export const groupNameSchema = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/)
  .describe('a name: a letter or digit, then up to 62 of letters, digits, _, . and -')
const name = groupNameSchema
const path = z.string().min(1).max(4096).describe('the path of a file, the same on every host that may run the VM')

/** At most this many VMs in a group: the record must fit a register (64 KiB). */
export const MAX_GROUP_VMS = 64

/** Guesses; the machine type has room for more. */
/** Of a VM: a boot sector needs less than a mebibyte, Linux some 40. */
export const MIN_MEMORY_MIB = 16
export const MAX_MEMORY_MIB = 1 << 20
export const MAX_NICS = 8
export const MAX_DISKS = 8
export const MAX_CPUS = 64
const MAX_PROGRAM_WORDS = 32
/** An hour: a guess. */
const MAX_GUEST_AGENT_MS = 3_600_000
/** 1 TiB: blocks of 4 KiB of all disks and RAM together are numbered by 32 bits. */
export const MAX_DISK_MIB = 1 << 20

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

interface Boot {
  readonly kernel?: string | undefined
  readonly initrd?: string | undefined
  readonly append?: string | undefined
  readonly disks?: readonly { readonly base?: object | undefined }[] | undefined
}

/** A kernel, or a first disk that does not begin empty. */
function withSomethingToBoot(spec: Boot, context: z.RefinementCtx): void {
  if (spec.kernel !== undefined) return
  const wrong = (path: PropertyKey, message: string) =>
    context.addIssue({ code: 'custom', path: [path], message, params: { says: true } })
  if (spec.disks?.[0]?.base === undefined) {
    wrong('kernel', 'the path of a kernel, or none where the first disk has a base to boot from')
  }
  for (const key of ['initrd', 'append'] as const) {
    if (spec[key] !== undefined) wrong(key, 'nothing where there is no kernel: a disk brings its own')
  }
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
  .describe('such as {} or { afterRestore: ["/usr/local/sbin/restored"], timeoutMs: 30000 }')

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
    memoryMiB: z.number().int().min(MIN_MEMORY_MIB).max(MAX_MEMORY_MIB),
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
    kernel: path.optional(),
    initrd: path.optional(),
    append: z
      .string()
      .max(2048)
      .describe('the command line of the kernel: a text of at most 2048 characters')
      .optional()
  })
  .superRefine(withSomethingToBoot)
  .refine(spec => (spec.mac === undefined) !== (spec.nics === undefined))
  .describe('a VM with either mac or nics')
