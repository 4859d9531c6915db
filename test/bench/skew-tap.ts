/**
 * What stands between the VMs of `skew` and the production switch: it sees every TCP segment at their NICs, and does with
 * frames what diapause does not do, as GENI-VIOLIN's switches did or a switch without any rules would:
 *
 * - early frames dropped: what a VM sends between its cut and that of the other never reaches the switch;
 * - in-flight frames left out: those of the image are read, as they must be, and not given to the restored VM.
 */
import { performance } from 'node:perf_hooks'
import type { NicPort, Switch } from '../../node/ports.ts'
import { takeAddresses } from '../../node/switch/addresses.ts'
import { NicLink, type OpenSocket } from '../../node/switch/link.ts'
import { type Seen, segmentOf } from './skew-analysis.ts'

export interface Policy {
  readonly early: 'dropped' | 'held'
  readonly inFlight: 'left out' | 'replayed'
}

/** What was done to frames: where all of it is 0, no policy was put to a test. */
export interface Handled {
  /** Frames. */
  readonly droppedEarly: number
  /** Of in-flight frames. */
  readonly leftOutBytes: number
  readonly replayedBytes: number
}

const NOTHING: Handled = { droppedEarly: 0, leftOutBytes: 0, replayedBytes: 0 }

/** The number of VM `vmN`, also where that begins the last part of a path. */
export function numberOf(name: string): number {
  const number = Number(/vm(\d+)[^/]*$/.exec(name)?.[1])
  if (!(number > 0)) throw new TypeError(`${name} is no name of a VM of this benchmark`)
  return number
}

export class SkewTap {
  policy: Policy = { early: 'held', inFlight: 'replayed' }
  #handled = NOTHING
  #seen: Seen[] = []
  /** Number of the VM → when its colour turned to the newest epoch. */
  #turnedMs = new Map<number, number>()
  #epoch = 0

  /** All since the last time, in the order in which it was seen. */
  take(): { readonly seen: Seen[]; readonly handled: Handled } {
    const taken = { seen: this.#seen, handled: this.#handled }
    this.#seen = []
    this.#handled = NOTHING
    return taken
  }

  /** Undefined: VM `vm` has not been cut to the newest epoch. */
  turnedMs(vm: number): number | undefined {
    return this.#turnedMs.get(vm)
  }

  readonly openLink: OpenSocket = async (path, clock, events) => {
    const vm = numberOf(path)
    const link = await NicLink.listen(path, clock, {
      ...events,
      packet: packet => {
        this.#note(vm, 'sent', packet)
        if (this.policy.early === 'dropped' && this.#ahead(vm)) this.#count('droppedEarly', 1)
        else events.packet(packet)
      }
    })
    return {
      write: (packets, bytes, ...rest) => {
        for (const packet of packets) this.#note(vm, 'given', packet)
        link.write(packets, bytes, ...rest)
      },
      recent: nowMs => link.recent(nowMs),
      stoodStill: (fromMs, toMs) => link.stoodStill(fromMs, toMs),
      drained: () => link.drained(),
      close: () => link.close()
    }
  }

  /** The switch as agents are to have it. Its markers reach nobody: they would cut the second VM at once. */
  around(network: Switch): Switch {
    return {
      setGroup: record => network.setGroup(record),
      removeGroup: id => network.removeGroup(id),
      attach: async options => this.#aroundPort(numberOf(options.vm), await network.attach(options)),
      onMarker: () => {},
      stats: () => network.stats()
    }
  }

  #aroundPort(vm: number, port: NicPort): NicPort {
    return {
      ends: port.ends,
      prepare: () => port.prepare(),
      hold: () => port.hold(),
      release: () => port.release(),
      drained: () => port.drained(),
      turn: async epoch => {
        const counts = await port.turn(epoch)
        if (epoch > this.#epoch) this.#turnedMs.clear()
        this.#epoch = epoch
        this.#turnedMs.set(vm, performance.now())
        return counts
      },
      talks: () => port.talks(),
      expect: (epoch, sender, sent) => port.expect(epoch, sender, sent),
      recorded: epoch => port.recorded(epoch),
      abandon: epoch => port.abandon(epoch),
      inject: pieces =>
        this.policy.inFlight === 'replayed' ? port.inject(this.#counted(pieces)) : this.#leaveOut(pieces),
      detach: () => port.detach()
    }
  }

  async *#counted(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      this.#count('replayedBytes', takeAddresses(piece).rest.length)
      yield piece
    }
  }

  async #leaveOut(pieces: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const piece of pieces) this.#count('leftOutBytes', takeAddresses(piece).rest.length)
  }

  #count(what: keyof Handled, more: number): void {
    this.#handled = { ...this.#handled, [what]: this.#handled[what] + more }
  }

  /** It has been cut, and the other has not. */
  #ahead(vm: number): boolean {
    return this.#turnedMs.size === 1 && this.#turnedMs.has(vm)
  }

  #note(vm: number, way: Seen['way'], packet: Uint8Array): void {
    const segment = segmentOf(packet)
    if (segment !== undefined) this.#seen.push({ ...segment, atMs: performance.now(), vm, way })
  }
}
