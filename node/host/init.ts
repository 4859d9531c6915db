/** `diapause init`: a new cluster of one peer. The next ones come by invitation. */
import { randomBytes } from 'node:crypto'
import { initialRecord } from '../../protocols/membership/genesis.ts'
import { loadOrCreateIdentity } from './identity.ts'
import { type MadePeer, type NewPeerOptions, planNewPeer, writeNewPeer } from './new-peer.ts'

/** Makes identity, secret, config file and the cluster's first record. UsageError NEW_PEER_INVALID, NEW_PEER_EXISTS. */
export async function initCluster(options: NewPeerOptions & { readonly cluster: string }): Promise<MadePeer> {
  const { cluster } = options
  const peer = await planNewPeer(options, cluster)
  const { peerId } = await loadOrCreateIdentity(peer.dataDir)
  const founder = { id: peerId, name: peer.name, address: peer.address, role: 'storage' } as const
  const record = initialRecord(randomBytes(16).toString('hex'), cluster, founder)
  await writeNewPeer(peer, { record, secret: randomBytes(32), settings: {}, by: 'init' })
  return { id: peerId, name: peer.name, cluster, configFile: peer.configFile }
}
