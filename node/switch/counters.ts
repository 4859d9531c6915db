import type { ChannelTally } from '../../protocols/epoch/channel.ts'
import type { SwitchStats } from '../ports.ts'

/** All that a switch counts, since it was made. */
export interface SwitchCounters extends SwitchStats, Readonly<ChannelTally> {
  /** Frames that a local VM has sent, by the receivers they were meant for. */
  readonly sent: number
  /** Frames and turns from a peer that does not own their source in this generation. */
  readonly refusedSource: number
  /** Frames whose number had been passed: they came after the link was mended, or twice. */
  readonly droppedLate: number
  /** Frames of local VMs under another MAC address than their own, or too short for one. */
  readonly droppedSpoofed: number
  /** Frames that the transport had no connection or no room for. */
  readonly droppedUnsent: number
  /** NIC streams closed because they could not be read any more. */
  readonly linksBroken: number
}

export type Counters = { -readonly [name in keyof SwitchCounters]: number }

export const zeroCounters = (): Counters => ({
  sent: 0,
  delivered: 0,
  heldEarly: 0,
  recordedInFlight: 0,
  recordedRecent: 0,
  refusedGeneration: 0,
  refusedSource: 0,
  lost: 0,
  droppedLate: 0,
  droppedUnknown: 0,
  droppedSpoofed: 0,
  droppedUnsent: 0,
  droppedFull: 0,
  linksBroken: 0
})
