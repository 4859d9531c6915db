/**
 * What peers say to each other while a group goes back to an image (control channel, protocol "restore"), so that VMs that wait for
 * each other's answers start together. Hints: a lost one makes a VM wait as long as it is to at most, and is said again.
 *
 * | message | the receiver must |
 * |---|---|
 * | ready | count VM `vm` of that generation as ready to run, if its sender owns it |
 *
 * Members of older versions drop it, and say nothing.
 */
import { z } from 'zod'
import { groupNameSchema } from '../config/vm.ts'

export const RESTORE_PROTOCOL = 'restore'

export interface ReadyMessage {
  readonly kind: 'ready'
  readonly group: string
  readonly generation: number
  readonly vm: string
}

const messageSchema = z.strictObject({
  kind: z.literal('ready'),
  group: groupNameSchema,
  generation: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  vm: groupNameSchema
})

export const parseReadyMessage = (message: unknown): ReadyMessage => messageSchema.parse(message)
