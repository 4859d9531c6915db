/**
 * The format of what a recorder writes (`cut-checker-recorder.ts`) and the checker reads: records of 20 bytes, numbers
 * little-endian. Pure.
 *
 *   0 kind:u8   1 cut:u8   2 port:u16   4 station:u16   6 zero:u16   8 value:u32   12 atMs:f64
 *
 * | kind | station | value |
 * |---|---|---|
 * | attach | bytes of JSON that follow, {vm, generation, colour} | 0 |
 * | out: the VM has sent a frame | to whom | crc32 of the frame |
 * | in: a frame was given to the VM | from whom | crc32 of the frame |
 * | turn: the VM's colour is another one now; cut 1: it was cut | 0 | the colour |
 * | taken: it stands still for a cut | 0 | frames that its NIC has put into its RAM since it booted, modulo 65,536 |
 *
 * A station is the number of a VM (`bankMac`), or EVERYBODY. Ports are numbered by each process from 0. Times are
 * CLOCK_MONOTONIC of the machine, the same for all its processes.
 */

export const RECORD_BYTES = 20
export const EVERYBODY = 0xffff
/** An address that no VM of the bank has. */
export const NOBODY = 0xfffe

export const KINDS = { attach: 1, out: 2, in: 3, turn: 4, taken: 5 } as const
export type Kind = keyof typeof KINDS

export interface Attachment {
  readonly vm: string
  readonly generation: number
  /** The epoch that it was restored from; 0: it has booted. */
  readonly colour: number
}

/** One VM in one generation: what came and went, in its order. The four lists are of one length. */
export interface PortLog extends Attachment {
  readonly attachedMs: number
  /** When its peer was killed; undefined: it was not. */
  readonly killedMs: number | undefined
  readonly kinds: readonly number[]
  readonly stations: readonly number[]
  readonly values: readonly number[]
  readonly timesMs: readonly number[]
  /** Colours that it took by a cut. */
  readonly cuts: ReadonlySet<number>
}

export function writeRecord(
  to: Buffer,
  at: number,
  record: { kind: Kind; port: number; station: number; value: number; atMs: number; cut?: boolean }
): void {
  to[at] = KINDS[record.kind]
  to[at + 1] = record.cut === true ? 1 : 0
  to.writeUInt16LE(record.port, at + 2)
  to.writeUInt32LE(record.station, at + 4)
  to.writeUInt32LE(record.value, at + 8)
  to.writeDoubleLE(record.atMs, at + 12)
}

type Growing = PortLog & {
  kinds: number[]
  stations: number[]
  values: number[]
  timesMs: number[]
  cuts: Set<number>
}

/**
 * The ports of one process, which was killed at `killedMs`, if it was. A record that is cut off at the end was never
 * written; TypeError for any other nonsense.
 */
export function readLog(bytes: Buffer, killedMs?: number): PortLog[] {
  const ports: Growing[] = []
  for (let at = 0; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES) {
    const kind = bytes[at] as number
    const station = bytes.readUInt16LE(at + 4)
    const value = bytes.readUInt32LE(at + 8)
    const atMs = bytes.readDoubleLE(at + 12)
    if (kind === KINDS.attach) {
      const from = at + RECORD_BYTES
      if (from + station > bytes.length) break
      const about = JSON.parse(bytes.toString('utf8', from, from + station)) as Attachment
      const lists = { kinds: [], stations: [], values: [], timesMs: [], cuts: new Set<number>() }
      ports.push({ ...about, attachedMs: atMs, killedMs, ...lists })
      at += station
      continue
    }
    const port = ports[bytes.readUInt16LE(at + 2)]
    if (port === undefined || kind > KINDS.taken) throw new TypeError(`no record of frames at byte ${at}`)
    port.kinds.push(kind)
    port.stations.push(station)
    port.values.push(value)
    port.timesMs.push(atMs)
    if (kind === KINDS.turn && bytes[at + 1] === 1) port.cuts.add(value)
  }
  return ports
}

/** Whose address stands in a frame at `offset`: 0 the receiver's, 6 the sender's. As `bankMac` gives addresses. */
export function stationAt(frame: Uint8Array, offset: number): number {
  if (((frame[offset] as number) & 1) === 1) return EVERYBODY
  const ours = BANK.every((byte, i) => frame[offset + i] === byte)
  return ours ? ((frame[offset + 4] as number) << 8) | (frame[offset + 5] as number) : NOBODY
}

const BANK = [0x52, 0x54, 0x00, 0xd1]
