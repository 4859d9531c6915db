/** Takes a snapshot of every group, one after the other, and tells what became of each: with a token of role operate. */
import { ApiClient, hasCode, type RemotePeer } from '../index.ts' // from 'diapause'

export async function snapshotAll(peer: RemotePeer): Promise<string[]> {
  const client = new ApiClient(peer)
  const told: string[] = []
  for (const { id } of await client.groups()) {
    try {
      const { epoch, outcome, reason = '' } = await client.takeEpoch(id)
      told.push(`${id}: epoch ${epoch} ${outcome} ${reason}`.trimEnd())
    } catch (error) {
      if (!hasCode(error, 'EPOCH_OPEN')) throw error
      told.push(`${id}: one is being taken already`)
    }
  }
  return told
}
