/**
 * How one peer reads the serial console of a VM that runs on another, and types on it (control channel, protocol "console").
 *
 * | message | the receiver must |
 * |---|---|
 * | read    | answer once with what the VM's console has said after `from`, at most MAX_READ_BYTES; where there is nothing yet, wait for `waitMs` at most |
 * | said    | take it for the question of that id, once |
 * | type    | type the text, if the VM runs here, and say that it is done |
 * | typed   | take it for the question of that id, once |
 * | refusal | likewise: it could not be done; `code` and `why` are for whoever asked for it |
 *
 * Members of versions that do not know this protocol drop the questions, and count as silent; fields of newer versions are
 * passed over.
 */
import { z } from 'zod'
import { groupNameSchema } from '../../config/vm.ts'

export const CONSOLE_PROTOCOL = 'console'

/** What is said in one answer. A guess: a screen has 2 KB, and others' control messages do not wait long behind it. */
export const MAX_READ_BYTES = 32 << 10
/** A line that is typed, not a file. */
export const MAX_TYPED_CHARACTERS = 4_096
/** How long a question for what there is to come may stand. */
export const MAX_WAIT_MS = 10_000

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const vm = { group: groupNameSchema, vm: groupNameSchema }

const messageSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('read'),
    id: count,
    ...vm,
    /** A place in all that this host has of the VM's console, in bytes; negative: so many before its end. */
    from: z.number().int().min(-MAX_READ_BYTES).max(Number.MAX_SAFE_INTEGER),
    waitMs: z.number().int().min(0).max(MAX_WAIT_MS)
  }),
  /** `from`: where it begins; elsewhere than asked where there is no such place. `bytes`: base64. */
  z.object({
    kind: z.literal('said'),
    id: count,
    from: count,
    bytes: z.string().max(Math.ceil(MAX_READ_BYTES / 3) * 4)
  }),
  z.object({ kind: z.literal('type'), id: count, ...vm, text: z.string().max(MAX_TYPED_CHARACTERS) }),
  z.object({ kind: z.literal('typed'), id: count }),
  z.object({ kind: z.literal('refusal'), id: count, code: z.string().max(60), why: z.string().max(500) })
])
export type ConsoleMessage = z.output<typeof messageSchema>
export type MessageOf<Kind extends ConsoleMessage['kind']> = Extract<ConsoleMessage, { kind: Kind }>

/** Throws on anything that is not a message within the limits. */
export const parseConsoleMessage = (raw: unknown): ConsoleMessage => messageSchema.parse(raw)
