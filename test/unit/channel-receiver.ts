import { ChannelReceiver, type ChannelTally, type ReceiverLimits } from '../../protocols/epoch/channel.ts'

export const LIMITS: ReceiverLimits = {
  waiting: { frames: 1000, bytes: 1 << 20 },
  recording: { frames: 1000, bytes: 1 << 20 },
  recordings: 2
}

export const frame = (id: number): Uint8Array => Uint8Array.of(id >> 8, id & 255)
const idOf = (bytes: Uint8Array): number => ((bytes[0] as number) << 8) | (bytes[1] as number)

/** A receiver whose effects are lists. */
export function receiverAt(colour: number, senders: string[], limits = LIMITS) {
  const delivered: number[] = []
  const markers: number[] = []
  const recorded = new Map<number, number[]>()
  const failed = new Map<number, string>()
  const tally: ChannelTally = { lost: 0, recordedInFlight: 0, recordedRecent: 0, droppedFull: 0 }
  const receiver = new ChannelReceiver({
    colour,
    limits,
    tally,
    sink: {
      deliver: bytes => delivered.push(idOf(bytes)),
      marker: epoch => markers.push(epoch),
      recorded: (epoch, frames) => recorded.set(epoch, frames.map(idOf)),
      failed: (epoch, error) => failed.set(epoch, error.code)
    }
  })
  receiver.setSenders(senders)
  return { receiver, delivered, markers, recorded, failed, tally }
}
