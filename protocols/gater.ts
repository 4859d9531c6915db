/**
 * The door: who gets past the Noise handshake. It is asked when the identity is proven and no muxer is spoken yet, so a
 * stranger learns this peer's public key, which Noise XX shows to any initiator, and nothing else.
 */
import type { PeerId } from './core.ts'
import type { ConnectionGater, MultiaddrConnection } from './stream.ts'

export interface Door {
  isMember(peer: PeerId): boolean
  isInvited(peer: PeerId): boolean
  /** Whether an invited stranger may come in on this connection. */
  admit(peer: PeerId, connection: MultiaddrConnection): boolean
  /** Neither a member nor invited. */
  onStranger(peer: PeerId): void
}

export function gaterOf(door: Door): ConnectionGater {
  const isNoMember = (id: { toString(): string }): boolean => {
    if (door.isMember(id.toString())) return false
    door.onStranger(id.toString())
    return true
  }
  return {
    denyDialPeer: isNoMember,
    denyDialMultiaddr: () => false,
    denyOutboundEncryptedConnection: isNoMember,
    denyInboundEncryptedConnection: (id, connection) =>
      !door.isMember(id.toString()) && door.isInvited(id.toString())
        ? !door.admit(id.toString(), connection)
        : isNoMember(id)
  }
}
