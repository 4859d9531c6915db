/** Calls `tell` for every failover that this peer sees from now on, until `signal` aborts: with a token of role view. */
import { ApiClient, type PeerEvent, type RemotePeer } from '../index.ts' // from 'diapause'

export async function watchFailovers(
  peer: RemotePeer,
  tell: (event: PeerEvent) => void,
  signal: AbortSignal
): Promise<void> {
  const client = new ApiClient(peer)
  for await (const event of client.events({ follow: true, signal })) {
    if (event.kind.startsWith('takeover.')) tell(event)
  }
}
