/** One VM with NICs on a bridge and, perhaps, on the peer's own switch: both move together. */
import { FrameQueue } from '../../../protocols/epoch/channel-queue.ts'
import type { Talk } from '../../../protocols/talks.ts'
import { messageOf } from '../../errors.ts'
import type { FrameCounts, FrameLog, Log, NicEnd, NicPort } from '../../ports.ts'
import { encodeAddresses, takeAddresses } from '../addresses.ts'
import type { BridgePort } from './bridge-port.ts'

export interface JoinedPortOptions {
  readonly own: NicPort
  readonly bridged: BridgePort
  /** TAP devices by the numbers of their NICs; all others are the own switch's. */
  readonly devices: ReadonlyMap<number, string>
  /** Takes the devices away. */
  readonly detached: () => Promise<void>
  readonly log: Log
}

export class JoinedPort implements NicPort {
  readonly ends: readonly NicEnd[]
  readonly #own: NicPort
  readonly #bridged: BridgePort
  readonly #devices: ReadonlyMap<number, string>
  readonly #detached: () => Promise<void>
  readonly #log: Log
  #detaching: Promise<void> | undefined

  constructor({ own, bridged, devices, detached, log }: JoinedPortOptions) {
    this.#own = own
    this.#bridged = bridged
    this.#devices = devices
    this.#detached = detached
    this.#log = log
    const streams = [...own.ends]
    const nics = Array.from({ length: devices.size + streams.length }, (_, nic) => devices.get(nic))
    this.ends = nics.map(device => (device === undefined ? (streams.shift() as NicEnd) : { kind: 'tap', device }))
  }

  async prepare(): Promise<void> {
    await both(this.#own.prepare(), this.#bridged.prepare())
  }

  async hold(): Promise<void> {
    await both(this.#own.hold(), this.#bridged.hold())
  }

  async release(): Promise<void> {
    await both(this.#own.release(), this.#bridged.release())
  }

  async drained(): Promise<void> {
    await both(this.#own.drained(), this.#bridged.drained())
  }

  /** The bridge does not number frames: the counts are the own switch's, for its channels. */
  async turn(epoch: number): Promise<FrameCounts> {
    const [counts] = await both(this.#own.turn(epoch), this.#bridged.turn(epoch))
    return counts
  }

  /** The bridge tells of none. */
  talks(): readonly Talk[] {
    return this.#own.talks()
  }

  expect(epoch: number, vm: string, sent: FrameCounts): void {
    this.#own.expect(epoch, vm, sent)
  }

  async recorded(epoch: number): Promise<FrameLog> {
    const logs = await both(this.#own.recorded(epoch), this.#bridged.recorded(epoch))
    return {
      frames: logs[0].frames + logs[1].frames,
      bytes: logs[0].bytes + logs[1].bytes,
      async *pieces() {
        for (const log of logs) yield* log.pieces()
      }
    }
  }

  async abandon(epoch: number): Promise<void> {
    await both(this.#own.abandon(epoch), this.#bridged.abandon(epoch))
  }

  /** Whose a frame is, its NIC says: an image that was taken on one path is resumed on the other. */
  async inject(pieces: AsyncIterable<Uint8Array>): Promise<void> {
    await this.#own.inject(this.#withoutBridged(pieces))
  }

  async detach(): Promise<void> {
    this.#detaching ??= this.#detach()
    await this.#detaching
  }

  async *#withoutBridged(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      const { addresses, rest } = takeAddresses(piece)
      const packets = Array.from(FrameQueue.split(rest))
      const isBridged = (nic: number | undefined): boolean => nic !== undefined && this.#devices.has(nic)
      const bridged = packets.filter(packet => isBridged(packet[0]))
      if (bridged.length > 0) await this.#bridged.inject(Buffer.concat(bridged))
      const heard = encodeAddresses(addresses.filter(({ nic }) => !isBridged(nic)))
      const own = Buffer.concat([heard, ...packets.filter(packet => !isBridged(packet[0]))])
      if (own.length > 0) yield own
    }
  }

  async #detach(): Promise<void> {
    // Without a connection to the bridge its entries wait for one; the device goes all the same.
    const parts = await Promise.allSettled([this.#own.detach(), this.#bridged.detach()])
    for (const part of [...parts, ...(await Promise.allSettled([this.#detached()]))]) {
      if (part.status === 'fulfilled') continue
      const { group, vm } = this.#bridged
      this.#log.warn({ group, vm, error: messageOf(part.reason) }, 'a NIC was not detached cleanly')
    }
  }
}

/** Both are begun at once. Where one fails the other is awaited all the same, so that what follows finds it done. */
async function both<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([first, second])
  return await Promise.all([first, second])
}
