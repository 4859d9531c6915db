/** The devices of a domain of libvirt's: what a VM here has of them, in another way, or not at all. Pure. */
import { type Findings, type FoundDisk, type FoundNic, WHY } from './findings.ts'
import { attributeOf, childOf, childrenOf, type Element } from './xml.ts'

export interface FoundDevices {
  readonly disks: readonly FoundDisk[]
  readonly nics: readonly FoundNic[]
  readonly guestAgent: boolean
}

export function devicesOf(root: Element, findings: Findings): FoundDevices {
  const devices = childOf(root, 'devices')
  const disks = childrenOf(devices, 'disk').filter(disk => isDisk(disk, findings))
  const order = bootOrder(root, disks, findings)
  const nics = childrenOf(devices, 'interface').flatMap((nic, index) => nicOf(nic, index, findings))
  for (const element of devices?.children ?? []) other(element, findings)
  furtherPorts(devices, findings)
  return {
    disks: order.map(disk => diskOf(disk, findings)),
    nics,
    guestAgent: childrenOf(devices, 'channel').some(isAgent)
  }
}

const nameOf = (disk: Element): string => attributeOf(childOf(disk, 'target'), 'dev') ?? 'disk'

/** What the guest may eject is none, and neither is what it talks SCSI with. */
function isDisk(element: Element, findings: Findings): boolean {
  const kind = attributeOf(element, 'device') ?? 'disk'
  const said = `${kind} ${nameOf(element)}`
  if (kind === 'cdrom' || kind === 'floppy') {
    if (childOf(element, 'source') !== undefined) findings.leave(said, WHY.cdrom)
    return false
  }
  if (kind === 'lun') findings.refuse(said, WHY.passthrough)
  return true
}

/** That from which it boots first. */
function bootOrder(root: Element, disks: readonly Element[], findings: Findings): Element[] {
  const orderOf = (element: Element): number => {
    const order = Number(attributeOf(childOf(element, 'boot'), 'order') ?? Number.NaN)
    return order >= 1 ? order : Number.POSITIVE_INFINITY
  }
  const sorted = disks.toSorted((a, b) => (orderOf(a) === orderOf(b) ? 0 : orderOf(a) - orderOf(b)))
  const [first] = sorted
  if (first !== undefined && first !== disks[0]) {
    findings.change(`disk ${nameOf(first)}`, 'it boots from it, so it is its first disk, /dev/vda, here')
  }
  const os = childOf(root, 'os')
  const listed = attributeOf(childOf(os, 'boot'), 'dev')
  const ordered = childOf(root, 'devices')?.children.toSorted((a, b) => orderOf(a) - orderOf(b))[0]
  const byOrder = ordered !== undefined && orderOf(ordered) < Number.POSITIVE_INFINITY ? ordered : undefined
  const from = byOrder === undefined ? (listed ?? 'hd') : disks.includes(byOrder) ? 'hd' : byOrder.name
  if (from !== 'hd' && childOf(os, 'kernel') === undefined) {
    findings.change(`boots from ${from}`, 'it boots from its first disk here')
  }
  return sorted
}

function diskOf(element: Element, findings: Findings): FoundDisk {
  const name = nameOf(element)
  const driver = attributeOf(childOf(element, 'driver'), 'type')
  const source = childOf(element, 'source')
  const path = attributeOf(source, 'file')
  const bus = attributeOf(childOf(element, 'target'), 'bus') ?? 'ide'
  if (bus !== 'virtio') findings.change(`disk ${name} on ${bus}`, WHY.virtio)
  if (childOf(element, 'readonly') !== undefined) findings.change(`disk ${name}`, 'the guest may write to it here')
  if (childOf(element, 'transient') !== undefined) findings.change(`disk ${name}`, 'what the guest writes stays here')
  if (childOf(element, 'iotune') !== undefined) findings.leave(`<iotune> of disk ${name}`, WHY.limits)
  if (childOf(element, 'serial') !== undefined || childOf(element, 'wwn') !== undefined) {
    findings.leave(`serial number of disk ${name}`, 'the guest finds its disks as /dev/vda, /dev/vdb, … only')
  }
  if (childOf(element, 'shareable') !== undefined) {
    findings.refuse(`disk ${name}`, 'it is shared with other VMs, and a disk here is of one VM')
  }
  if (childOf(element, 'encryption') !== undefined || childOf(source, 'encryption') !== undefined) {
    findings.refuse(`disk ${name}`, 'the host encrypts it: have the guest do it, in a copy (qemu-img convert)')
  }
  if (childOf(source, 'slices') !== undefined) findings.refuse(`disk ${name}`, WHY.slice)
  unknownParts(element, DISK_PARTS, `disk ${name}`, findings)
  const format = driver === 'raw' || driver === 'qcow2' ? driver : undefined
  return { name, path, where: placeOf(element), format, cannot: whyNoFile(element, path, driver) }
}

/** Of which is said what there is to say, or nothing, because no VM here misses it. */
const DISK_PARTS = new Set(
  'address alias auth backingStore boot driver encryption geometry iotune mirror readonly serial shareable source target transient wwn'.split(
    ' '
  )
)
const NIC_PARTS = new Set(
  'acpi address alias backend bandwidth boot coalesce driver filterref guest link mac model mtu rom script source target teaming tune virtualport vlan'.split(
    ' '
  )
)

function unknownParts(element: Element, known: ReadonlySet<string>, of: string, findings: Findings): void {
  for (const { name } of element.children) if (!known.has(name)) findings.leave(`<${name}> of ${of}`, WHY.unknown)
}

function whyNoFile(element: Element, path: string | undefined, driver: string | undefined): string | undefined {
  const type = attributeOf(element, 'type') ?? 'file'
  if (type === 'block' || path?.startsWith('/dev/')) return WHY.device
  if (type !== 'file' || path === undefined) return WHY.noFile
  return driver === undefined || driver === 'raw' || driver === 'qcow2' ? undefined : WHY.format
}

/** Where it is, for people. */
function placeOf(element: Element): string | undefined {
  const source = childOf(element, 'source')
  const keys = ['file', 'dev', 'protocol', 'name', 'pool', 'volume', 'dir']
  const words = keys.flatMap(key => attributeOf(source, key) ?? [])
  return words.length === 0 ? undefined : words.join(' ')
}

/** Types whose frames reach others than VMs of this VM's host. */
const OUTSIDE = new Set(['bridge', 'network', 'user', 'direct', 'ethernet'])

function nicOf(element: Element, index: number, findings: Findings): FoundNic[] {
  const type = attributeOf(element, 'type') ?? 'network'
  const name = `NIC ${index + 1}`
  const source = childOf(element, 'source')
  if (type === 'hostdev' || type === 'vdpa') {
    findings.refuse(`${name} of type '${type}'`, WHY.passthrough)
    return []
  }
  unknownParts(element, NIC_PARTS, name, findings)
  const model = attributeOf(childOf(element, 'model'), 'type')
  if (model !== undefined && !model.startsWith('virtio')) findings.change(`${name}, ${model}`, WHY.virtio)
  if (childOf(element, 'vlan') !== undefined) findings.leave(`<vlan> of ${name}`, WHY.vlan)
  if (childOf(element, 'bandwidth') !== undefined) findings.leave(`<bandwidth> of ${name}`, WHY.limits)
  if (childOf(element, 'filterref') !== undefined) findings.leave(`<filterref> of ${name}`, WHY.firewall)
  if (childOf(element, 'mtu') !== undefined) findings.leave(`<mtu> of ${name}`, 'set it in the guest')
  if (attributeOf(childOf(element, 'link'), 'state') === 'down') findings.change(name, 'its cable is plugged in here')
  const named = ['bridge', 'network', 'dev', 'path', 'address'].flatMap(key => attributeOf(source, key) ?? [])
  const mac = attributeOf(childOf(element, 'mac'), 'address')
  return [{ name, mac, on: named[0] ?? type, outside: OUTSIDE.has(type) }]
}

/** Devices of which every VM has what it needs, or that are read elsewhere. */
const QUIET = new Set('emulator disk interface controller input hub memballoon nvram serial console channel'.split(' '))

const LEFT: Readonly<Record<string, string>> = {
  graphics: WHY.screen,
  video: WHY.screen,
  sound: 'there is no sound here',
  audio: 'there is no sound here',
  redirdev: 'USB is not redirected here',
  redirfilter: 'USB is not redirected here',
  smartcard: WHY.hostOnly,
  parallel: 'there are no parallel ports here',
  watchdog: 'nothing here reboots a guest that hangs; see "objective" of a definition',
  rng: 'the guest gathers randomness itself',
  panic: 'nobody is told of a panic: have the guest reboot itself (panic=10)',
  shmem: 'memory that is shared with others is of one host',
  filesystem: 'a folder of a host is no part of a VM: put what is in it on a disk',
  lease: WHY.hostOnly,
  iommu: 'there is nothing to be passed through',
  memory: 'all memory is in one piece here',
  vsock: 'a guest is spoken to by network, console or agent',
  pstore: WHY.hostOnly,
  crypto: WHY.hostOnly
}

function other(element: Element, findings: Findings): void {
  const { name } = element
  const type = attributeOf(element, 'type')
  const said = `<${name}${type === undefined ? '' : ` type='${type}'`}>`
  if (QUIET.has(name)) return
  if (name === 'hostdev')
    findings.refuse(`<hostdev type='${type ?? attributeOf(element, 'mode') ?? ''}'>`, WHY.passthrough)
  else if (name === 'tpm') findings.refuse(said, WHY.tpm)
  else findings.leave(said, LEFT[name] ?? WHY.unknown)
}

const isAgent = (channel: Element): boolean =>
  attributeOf(childOf(channel, 'target'), 'name') === 'org.qemu.guest_agent.0'

/** One serial port there is. */
function furtherPorts(devices: Element | undefined, findings: Findings): void {
  const why = 'there is one serial port, which every host writes to a file, and which "vm console" speaks with'
  for (const port of childrenOf(devices, 'serial').slice(1)) {
    findings.leave(`<serial type='${attributeOf(port, 'type') ?? ''}'>, a further one`, why)
  }
  for (const console of childrenOf(devices, 'console')) {
    const type = attributeOf(childOf(console, 'target'), 'type') ?? 'serial'
    if (type !== 'serial') findings.leave(`<console> of type ${type}`, why)
  }
  for (const channel of childrenOf(devices, 'channel').filter(each => !isAgent(each))) {
    const target = childOf(channel, 'target')
    const name = attributeOf(target, 'name') ?? attributeOf(target, 'type') ?? ''
    findings.leave(`<channel> ${name}`, 'there is no other channel than that of the QEMU guest agent')
  }
}
