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
import { messageOf } from '../errors.ts'
import { SECTION } from './migration-format.ts'

const FOOTER_BYTES = 5
const VMDESC_HEADER_BYTES = 6

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

/** Of the devices. There is no zero in JSON: from the end, the first place that fits is the only one. */
function endOf(all: Buffer): number | undefined {
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
function sectionOf(devices: Buffer, { name, instance }: Named, from: number): number | undefined {
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
