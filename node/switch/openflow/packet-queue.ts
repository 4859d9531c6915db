/**
 * What the userspace datapath has not read yet of what came to a port: bytes in the queue of its packet socket, as the
 * kernel tells in `/proc/net/packet` (columns `sk RefCnt Type Proto Iface R Rmem User Inode`). Where a datapath is in the
 * kernel, no packet socket is bound to the interface and nothing waits: a frame is forwarded in the call that sends it.
 */
import { DiapauseError } from '../../errors.ts'

export const PACKET_QUEUES = '/proc/net/packet'

/** The sum over the sockets bound to interface number `ifIndex`. OPENFLOW_QUEUE: not the table that it should be. */
export function queuedBytes(table: string, ifIndex: number): number {
  const [names = [], ...lines] = table.split('\n').map(line => line.trim().split(/\s+/))
  const [iface, bytes] = [names.indexOf('Iface'), names.indexOf('Rmem')]
  if (iface === -1 || bytes === -1) {
    throw new DiapauseError('OPENFLOW_QUEUE', `${PACKET_QUEUES} has no columns Iface and Rmem: ${names.join(' ')}`)
  }
  const ours = lines.filter(line => line[iface] === String(ifIndex))
  return ours.reduce((sum, line) => sum + Number(line[bytes]), 0)
}
