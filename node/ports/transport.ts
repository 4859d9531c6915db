/** Messages between peers. */
import type { PeerId } from '../../protocols/core.ts'

/** control: small and urgent. bulk: shards and manifests. frames: Ethernet frames of VMs. One libp2p stream each way each. */
export type Channel = 'control' | 'bulk' | 'frames'

/** A promise holds back the reader of that peer's channel: this is the back-pressure. Throwing closes the stream. */
export type MessageHandler = (from: PeerId, message: Uint8Array) => void | Promise<void>

/** One-way messages between members; in order and whole while a connection lasts, lost when it breaks. */
export interface Transport {
  readonly self: PeerId
  connected(peer: PeerId): boolean
  /**
   * Queues a message now; false where there is no connection or the queue is full (the message is dropped then).
   * `leaves` is asked when its first byte is to leave: where it says no, the message does not.
   */
  send(to: PeerId, channel: Channel, parts: readonly Uint8Array[], leaves?: () => boolean): boolean
  /** As `send`, and settles when the queue has room again. Rejects with TRANSPORT_DISCONNECTED. */
  write(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): Promise<void>
  /** One handler a channel; set before `start`. `message` is the receiver's own; of frames: a view, valid during the call. */
  handle(channel: Channel, handler: MessageHandler): void
  /** Every change of a member's connectedness (never for oneself). */
  onConnection(handler: (peer: PeerId, connected: boolean) => void): void
  start(): Promise<void>
  stop(): Promise<void>
}
