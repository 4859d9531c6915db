import type { ChannelTally } from '../../protocols/epoch/channel.ts'
import type { SwitchStats } from '../ports.ts'

/** All that a switch counts, since it was made. */
export interface SwitchCounters extends SwitchStats, Readonly<ChannelTally> {
  /** Frames that a local VM has sent, by the receivers they were meant for. */
  readonly sent: number
  /** Frames to an address that nobody had been heard under, which went to all of the network. */
  readonly flooded: number
  /** Frames whose number had been passed: they came after the link was mended, or twice. */
  readonly droppedLate: number
  /** Frames under the MAC address of another VM's NIC or of a group of hosts, and frames too short for one. */
  readonly droppedSpoofed: number
  /** Frames of this peer that never left, because the generation they were sent in was over before its lease was regained. */
  readonly droppedFenced: number
  /** Frames that the transport had no connection or no room for. */
  readonly droppedUnsent: number
  /** Frames to and from the outside, and those to it that its relay was not there or too slow for. */
  readonly uplinkOut: number
  readonly uplinkIn: number
  readonly droppedUplink: number
  /** NIC streams closed because they could not be read any more. */
  readonly linksBroken: number
  /** Of frames that wait or are recorded now. */
  readonly waitingMemoryBytes: number
  readonly waitingDiskBytes: number
}

type Gauges = `waiting${string}` | `outputWaiting${string}`

export type Counters = { -readonly [name in Exclude<keyof SwitchCounters, Gauges>]: number }

export const zeroCounters = (): Counters => ({
  sent: 0,
  delivered: 0,
  heldEarly: 0,
  recordedInFlight: 0,
  recordedRecent: 0,
  refusedGeneration: 0,
  refusedSource: 0,
  heldFenced: 0,
  flooded: 0,
  lost: 0,
  droppedLate: 0,
  droppedUnknown: 0,
  droppedSpoofed: 0,
  droppedFenced: 0,
  droppedUnsent: 0,
  droppedFull: 0,
  outputReleased: 0,
  outputDiscarded: 0,
  outputLongestMs: 0,
  uplinkOut: 0,
  uplinkIn: 0,
  droppedUplink: 0,
  bridgeUp: 0,
  bridgeDown: 0,
  linksBroken: 0
})
