import type { PeerId } from '../../protocols/core.ts'
import type { FrameRecord } from '../../protocols/frames/records.ts'

/** A record that came before the group's record, or before the NIC of its VM. */
export interface Parked {
  readonly from: PeerId
  readonly group: string
  readonly generation: number
  readonly record: FrameRecord
}

/** A peer learns of a generation a round trip after another; this is what may come in between. Guesses. */
const MAX_FRAMES = 8192
const MAX_BYTES = 16 << 20
/** What a record costs beside its packet. */
const RECORD_BYTES = 200

/** Records that wait for `setGroup` or `attach`. Bounded: the oldest goes first. */
export class Parking {
  #records: Parked[] = []
  #bytes = 0

  /** The packet is copied. The result is how many old records had to go. */
  add(parked: Parked): number {
    const { packet } = parked.record
    const record = { ...parked.record, packet: packet === undefined ? undefined : new Uint8Array(packet) }
    this.#records.push({ ...parked, record })
    this.#bytes += RECORD_BYTES + (packet?.length ?? 0)
    let dropped = 0
    while (this.#records.length > MAX_FRAMES || this.#bytes > MAX_BYTES) {
      this.#bytes -= RECORD_BYTES + (this.#records.shift()?.record.packet?.length ?? 0)
      dropped++
    }
    return dropped
  }

  /** Takes out all records of `group`, in their order. */
  take(group: string): Parked[] {
    const taken = this.#records.filter(parked => parked.group === group)
    this.#records = this.#records.filter(parked => parked.group !== group)
    for (const { record } of taken) this.#bytes -= RECORD_BYTES + (record.packet?.length ?? 0)
    return taken
  }
}
