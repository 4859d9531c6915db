import type { PeerId } from '../../protocols/core.ts'
import type { FrameRecord } from '../../protocols/frames/records.ts'
import type { Clock } from '../ports.ts'

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
/** Of one peer: 32 VMs that all talk with each other. Whoever names ever new VMs or groups does not fill the rest. A guess. */
const MAX_CHANNELS_OF_PEER = 1024
/** What is of a group that nobody here has heard of goes after this: its record would have come long ago. A guess. */
const UNKNOWN_MS = 60_000
/** Channels whose bytes differ by less count as equally full. A guess: less than a common frame. */
const LEVEL_BYTES = 1024

interface Channel {
  readonly key: string
  readonly from: PeerId
  readonly group: string
  readonly sinceMs: number
  readonly records: Parked[]
  bytes: number
}

/**
 * Records that wait for `setGroup` or `attach`, in order on each channel. Bounded: of the channel that has most the newest frame
 * goes, as in any queue that is full. So a VM that floods one that is not there yet loses what it says itself, and nobody else
 * runs into a timeout for it. A record costs the same however many channels there are, each of which has a record.
 */
export class Parking {
  readonly #clock: Clock
  readonly #isKnown: (group: string) => boolean
  readonly #channels = new Map<string, Channel>()
  /** Of each peer that has any. */
  readonly #channelsOf = new Map<PeerId, number>()
  readonly #levels = new Levels()
  #frames = 0
  #bytes = 0
  #isSweepDue = false

  /** `isKnown`: whether there is such a group, as far as this peer has heard. */
  constructor(clock: Clock, isKnown: (group: string) => boolean) {
    this.#clock = clock
    this.#isKnown = isKnown
  }

  /** The packet is copied. The result is how many records had to go. */
  add(parked: Parked): number {
    const { packet } = parked.record
    const channel = this.#channelOf(parked)
    if (channel === undefined) return 1
    const record = { ...parked.record, packet: packet === undefined ? undefined : new Uint8Array(packet) }
    channel.records.push({ ...parked, record })
    this.#count(channel, 1, bytesOf(record))
    this.#sweepLater()
    let dropped = 0
    while (this.#frames > MAX_FRAMES || this.#bytes > MAX_BYTES) {
      const fullest = this.#levels.fullest(channel)
      const last = fullest?.records.pop()
      if (fullest === undefined || last === undefined) break
      this.#count(fullest, -1, -bytesOf(last.record))
      if (fullest.records.length === 0) this.#remove(fullest)
      dropped++
    }
    return dropped
  }

  /** Takes out all records of `group`, in their order on each channel. */
  take(group: string): Parked[] {
    const channels = [...this.#channels.values()].filter(channel => channel.group === group)
    for (const channel of channels) this.#remove(channel)
    return channels.flatMap(({ records }) => records)
  }

  /** Undefined: it would be one too many of its peer. */
  #channelOf({ from, group, generation, record }: Parked): Channel | undefined {
    const key = [from, group, generation, record.source, record.group ?? '', record.destination].join('\n')
    const found = this.#channels.get(key)
    if (found !== undefined) return found
    const ofPeer = this.#channelsOf.get(from) ?? 0
    if (ofPeer >= MAX_CHANNELS_OF_PEER) return undefined
    const channel: Channel = { key, from, group, sinceMs: this.#clock.now(), records: [], bytes: 0 }
    this.#channels.set(key, channel)
    this.#channelsOf.set(from, ofPeer + 1)
    this.#levels.add(channel)
    return channel
  }

  #remove(channel: Channel): void {
    const { key, from, records, bytes } = channel
    this.#frames -= records.length
    this.#bytes -= bytes
    this.#levels.delete(channel)
    this.#channels.delete(key)
    const left = (this.#channelsOf.get(from) ?? 0) - 1
    if (left > 0) this.#channelsOf.set(from, left)
    else this.#channelsOf.delete(from)
  }

  #count(channel: Channel, frames: number, bytes: number): void {
    this.#levels.delete(channel)
    channel.bytes += bytes
    this.#levels.add(channel)
    this.#frames += frames
    this.#bytes += bytes
  }

  #sweepLater(): void {
    if (this.#isSweepDue) return
    this.#isSweepDue = true
    this.#clock.after(UNKNOWN_MS, () => {
      this.#isSweepDue = false
      const since = this.#clock.now() - UNKNOWN_MS
      for (const channel of this.#channels.values()) {
        if (channel.sinceMs <= since && !this.#isKnown(channel.group)) this.#remove(channel)
      }
      if (this.#channels.size > 0) this.#sweepLater()
    })
  }
}

/** Channels by how full they are: which is fullest is known without a look at all of them. */
class Levels {
  readonly #levels = new Map<number, Set<Channel>>()
  /** No channel is on a higher one. */
  #top = 0

  add(channel: Channel): void {
    const level = levelOf(channel)
    const there = this.#levels.get(level)
    if (there === undefined) this.#levels.set(level, new Set([channel]))
    else there.add(channel)
    this.#top = Math.max(this.#top, level)
  }

  /** As full as it was when it was added. */
  delete(channel: Channel): void {
    const level = levelOf(channel)
    const there = this.#levels.get(level)
    there?.delete(channel)
    if (there?.size === 0) this.#levels.delete(level)
  }

  /** `newest`, where no other is fuller. The top falls no further than frames have raised it. */
  fullest(newest: Channel): Channel | undefined {
    while (this.#top > 0 && !this.#levels.has(this.#top)) this.#top--
    const there = this.#levels.get(this.#top)
    if (there?.has(newest)) return newest
    return there?.values().next().value
  }
}

const levelOf = ({ bytes }: Channel): number => Math.floor(bytes / LEVEL_BYTES)

const bytesOf = ({ packet }: FrameRecord): number => RECORD_BYTES + (packet?.length ?? 0)
