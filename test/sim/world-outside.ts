/**
 * The outside of a simulated cluster: VMs of some groups tell it something now and then, and each peer has a way there, a
 * relay that is busy at times. It hears and never answers.
 */
import type { LinkEvents, VmLink } from '../../node/switch/link.ts'
import { frameId } from './world-bank.ts'
import type { Life } from './world-host.ts'

/** The receiver of what is told, in the world's book; and the path of a peer's way there. */
export const OUTSIDE = 'outside'
const ETHERTYPE_AT = 12
const TOLD = 0x88b5

export const outsideMacOf = (group: string, place: number): string =>
  `52:54:00:01:${group.charCodeAt(0).toString(16)}:${place.toString(16).padStart(2, '0')}`

/** A frame from `mac` to somebody outside; its id is not written yet. */
export function told(mac: string): Uint8Array {
  const frame = Buffer.alloc(60)
  frame.set([0x52, 0x54, 0, 2, 0, 0, ...Buffer.from(mac.replaceAll(':', ''), 'hex')])
  frame.writeUInt16BE(TOLD, ETHERTYPE_AT)
  return frame
}

/** The socket between a switch and its relay, in the place of `node/switch/link.ts`. */
export class OutsideLink implements VmLink {
  readonly #life: Life
  readonly #events: LinkEvents
  readonly #heard: (id: number) => void

  constructor(life: Life, events: LinkEvents, heard: (id: number) => void) {
    this.#life = life
    this.#events = events
    this.#heard = heard
    life.after(0.1, 'io', 'the relay connects', () => this.#serve())
  }

  write(packets: readonly Uint8Array[]): void {
    for (const packet of packets) {
      const frame = packet.subarray(4)
      const type = Buffer.from(frame).readUInt16BE(ETHERTYPE_AT)
      if (type === TOLD) this.#heard(frameId(frame)) // and no announcement of an address
    }
  }

  recent(): Uint8Array[] {
    return []
  }

  stoodStill(): void {}
  async drained(): Promise<void> {}
  async close(): Promise<void> {}

  #serve(): void {
    this.#events.writable(true)
    const { kernel } = this.#life.host
    this.#life.after(kernel.between(20, 800), 'io', 'the relay is busy', () => {
      this.#events.writable(false)
      this.#life.after(kernel.between(1, 60), 'io', 'the relay goes on', () => this.#serve())
    })
  }
}
