/**
 * The outside, as this peer reaches it: one more socket, with a relay at its other end (`hypervisor/uplink-relay.ts`).
 * VMs with a NIC on network `uplink` reach it from whichever host they run on.
 *
 * Its frames are outside of every cut: without number and colour, and in no image, also those that wait for the VM at its
 * cut. Whoever said them is not rolled back with the group, and says them again where they matter (TCP); out of an image
 * they would come after a restore as words of long ago. What a VM was told from there, and what it told, is not taken back
 * when its group is rolled back. What it tells comes here late where the group has output commit (`output.ts`). They are
 * fenced as all others.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Clock, Log } from '../ports.ts'
import type { Counters } from './counters.ts'
import { destinationMac, isMulticast, sourceMac } from './ethernet.ts'
import type { OpenLink, VmLink } from './link.ts'
import { Network, type Station } from './network.ts'

/** The group that a frame to the outside comes from. */
export interface Speaker {
  readonly retired: boolean
  mayAct(): boolean
  /** Gives on what it has kept, where it has. */
  flush(): void
}

export interface UplinkHost {
  readonly self: PeerId
  readonly clock: Clock
  readonly log: Log
  readonly counters: Counters
  readonly openLink: OpenLink
  schedule(part: { flush(): void }): void
  /** A frame for a VM of ours. */
  takeForeign(to: Station, packet: Uint8Array): void
}

/** Of one group, while its lease has run out or the relay is busy: the ring of a network card. */
const HELD_FRAMES = 1024
/** A relay that has taken nothing for so long is not there. As for a VM's NIC, a guess. */
const ABSENT_MS = 1_000

export class Uplink {
  /** VMs of all groups and peers that have a NIC on it. */
  readonly network = new Network()
  readonly #host: UplinkHost
  #link: VmLink | undefined
  #writable = false
  #absent = true
  #cancelAbsent: () => void = () => {}
  readonly #waiting = new Map<Speaker, Uint8Array[]>()
  /** They have kept frames that the relay was too slow for. */
  readonly #toldToWait = new Set<Speaker>()

  constructor(host: UplinkHost) {
    this.#host = host
  }

  /** The relay may connect to `path` when it resolves. */
  async listen(path: string): Promise<void> {
    const { clock, log, openLink, counters } = this.#host
    this.#link = await openLink(path, clock, {
      packet: packet => this.#fromOutside(packet),
      writable: writable => this.#setWritable(writable),
      broken: error => {
        counters.linksBroken++
        log.error({ error }, 'the connection to the relay of the uplink was closed')
      }
    })
  }

  async close(): Promise<void> {
    await this.#link?.close()
    this.#link = undefined
    this.#cancelAbsent()
    this.#absent = true
    this.#waiting.clear()
  }

  /** Whether a frame that was kept may be given to `forward` now. Where not, `flush` of the speaker is called when it may. */
  takes(speaker: Speaker): boolean {
    if (this.#absent || (this.#writable && (this.#waiting.get(speaker)?.length ?? 0) < HELD_FRAMES)) return true
    this.#toldToWait.add(speaker)
    return false
  }

  /** A frame of a VM of ours: to others of ours that it is for, and to the outside unless it is for one of them alone. */
  forward(speaker: Speaker, from: Station, packet: Uint8Array): void {
    const toAll = isMulticast(packet)
    const to = toAll ? undefined : this.network.find(destinationMac(packet), this.#host.clock.now())
    if (toAll) this.#toLocal(speaker, packet, station => station !== from)
    else if (to?.owner === this.#host.self) return this.#toLocal(speaker, packet, station => station === to)
    this.#toOutside(speaker, packet)
  }

  flush(): void {
    for (const [speaker, packets] of this.#waiting) {
      const { counters } = this.#host
      if (speaker.retired) counters.droppedFenced += packets.length
      else if (!speaker.mayAct())
        continue // its group is scheduled again when it may
      else if (!this.#writable && !this.#absent)
        continue // until the relay takes more
      else if (this.#writable) {
        const bytes = packets.reduce((sum, { length }) => sum + length, 0)
        this.#link?.write(packets, bytes)
        counters.uplinkOut += packets.length
      } else counters.droppedUplink += packets.length
      this.#waiting.delete(speaker)
    }
    if (this.#writable || this.#absent) this.#wake()
  }

  #setWritable(writable: boolean): void {
    this.#cancelAbsent()
    this.#writable = writable
    if (writable) this.#absent = false
    else if (!this.#absent) {
      this.#cancelAbsent = this.#host.clock.after(ABSENT_MS, () => {
        this.#absent = true
        this.#host.schedule(this)
      })
    }
    this.#host.schedule(this)
  }

  #wake(): void {
    for (const speaker of this.#toldToWait) this.#host.schedule(speaker)
    this.#toldToWait.clear()
  }

  #toLocal(speaker: Speaker, packet: Uint8Array, isFor: (station: Station) => boolean): void {
    const { self, counters } = this.#host
    for (const station of this.network.stations) {
      if (station.owner !== self || !isFor(station)) continue
      if (speaker.mayAct()) this.#host.takeForeign(station, packet)
      else counters.droppedFenced++
    }
  }

  #toOutside(speaker: Speaker, packet: Uint8Array): void {
    const waiting = this.#waiting.get(speaker) ?? []
    if (waiting.length >= HELD_FRAMES) {
      this.#host.counters.droppedUplink++
      return
    }
    // A copy: what comes to a NIC is not ours beyond this turn of the event loop.
    waiting.push(new Uint8Array(packet))
    this.#waiting.set(speaker, waiting)
    this.#host.schedule(this)
  }

  #fromOutside(packet: Uint8Array): void {
    const { self, clock, counters } = this.#host
    const nowMs = clock.now()
    // One of ours that comes back: the bridge has a loop.
    if (this.network.find(sourceMac(packet), nowMs)?.owner === self) return
    const to = isMulticast(packet) ? undefined : this.network.find(destinationMac(packet), nowMs)
    if (to === undefined && !isMulticast(packet)) return // a bridge tells all what it does not know
    for (const station of to === undefined ? this.network.stations : [to]) {
      if (station.owner !== self) continue
      counters.uplinkIn++
      this.#host.takeForeign(station, packet)
    }
  }
}
