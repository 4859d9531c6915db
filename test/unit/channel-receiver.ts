import { ChannelReceiver, type ChannelTally } from '../../protocols/epoch/channel.ts'
import type { ChunkKeeper, FrameQueue } from '../../protocols/epoch/channel-queue.ts'
import { MemoryKeeper } from './chunk-keepers.ts'

/** A packet: NIC and length, then the id. */
export const frame = (id: number, nic = 0): Uint8Array => Uint8Array.of(nic, 0, 0, 2, id >> 8, id & 255)
export const FRAME_BYTES = frame(0).length
const idOf = (bytes: Uint8Array): number => ((bytes[4] as number) << 8) | (bytes[5] as number)

/** Packets end to end. */
export const frames = (...ids: number[]): Uint8Array => Uint8Array.from(ids.flatMap(id => [...frame(id)]))

/** All that is at hand. */
export function idsOf(queue: FrameQueue): number[] {
  const ids: number[] = []
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) ids.push(idOf(next))
  return ids
}

/** A receiver whose effects are lists. */
export function receiverAt(colour: number, senders: string[], keeper: ChunkKeeper = new MemoryKeeper(), nics = 1) {
  const delivered: number[] = []
  /** Of them. */
  const foreign: number[] = []
  const markers: number[] = []
  const recorded = new Map<number, number[]>()
  const failed = new Map<number, string>()
  const unread = new Map<number, FrameQueue>()
  const tally: ChannelTally = { lost: 0, recordedInFlight: 0, recordedRecent: 0, droppedFull: 0 }
  const read = (epoch: number): void => {
    const queue = unread.get(epoch)
    if (queue !== undefined) recorded.get(epoch)?.push(...idsOf(queue))
  }
  const receiver = new ChannelReceiver({
    colour,
    nics,
    keeper,
    tally,
    sink: {
      deliver: (bytes, isForeign) => {
        delivered.push(idOf(bytes))
        if (isForeign) foreign.push(idOf(bytes))
      },
      marker: epoch => markers.push(epoch),
      recorded: (epoch, queue) => {
        recorded.set(epoch, [])
        unread.set(epoch, queue)
        read(epoch)
      },
      ready: read,
      lost: epoch => failed.set(epoch, 'lost'),
      failed: (epoch, error) => failed.set(epoch, error.code)
    }
  })
  receiver.setSenders(senders)
  return { receiver, delivered, foreign, markers, recorded, unread, failed, tally }
}
