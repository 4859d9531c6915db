/**
 * VMs' TAP devices, as ports of the bridge. Made when a VM is attached and removed when it is detached; what an earlier run
 * of this peer left behind goes at its start. Their names begin with a hash of the peer, by which it knows its own, and
 * have a number behind that, new for each: neither a port of a VM that is being ended nor its number at the bridge is ever
 * taken for that of the VM's next generation. Whose a device is, people read from the bridge's database:
 *
 *     ovs-vsctl --columns=name,external_ids list Interface
 *
 * The userspace datapath reads a copy of what comes from a device, and the host's own network stack gets it, too (Open
 * vSwitch's userspace.rst, "Firewall Rules"): a VM could speak with its host, and by it with others. So the host is told to
 * believe no sender on these devices (rp_filter: they have no route) and to speak no IPv6 there.
 */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { DiapauseError, hasCode, messageOf } from '../../errors.ts'
import { ip, tapDevices, vsctl } from './commands.ts'

export interface Tap {
  /** For the hypervisor: `NicEnd`. The bridge's port has the same name. */
  readonly device: string
  /** The kernel's number of it: `OpenFlowBridge.attach`. */
  readonly interfaceIndex: number
}

export interface TapOptions {
  /** This peer's id. */
  readonly peer: string
  readonly bridge: string
  /** As `ovs-vsctl --db` says. */
  readonly database: string
  /** The largest that a guest may use: longer packets are lost. */
  readonly mtuBytes: number
}

export class Taps {
  readonly #options: TapOptions
  readonly #prefix: string
  #made = 0

  private constructor(options: TapOptions) {
    this.#options = options
    // 40 bits are 8 digits; 5 are left for the number, of the 15 bytes that a device's name may have.
    const hash = createHash('sha256').update(options.peer).digest().readUIntBE(0, 5)
    this.#prefix = `dp${hash.toString(36).padStart(8, '0')}`
  }

  /** Removes what an earlier run of this peer has left, whose VMs must be gone. Errors as `run` in `commands.ts`. */
  static async open(options: TapOptions): Promise<Taps> {
    const taps = new Taps(options)
    const ports = await vsctl(options.database, ['--bare', '--columns=name', 'list', 'Port'], 'no wait')
    const names = new Set([...(await tapDevices()).keys(), ...ports.split('\n')])
    await taps.remove([...names].filter(name => name.startsWith(taps.#prefix)))
    return taps
  }

  /**
   * As many as `nics` says; nothing is there where it rejects. Open vSwitch has the ports when it resolves. Errors as
   * `run` in `commands.ts`, and OPENFLOW_TAP.
   */
  async make(owner: { readonly group: string; readonly vm: string; readonly nics: number }): Promise<Tap[]> {
    const { bridge, database, mtuBytes } = this.#options
    const devices = Array.from({ length: owner.nics }, () => `${this.#prefix}${(this.#made++).toString(36)}`)
    // Owned by the user as whom QEMU runs, or any user of the host might open them.
    const user = process.getuid?.() ?? 0
    try {
      await ip(devices.map(device => `tuntap add dev ${device} mode tap user ${user}`))
      await Promise.all(devices.map(hideHost)) // before it is up, when the kernel would greet its neighbours there
      await ip(devices.map(device => `link set dev ${device} mtu ${mtuBytes} up`))
      const ports = devices.flatMap(device => addPort(bridge, device, `${owner.group}/${owner.vm}`))
      await vsctl(database, ports.slice(1), 'wait')
      const numbers = await tapDevices()
      return devices.map(device => ({ device, interfaceIndex: numbered(numbers, device) }))
    } catch (error) {
      await this.remove(devices).catch(() => {}) // the reason why is told
      throw error
    }
  }

  /** Port and device; those that are gone do not matter. Errors as `run` in `commands.ts`. */
  async remove(devices: readonly string[]): Promise<void> {
    if (devices.length === 0) return
    const ports = devices.flatMap(device => ['--', '--if-exists', 'del-port', device])
    // The device also goes where Open vSwitch does not answer: then nothing passes any more.
    const [removed, ended] = await Promise.allSettled([
      vsctl(this.#options.database, ports.slice(1), 'no wait'),
      removeDevices(devices)
    ])
    for (const result of [removed, ended]) if (result.status === 'rejected') throw result.reason
  }
}

const addPort = (bridge: string, device: string, owner: string): string[] => [
  '--',
  '--may-exist',
  'add-port',
  bridge,
  device,
  '--',
  'set',
  'Interface',
  device,
  `external_ids:diapause=${JSON.stringify(owner)}`
]

async function removeDevices(devices: readonly string[]): Promise<void> {
  const present = await tapDevices()
  const there = devices.filter(device => present.has(device))
  if (there.length > 0) await ip(there.map(device => `link del dev ${device}`))
}

async function hideHost(device: string): Promise<void> {
  await setting(`/proc/sys/net/ipv4/conf/${device}/rp_filter`)
  await setting(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`).catch((error: unknown) => {
    if (!hasCode((error as Error).cause, 'ENOENT')) throw error // else the kernel has no IPv6
  })
}

async function setting(path: string): Promise<void> {
  await writeFile(path, '1').catch((cause: unknown) => {
    throw new DiapauseError(
      'OPENFLOW_TAP',
      `a VM's TAP device is not kept apart from this host: ${messageOf(cause)}. In a container /proc/sys must be writable`,
      { cause }
    )
  })
}

function numbered(numbers: ReadonlyMap<string, number>, device: string): number {
  const number = numbers.get(device)
  if (number !== undefined) return number
  throw new DiapauseError(
    'OPENFLOW_TAP',
    `the TAP device ${device} has gone: does something else on this host remove it?`
  )
}
