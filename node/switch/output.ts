/**
 * Output commit of a group on this peer: what its VMs send to the outside is kept (`protocols/epoch/output-hold.ts`) until
 * the group's record says that an epoch is committed which contains it, and until this peer may act. The outside is all
 * that is not rolled back with the group: the uplink with whoever is on it, and VMs of other groups.
 */
import { OutputHold } from '../../protocols/epoch/output-hold.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { Clock } from '../ports.ts'
import type { Counters } from './counters.ts'
import type { Station } from './network.ts'
import type { FrameSpace } from './spill.ts'
import type { Speaker, Uplink } from './uplink.ts'

export interface OutputHost {
  readonly clock: Clock
  readonly counters: Counters
  readonly space: FrameSpace
  readonly uplink: Uplink
  schedule(part: { flush(): void }): void
}

export interface OutputGroup extends Speaker {
  stationOf(vm: string, nic: number): Station | undefined
  /** A frame that need not wait any more. */
  leave(from: Station, packet: Uint8Array): void
}

/** Frames that are let out in one turn of the event loop: a quarter of what the uplink keeps for a group. */
const BURST_FRAMES = 256

export class Output {
  readonly #group: OutputGroup
  readonly #host: OutputHost
  readonly #frames: OutputHold

  constructor(group: OutputGroup, { generation }: GroupRecord, host: OutputHost) {
    this.#group = group
    this.#host = host
    this.#frames = new OutputHold({
      generation,
      keeper: host.space.outputKeeper(),
      ready: () => host.schedule(group),
      lost: frames => {
        host.counters.droppedFull += frames
      }
    })
  }

  get frames(): number {
    return this.#frames.frames
  }

  /** See `SwitchStats.outputLongestMs`. */
  get longestMs(): number {
    return this.#frames.longestMs(this.#host.clock.now())
  }

  hold(from: Station, colour: number, packet: Uint8Array): void {
    packet[0] = from.nic
    if (!this.#frames.hold(from.vm, colour, packet, this.#host.clock.now())) this.#host.counters.droppedFull++
  }

  learn(record: GroupRecord): void {
    this.#frames.learn(record, this.#host.clock.now())
    this.#host.schedule(this.#group)
  }

  /** Lets out what may leave, some of it in each turn, while this peer may act and the uplink keeps up. */
  flush(): void {
    const { uplink, counters } = this.#host
    if (!this.#group.mayAct()) return // scheduled again when it may
    for (let left = BURST_FRAMES; left > 0; left--) {
      if (!uplink.takes(this.#group)) return
      const next = this.#frames.shift()
      if (next === undefined) return
      counters.outputReleased++
      const from = this.#group.stationOf(next.source, next.packet[0] as number)
      if (from === undefined) counters.droppedUnknown++
      else this.#group.leave(from, next.packet)
    }
    this.#host.schedule(this.#group)
  }

  /** The generation is over. */
  close(): void {
    const { counters } = this.#host
    counters.outputLongestMs = Math.max(counters.outputLongestMs, this.longestMs)
    counters.outputDiscarded += this.#frames.clear()
  }
}
