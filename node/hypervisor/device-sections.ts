/**
 * The end of a migration stream: sections of devices, EOF, and a section with the description of them all (vmdesc), JSON.
 *
 *     for each device: FULL, u32 id, u8 length and name, u32 instance, u32 version | its state | footer, u32 id
 *     EOF | VMDESC, u32 length, {"page_size": …, "devices": [{"name": …, "instance_id": …, …}, …]}
 *
 * What a device's state is, is QEMU's business, and it has no length. But the description names every section in its
 * order, so that one that is missing or damaged is noticed. Where sections begin is looked for and not known: state that a
 * guest made to look like the begin of a section is found in the place of a real one, and does no harm, since those
 * behind it are still found behind it. Pure.
 */
import { DiapauseError, messageOf } from '../errors.ts'
import { PAGE_BYTES, SECTION } from './migration-format.ts'

const FOOTER_BYTES = 5
/** Type, id, length of the name, instance, version; without the name. */
const SECTION_HEADER_BYTES = 14
export const VMDESC_HEADER_BYTES = 6

interface Named {
  readonly name: string
  readonly instance: number
}

/**
 * How many of `bytes`, from the first device to the end of the stream, are devices; or what is wrong, and where. Undefined: it
 * has no end.
 */
export function readDevices(
  bytes: Uint8Array
): { readonly length: number } | { readonly problem: string; readonly at: number } | undefined {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const end = endOf(all)
  if (end === undefined) return undefined
  const described = description(all.subarray(end + VMDESC_HEADER_BYTES))
  if (typeof described === 'string') return { problem: described, at: end }
  const devices = all.subarray(0, end)
  let at = 0
  for (const [index, { name, instance }] of described.entries()) {
    const begin = sectionOf(devices, { name, instance }, at)
    if (begin === undefined || (index === 0 && begin > 0)) {
      return { problem: `no section of device ${JSON.stringify(name)} ${instance} here or behind it`, at }
    }
    at = begin + 1
  }
  if (devices[end - FOOTER_BYTES] !== SECTION.footer) return { problem: 'the last device has no footer', at: end }
  return { length: end }
}

/**
 * The description of devices that came without one: the names of their sections. Where one ends is not known: it is taken
 * for the first footer of its own behind which another section begins. A guest's state may look like that: then the
 * description names a section too many, or ends early, which does no harm: QEMU does not ask for it, and each section that it
 * names is found where it was found here. MIGRATION_STREAM_INVALID where they begin with no section.
 */
export function describeDevices(devices: Uint8Array): { readonly page_size: number; readonly devices: object[] } {
  const all = Buffer.from(devices.buffer, devices.byteOffset, devices.length)
  const described: object[] = []
  let at: number | undefined = 0
  for (let section = sectionAt(all, 0); section !== undefined && at !== undefined; ) {
    described.push({ name: section.name, instance_id: section.instance })
    at = endOfSection(all, at, section.length)
    section = at === undefined ? undefined : sectionAt(all, at)
  }
  if (described.length > 0) return { page_size: PAGE_BYTES, devices: described }
  throw new DiapauseError('MIGRATION_STREAM_INVALID', "device state does not begin as a section of QEMU's")
}

/** State of the section that says whether the VM ran when it was saved: u32 length of the word, the word in a field of 100 bytes. */
const RUN_STATE = { name: 'globalstate', instance: 0, wordBytes: 100 }

/**
 * The devices of a VM that runs as soon as it is loaded: a cut stops it, so they may say that it stood still, and a QEMU that
 * loads them from a file (post-copy does not ask) would wait for somebody to type `cont`.
 */
export const runningDevices = (devices: Uint8Array): Uint8Array => withRunState(devices, 'running')

/** The devices of a VM that stands still when it is loaded, and waits for `cont`. */
export const pausedDevices = (devices: Uint8Array): Uint8Array => withRunState(devices, 'paused')

function withRunState(devices: Uint8Array, state: 'running' | 'paused'): Uint8Array {
  const out = Buffer.from(devices)
  const stateBytes = 4 + RUN_STATE.wordBytes
  for (let at = sectionOf(out, RUN_STATE, 0); at !== undefined; at = sectionOf(out, RUN_STATE, at + 1)) {
    const begin = at + (sectionAt(out, at)?.length ?? 0)
    const end = begin + stateBytes
    const fits = out[end] === SECTION.footer && out.subarray(end + 1, end + 5).equals(out.subarray(at + 1, at + 5))
    if (!fits) continue
    const word = `${state}\0`
    out.writeUInt32BE(word.length, begin)
    out.fill(0, begin + 4, end).write(word, begin + 4)
  }
  return out
}

/** What its header says, and the header's length. */
export function sectionAt(all: Buffer, at: number): (Named & { readonly length: number }) | undefined {
  if (all[at] !== SECTION.full || all.length - at < SECTION_HEADER_BYTES) return undefined
  const nameLength = all.readUInt8(at + 5)
  const length = SECTION_HEADER_BYTES + nameLength
  const name = all.toString('latin1', at + 6, at + 6 + nameLength)
  if (all.length - at < length || !/^[!-~ ]+$/.test(name)) return undefined
  return { name, instance: all.readUInt32BE(at + 6 + nameLength), length }
}

/** Undefined: no other begins behind it. */
function endOfSection(all: Buffer, begin: number, headerLength: number): number | undefined {
  const footer = Buffer.concat([Buffer.of(SECTION.footer), all.subarray(begin + 1, begin + 5)])
  for (let at = all.indexOf(footer, begin + headerLength); at >= 0; at = all.indexOf(footer, at + 1)) {
    if (sectionAt(all, at + FOOTER_BYTES) !== undefined) return at + FOOTER_BYTES
  }
  return undefined
}

/** Of the devices. There is no zero in JSON: from the end, the first place that fits is the only one. */
export function endOf(all: Buffer): number | undefined {
  for (let at = all.length - VMDESC_HEADER_BYTES; at > 0; at--) {
    const fits = all[at] === SECTION.eof && all[at + 1] === SECTION.vmdesc
    if (fits && all.readUInt32BE(at + 2) === all.length - at - VMDESC_HEADER_BYTES) return at
  }
  return undefined
}

/** What the description names, or what is wrong with it. */
function description(json: Buffer): readonly Named[] | string {
  let value: unknown
  try {
    value = JSON.parse(json.toString())
  } catch (error) {
    return `its description of the devices is no JSON: ${messageOf(error)}`
  }
  const devices = (value as { devices?: unknown } | null)?.devices
  if (!Array.isArray(devices) || devices.length === 0) return 'its description names no devices'
  const named: Named[] = []
  for (const device of devices as readonly unknown[]) {
    const { name, instance_id: instance } = (device ?? {}) as { name?: unknown; instance_id?: unknown }
    const fits = typeof name === 'string' && Buffer.byteLength(name) <= 255
    if (!fits || typeof instance !== 'number' || !(instance >= -(2 ** 31) && instance < 2 ** 32)) {
      return 'its description names a device that is none'
    }
    named.push({ name, instance: instance >>> 0 })
  }
  return named
}

/** Where the next section of a device begins, at or behind `from`. */
export function sectionOf(devices: Buffer, { name, instance }: Named, from: number): number | undefined {
  const text = Buffer.from(name)
  const header = Buffer.alloc(1 + text.length + 4)
  header.writeUInt8(text.length)
  text.copy(header, 1)
  header.writeUInt32BE(instance, 1 + text.length)
  for (let at = devices.indexOf(header, from + 5); at >= 0; at = devices.indexOf(header, at + 1)) {
    if (devices[at - 5] === SECTION.full) return at - 5
  }
  return undefined
}
