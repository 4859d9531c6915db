/**
 * QEMU's command line, as pure functions. Whatever stands here is part of the image format: a VM's stream only loads
 * into a QEMU with the same machine type, devices, CPU and RAM block names, so a change here makes old images unusable.
 */
import { DiapauseError, UsageError } from '../errors.ts'
import type { MachineDisks, NicEnd } from '../ports.ts'
import { disksOf, nicsOf, type VmSpec } from '../../protocols/group.ts'

export type Accel = 'kvm' | 'tcg'

/** sockaddr_un.sun_path has 108 bytes with its terminating zero (unix(7)). */
const SOCKET_PATH_LIMIT_BYTES = 107
/** IFNAMSIZ of the kernel, 16, without the terminating zero. */
const INTERFACE_NAME_LIMIT_BYTES = 15

/** Every QEMU from 7.2 on has this machine type, so that all of them can exchange images. */
const MACHINE_TYPE = 'pc-i440fx-7.2,dump-guest-core=off'

export interface MachinePaths {
  readonly qmp: string
  /** File to which the console is appended. */
  readonly consoleLog: string
  /** Socket to which QEMU connects the guest agent's channel, where the VM has one. */
  readonly agent?: string | undefined
}

/** Of the folder of a trial, in a peer's `runDir`. */
export const TRIAL_PREFIX = 'trial-'

/** What trial and machine have in common. `guest` is the name: the mark by which stale copies are found. */
export function commonArguments(accel: Accel, guest: string, machine = MACHINE_TYPE): string[] {
  return [
    ['-name', `guest=${escapeComma(guest)}`],
    ['-accel', accel, '-machine', machine, '-cpu', accel === 'kvm' ? 'host,migratable=on' : 'max'],
    ['-no-user-config', '-nodefaults', '-display', 'none']
  ].flat()
}

/** The descriptor as which QEMU inherits the file that is its RAM (process.ts). */
const RAM_FD = 3

/** RAM that is the file inherited as that descriptor. The block is called pc.ram as it is without, so that images fit both. */
export const SHARED_RAM_MACHINE = `${MACHINE_TYPE},memory-backend=pc.ram`
export const sharedRamArguments = (memoryMiB: number): string[] => [
  '-object',
  `memory-backend-file,id=pc.ram,size=${memoryMiB}M,mem-path=/proc/self/fd/${RAM_FD},share=on`
]

/** Arguments of a VM; `incoming` waits for a migration instead of booting. */
export function machineArguments(options: {
  readonly accel: Accel
  readonly guest: string
  readonly spec: VmSpec
  readonly ends: readonly NicEnd[]
  /** `diskArguments`. */
  readonly disks?: readonly string[]
  readonly paths: MachinePaths
  readonly incoming: boolean
  readonly sharedRam: boolean
}): string[] {
  const { spec, ends, paths, sharedRam } = options
  return [
    commonArguments(options.accel, options.guest, sharedRam ? SHARED_RAM_MACHINE : MACHINE_TYPE),
    sharedRam ? sharedRamArguments(spec.memoryMiB) : [],
    ['-m', `${spec.memoryMiB}M`, ...processors(spec)],
    // A guest that turns itself off leaves QEMU standing: see resets.ts.
    ['-no-shutdown', '-qmp', `unix:${escapeComma(paths.qmp)},server=off`],
    // Written to the file alone: standard output is nothing (`console.ts`).
    ['-chardev', `stdio,id=console,signal=off,logfile=${escapeComma(paths.consoleLog)},logappend=on`],
    ['-serial', 'chardev:console'],
    ...kernelArguments(spec),
    ...nicsOf(spec).map(({ mac }, index) => nicArguments(mac, index, ends[index] as NicEnd)),
    [...(options.disks ?? [])],
    // Behind all others: a PCI device takes the first free slot, and those of NICs and disks are in images of before.
    ...guestDevices(spec, paths),
    options.incoming ? ['-incoming', 'defer'] : []
  ].flat()
}

/** What QEMU opens for a VM, in folders that may be of others. */
export function filesOf(
  { kernel, initrd, ...spec }: VmSpec,
  { qmp, consoleLog }: MachinePaths,
  disks?: MachineDisks
): string[] {
  const bases = disksOf(spec).map(({ base }) => base?.path)
  return [kernel, initrd, ...bases, disks?.folder, qmp, consoleLog].filter(path => path !== undefined)
}

/** None: the BIOS boots what `diskArguments` says. QEMU reads them at its start, and loads them again at each reset of the guest. */
function kernelArguments({ kernel, initrd, append = '' }: VmSpec): string[][] {
  if (kernel === undefined) return []
  return [['-kernel', kernel], initrd === undefined ? [] : ['-initrd', initrd], ['-append', append]]
}

/** None for one: images of before there were several have none. Under TCG each has a thread of its own, as guest and host are alike. */
const processors = ({ cpus = 1 }: VmSpec): string[] => (cpus === 1 ? [] : ['-smp', `${cpus}`])

/** The name by which the agent finds its port in the guest. */
const AGENT_PORT = 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'

/**
 * What the guest is to notice of a restore. QEMU's clock of CMOS is the host's unless it is told to stand still with the VM.
 * `guid=auto` is another one for each QEMU; where it came with an image, QEMU writes it to the guest's memory and raises the
 * ACPI event before the first instruction (hw/acpi/vmgenid.c).
 */
const guestDevices = ({ clock, generationId, guestAgent }: VmSpec, paths: MachinePaths): string[][] => [
  clock === 'continue' ? ['-rtc', 'base=utc,clock=vm'] : [],
  generationId === true ? ['-device', 'vmgenid,guid=auto'] : [],
  guestAgent === undefined ? [] : ['-chardev', `socket,id=agent,path=${escapeComma(paths.agent ?? '')},server=off`],
  guestAgent === undefined ? [] : ['-device', 'virtio-serial-pci', '-device', AGENT_PORT]
]

const nicArguments = (mac: string, index: number, end: NicEnd): string[] => [
  '-netdev',
  netdev(`n${index}`, end),
  '-device',
  `virtio-net-pci,netdev=n${index},mac=${mac},romfile=`
]

/**
 * The features that the guest's NIC offers follow from its netdev's: a TAP device that could carry offloads (vnet_hdr) or
 * leave QEMU (vhost) would make another NIC of it than a stream does, and images of one would not load with the other.
 */
function netdev(id: string, end: NicEnd): string {
  if (end.kind === 'stream') return `stream,id=${id},server=off,addr.type=unix,addr.path=${escapeComma(end.path)}`
  return `tap,id=${id},ifname=${escapeComma(end.device)},script=no,downscript=no,vnet_hdr=off,vhost=off`
}

/** The name of a VM's QEMU: `diapause:PEER:VM`. */
export function guestName(peer: string, vm: string): string {
  return `diapause:${peer}:${vm}`
}

/** True where `argv` is a QEMU (or the setpriv that becomes one) that a run of `peer` started. */
export function isMachineOf(peer: string, argv: readonly string[]): boolean {
  const prefix = `guest=${escapeComma(guestName(peer, ''))}`
  return argv.some((argument, i) => argument.startsWith(prefix) && argv[i - 1] === '-name')
}

/** Throws UsageError HYPERVISOR_SOCKET_PATH where `path` is longer than a unix socket's may be. */
export function requireSocketPath(path: string, whatFor: string): void {
  const bytes = Buffer.byteLength(path)
  if (bytes <= SOCKET_PATH_LIMIT_BYTES) return
  throw new UsageError(
    'HYPERVISOR_SOCKET_PATH',
    `The path of ${whatFor} has ${bytes} bytes, but a unix socket's may have ${SOCKET_PATH_LIMIT_BYTES}: ` +
      `choose a shorter peer.runDir (${path})`,
    { details: { path, bytes, limitBytes: SOCKET_PATH_LIMIT_BYTES } }
  )
}

/** As `requireSocketPath`, of all of a VM's control sockets. */
export function requireSocketPaths(vm: string, { qmp, agent = '' }: MachinePaths): void {
  const sockets = { QMP: qmp, "guest agent's": agent }
  for (const [name, path] of Object.entries(sockets)) requireSocketPath(path, `the ${name} socket of VM ${vm}`)
}

/**
 * Throws HYPERVISOR_NICS where `ends` are not one for each NIC, or where a name is longer than any device's, and
 * HYPERVISOR_SOCKET_PATH.
 */
export function requireEnds(spec: VmSpec, ends: readonly NicEnd[]): void {
  const nics = nicsOf(spec).length
  const refuse = (why: string) =>
    new DiapauseError('HYPERVISOR_NICS', `VM ${spec.id}: ${why}. This is a mistake of the program`)
  if (ends.length !== nics) throw refuse(`it has ${nics} NICs, and ${ends.length} ends were given for them`)
  for (const end of ends) {
    if (end.kind === 'stream') requireSocketPath(end.path, `a NIC's socket of VM ${spec.id}`)
    // QEMU would cut the name off and make a device of what is left.
    else if (Buffer.byteLength(end.device) > INTERFACE_NAME_LIMIT_BYTES) {
      throw refuse(`its TAP device ${end.device} has a name of more than ${INTERFACE_NAME_LIMIT_BYTES} bytes`)
    }
  }
}

/** QEMU's option parser ends a value at a comma; a doubled one stands for itself. */
export function escapeComma(value: string): string {
  return value.replaceAll(',', ',,')
}
