/**
 * What every member says of itself to the others (control channel, protocol "host"): how much memory it gives to VMs, so that all
 * place them alike, and what it understands. Hints: facts that differ make plans that differ, and no harm. Beside `storage-facts.ts`, and not in it, because members of versions
 * that know only that one would refuse it with a field more.
 *
 * | message | the receiver must |
 * |---|---|
 * | host | keep it as what its sender is, instead of what that said before, until it is no member any more |
 *
 * Sent when the storage facts are; by witnesses, which have none of those, as often. Fields of newer versions are passed over. Who
 * says nothing has room for any VM, and understands what the first version did.
 */
import { z } from 'zod'

export const HOST_PROTOCOL = 'host'

/**
 * What this version understands in records and messages that members of a version before would refuse. It grows with each release
 * that has such words (`node/planning/older-members.ts` keeps them back until all members tell as much):
 *
 * | number | brought |
 * |---|---|
 * | none told | all before; some of these members know some words of 1, but nobody can tell which |
 * | 1 | `standby`, `apart`, `generationId`, `clock`, `guestAgent`, `objective` of VMs; VMs without `kernel`, `initrd`, `append`; `policy` and `drills` of groups; `apiTokens` of the cluster; `pauseMs` in `cut`; `wallMs` of what is committed where nothing else is kept |
 * | 2 | `resting` of groups, `rest` of an open epoch |
 */
export const SPEAKS = 2

export interface HostFacts {
  /** MiB of RAM for VMs, of all groups together; 0: a witness. */
  readonly vmMemoryMiB: number
  /** The sender's SPEAKS. Absent: it is of a version from before there was such a number. */
  readonly speaks?: number | undefined
}

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const factsSchema = z.object({ vmMemoryMiB: count, speaks: count.optional() })

export const parseHostFacts = (message: unknown): HostFacts => factsSchema.parse(message)
