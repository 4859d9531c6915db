/** An image's frames are never dropped: they wait until there is room for them. */
import type { ChannelReceiver } from '../../protocols/epoch/channel.ts'
import type { Clock } from '../ports.ts'

/** How long an image's frames wait for room, and how often they look: twice as long as a disk rests that failed (spill.ts). Guesses. */
const ROOM_PATIENCE_MS = 10_000
const ROOM_RETRY_MS = 5

/**
 * Frames of others go to disk or to their VMs meanwhile. In the end `inject` says that there is none. `assertAttached`
 * throws where nobody is to wait any more.
 */
export async function roomFor(
  bytes: number,
  receiver: ChannelReceiver,
  clock: Clock,
  assertAttached: () => void
): Promise<void> {
  const untilMs = clock.now() + ROOM_PATIENCE_MS
  while (!receiver.hasRoom(bytes) && clock.now() < untilMs) {
    await new Promise<void>(resolve => clock.after(ROOM_RETRY_MS, resolve))
    assertAttached()
  }
}
