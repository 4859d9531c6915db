import type { PeerId } from '../../protocols/core.ts'
import type { FrameRecord } from '../../protocols/frames/records.ts'

/** A record that came before the group's record, or before the NIC of its VM. */
export interface Parked {
  readonly from: PeerId
  readonly group: string
  readonly generation: number
  readonly record: FrameRecord
}

/**
 * A peer learns of a generation a round trip after another, and the NIC of a VM is there when its predecessor has ended: this is
 * what may come in between, from VMs that run already. Guesses.
 */
const MAX_FRAMES = 8192
const MAX_BYTES = 16 << 20
/** What a record costs beside its packet. */
const RECORD_BYTES = 200

interface Channel {
  readonly group: string
  readonly records: Parked[]
  bytes: number
}

/**
 * Records that wait for `setGroup` or `attach`, in order on each channel. Bounded: of the channel that has most the newest frame
 * goes, as in any queue that is full. So a VM that floods one that is not there yet loses what it says itself, and nobody else
 * runs into a timeout for it.
 */
export class Parking {
  readonly #channels = new Map<string, Channel>()
  #frames = 0
  #bytes = 0

  /** The packet is copied. The result is how many records had to go. */
  add(parked: Parked): number {
    const { packet } = parked.record
    const record = { ...parked.record, packet: packet === undefined ? undefined : new Uint8Array(packet) }
    const channel = this.#channelOf(parked)
    channel.records.push({ ...parked, record })
    this.#count(channel, 1, bytesOf(record))
    let dropped = 0
    while (this.#frames > MAX_FRAMES || this.#bytes > MAX_BYTES) {
      const fullest = [...this.#channels.values()].reduce((a, b) => (b.bytes > a.bytes ? b : a))
      const last = fullest.records.pop()
      if (last !== undefined) this.#count(fullest, -1, -bytesOf(last.record))
      dropped++
    }
    return dropped
  }

  /** Takes out all records of `group`, in their order on each channel. */
  take(group: string): Parked[] {
    const taken: Parked[] = []
    for (const [key, channel] of this.#channels) {
      if (channel.group !== group) continue
      for (const parked of channel.records) taken.push(parked)
      this.#channels.delete(key)
      this.#frames -= channel.records.length
      this.#bytes -= channel.bytes
    }
    return taken
  }

  #channelOf({ from, group, generation, record }: Parked): Channel {
    const key = [from, group, generation, record.source, record.group ?? '', record.destination].join('\n')
    let channel = this.#channels.get(key)
    if (channel === undefined) {
      channel = { group, records: [], bytes: 0 }
      this.#channels.set(key, channel)
    }
    return channel
  }

  #count(channel: Channel, frames: number, bytes: number): void {
    channel.bytes += bytes
    this.#frames += frames
    this.#bytes += bytes
  }
}

const bytesOf = ({ packet }: FrameRecord): number => RECORD_BYTES + (packet?.length ?? 0)
