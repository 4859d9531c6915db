/**
 * What the frames at the NICs of two VMs say about a TCP stream between them: how far it came when, and when its sender
 * sent something again. Pure.
 *
 * Progress is what the receiver's TCP acknowledges in the frames that *it* sends, as it sends them: bytes it has in order,
 * whatever becomes of the acknowledgement on its way.
 *
 * A retransmission counts as one of a timeout (RFC 6298) where it is of the first byte not acknowledged and came out of
 * silence: the timer had had its least time since it was last set anew, and no frame from the receiver had just come,
 * which could have caused a fast one. A probe of the last segment (RFC 8985, section 7) with nothing else outstanding
 * looks the same and is counted, too: the guests' own count (TcpExtTCPTimeouts) is the stricter word, this one says when.
 */
import { PREFIX_BYTES } from '../../node/switch/ethernet.ts'

/** Of VMs on 10.9.0.0/24: `from` and `to` are the last bytes of their addresses, which are their numbers. */
export interface Segment {
  readonly from: number
  readonly to: number
  readonly fromPort: number
  readonly toPort: number
  /** Modulo 2^32, as `acknowledged`. */
  readonly sequence: number
  readonly acknowledged: number
  /** Of data. */
  readonly bytes: number
}

/** A segment at the NIC of VM `vm`, which has sent it or was given it. */
export interface Seen extends Segment {
  readonly atMs: number
  readonly vm: number
  readonly way: 'sent' | 'given'
}

/** Data flows from VM `sender` to `port` of VM `receiver`. */
export interface Stream {
  readonly sender: number
  readonly receiver: number
  readonly port: number
}

export interface Point {
  readonly atMs: number
  /** Since the first byte that was heard of. */
  readonly bytes: number
}

export interface StreamRun {
  /** Each with more bytes than the one before; the first is where the history ended. */
  readonly progress: readonly Point[]
  readonly repeats: readonly (Point & { readonly timeout: boolean })[]
}

/** Linux waits at least 200 ms (TCP_RTO_MIN); less one tick of 4 ms and what a busy host shifts what is seen. */
const LEAST_TIMEOUT_MS = 180
/** What the sender does in answer to a frame comes sooner. A guess, twice a pause. */
const ANSWER_MS = 40

/** Undefined where the packet is no TCP over IPv4. Frames are cut short at 60 bytes at least, so `bytes` is IP's word. */
export function segmentOf(packet: Uint8Array): Segment | undefined {
  const frame = Buffer.from(packet.buffer, packet.byteOffset + PREFIX_BYTES, packet.length - PREFIX_BYTES)
  const [IP, TCP] = [14, 6]
  if (frame.length < IP + 40 || frame.readUInt16BE(12) !== 0x0800 || frame[IP + 9] !== TCP) return undefined
  const tcp = IP + ((frame[IP] as number) & 15) * 4
  if (frame.length < tcp + 20) return undefined
  const end = IP + frame.readUInt16BE(IP + 2)
  return {
    from: frame[IP + 15] as number,
    to: frame[IP + 19] as number,
    fromPort: frame.readUInt16BE(tcp),
    toPort: frame.readUInt16BE(tcp + 2),
    sequence: frame.readUInt32BE(tcp + 4),
    acknowledged: frame.readUInt32BE(tcp + 8),
    bytes: Math.max(0, end - tcp - ((frame[tcp + 12] as number) >> 4) * 4)
  }
}

/** `later` - `earlier` of sequence numbers that are less than 2^31 apart. */
const distance = (later: number, earlier: number): number => (later - earlier) | 0

/**
 * `history`: what the two VMs had seen when they came to the state in which `seen` begins (the run from which an image
 * was taken, up to its cut); nothing of it is in the result, but what is sent again, or new, is judged by it.
 */
export function followStream(stream: Stream, history: readonly Seen[], seen: readonly Seen[]): StreamRun {
  const follower = new Follower(stream)
  for (const each of history) follower.take(each)
  follower.begin(seen[0]?.atMs ?? 0)
  for (const each of seen) follower.take(each)
  return { progress: follower.progress, repeats: follower.repeats }
}

class Follower {
  readonly #stream: Stream
  #origin: number | undefined
  /** Bytes since the origin: received in order, acknowledged to the sender, sent. */
  #received = 0
  #acknowledged = 0
  #sent = 0
  #timerMs = -Infinity
  #heardMs = -Infinity
  progress: Point[] = []
  repeats: (Point & { readonly timeout: boolean })[] = []

  constructor(stream: Stream) {
    this.#stream = stream
  }

  /** A VM's timers go on where they were in its image, and how long they have run is not known here: they may end at once. */
  begin(atMs: number): void {
    this.progress = [{ atMs, bytes: this.#received }]
    this.repeats = []
    this.#timerMs = -Infinity
    this.#heardMs = -Infinity
  }

  take(each: Seen): void {
    const { sender, receiver, port } = this.#stream
    if (each.from === sender && each.to === receiver && each.toPort === port) {
      if (each.vm === sender && each.way === 'sent' && each.bytes > 0) this.#data(each)
    } else if (each.from === receiver && each.to === sender && each.fromPort === port) {
      if (each.vm === receiver && each.way === 'sent') this.#ownAck(each)
      if (each.vm === sender && each.way === 'given') this.#ackGiven(each)
    }
  }

  #data({ atMs, sequence, bytes }: Seen): void {
    const at = this.#offset(sequence)
    if (at >= this.#sent) {
      if (this.#sent <= this.#acknowledged) this.#timerMs = atMs
    } else {
      const silent = atMs - this.#timerMs >= LEAST_TIMEOUT_MS && atMs - this.#heardMs >= ANSWER_MS
      this.repeats.push({ atMs, bytes: at, timeout: at <= this.#acknowledged && silent })
      this.#timerMs = atMs
    }
    this.#sent = Math.max(this.#sent, at + bytes)
  }

  #ownAck({ atMs, acknowledged }: Seen): void {
    const bytes = this.#offset(acknowledged)
    if (bytes <= this.#received) return
    this.#received = bytes
    this.progress.push({ atMs, bytes })
  }

  #ackGiven({ atMs, acknowledged }: Seen): void {
    this.#heardMs = atMs
    const bytes = this.#offset(acknowledged)
    if (bytes <= this.#acknowledged) return
    this.#acknowledged = bytes
    this.#timerMs = atMs
  }

  #offset(number: number): number {
    this.#origin ??= number
    return distance(number, this.#origin)
  }
}

/** The longest time without progress between `fromMs` and `toMs`, both ends included. */
export function longestSilence(progress: readonly Point[], fromMs: number, toMs: number): number {
  let lastMs = fromMs
  let longest = 0
  for (const { atMs } of progress.slice(1)) {
    if (atMs <= fromMs || atMs > toMs) continue
    longest = Math.max(longest, atMs - lastMs)
    lastMs = atMs
  }
  return Math.max(longest, toMs - lastMs)
}

/** From `sinceMs` to the first progress after it; Infinity where there was none. */
export function untilProgress(progress: readonly Point[], sinceMs: number): number {
  const next = progress.slice(1).find(({ atMs }) => atMs > sinceMs)
  return next === undefined ? Infinity : next.atMs - sinceMs
}
