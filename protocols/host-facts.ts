/**
 * What a member that runs VMs says of itself to the others (control channel, protocol "host"), so that all place VMs alike. Hints:
 * facts that differ make plans that differ, and no harm. Beside `storage-facts.ts`, and not in it, because members of versions
 * that know only that one would refuse it with a field more.
 *
 * | message | the receiver must |
 * |---|---|
 * | host | keep it as what its sender is, instead of what that said before, until it is no member any more |
 *
 * Sent when the storage facts are. Fields of newer versions are passed over. Who says nothing has room for any VM.
 */
import { z } from 'zod'

export const HOST_PROTOCOL = 'host'

export interface HostFacts {
  /** MiB of RAM for VMs, of all groups together. */
  readonly vmMemoryMiB: number
}

const factsSchema = z.object({ vmMemoryMiB: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER) })

export const parseHostFacts = (message: unknown): HostFacts => factsSchema.parse(message)
