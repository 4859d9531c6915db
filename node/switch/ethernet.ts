/**
 * What the switch reads of a frame. Pure. A packet is a frame with four bytes before it: the number of the NIC that is to
 * have it and a u24 big-endian length; on the link to QEMU, a u32 length.
 */

export const PREFIX_BYTES = 4

/** "52:54:00:12:34:56" as a number below 2^48; TypeError on anything else. */
export function macNumber(text: string): number {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text)) throw new TypeError(`${JSON.stringify(text)} is not a MAC address`)
  return Number.parseInt(text.replaceAll(':', ''), 16)
}

/** The MAC address at `offset` of `bytes`. */
export function macAt(bytes: Uint8Array, offset: number): number {
  const high = ((bytes[offset] as number) << 8) | (bytes[offset + 1] as number)
  const low =
    (((bytes[offset + 2] as number) << 24) |
      ((bytes[offset + 3] as number) << 16) |
      ((bytes[offset + 4] as number) << 8) |
      (bytes[offset + 5] as number)) >>>
    0
  return high * 0x1_0000_0000 + low
}

export const destinationMac = (packet: Uint8Array): number => macAt(packet, PREFIX_BYTES)
export const sourceMac = (packet: Uint8Array): number => macAt(packet, PREFIX_BYTES + 6)

/** Multicast, and with it broadcast: the lowest bit of the first byte (IEEE 802, group address). */
export const isMulticast = (packet: Uint8Array): boolean => ((packet[PREFIX_BYTES] as number) & 1) === 1

export function toPacket(frame: Uint8Array): Uint8Array {
  const packet = Buffer.allocUnsafeSlow(PREFIX_BYTES + frame.length)
  packet.writeUInt32BE(frame.length, 0)
  packet.set(frame, PREFIX_BYTES)
  return packet
}

/** Packets end to end as a link has them, in one new buffer of `bytes` bytes, their sum. */
export function joinPackets(packets: readonly Uint8Array[], bytes: number): Uint8Array {
  const joined = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const packet of packets) {
    joined.set(packet, at)
    joined[at] = 0
    at += packet.length
  }
  return joined
}

/**
 * Says where `mac` is now: a RARP request of it for itself, to all (RFC 903), which is what QEMU and VMware send after a
 * move: switches learn from it and hosts do not mind it. 60 bytes, the smallest frame.
 */
export function announcement(mac: number): Uint8Array {
  const packet = Buffer.alloc(PREFIX_BYTES + 60)
  packet.writeUInt32BE(60, 0)
  packet.fill(0xff, PREFIX_BYTES, PREFIX_BYTES + 6)
  packet.writeUIntBE(mac, PREFIX_BYTES + 6, 6)
  // RARP; hardware Ethernet, protocol IPv4, their address lengths; request reverse.
  packet.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], PREFIX_BYTES + 12)
  packet.writeUIntBE(mac, PREFIX_BYTES + 22, 6)
  packet.writeUIntBE(mac, PREFIX_BYTES + 32, 6)
  return packet
}
