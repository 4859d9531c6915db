/** A domain of libvirt's (`virsh dumpxml --inactive`), as far as a VM here can be one. Formats: libvirt.org/formatdomain.html. Pure. */
import { UsageError } from '../../errors.ts'
import { type Draft, Findings, WHY } from './findings.ts'
import { devicesOf } from './libvirt-devices.ts'
import { attributeOf, childOf, type Element, parseXml } from './xml.ts'

/** UsageErrors ADOPT_XML, ADOPT_NO_DOMAIN. */
export function readLibvirt(text: string): Draft {
  const root = parseXml(text)
  if (root.name !== 'domain') {
    throw new UsageError(
      'ADOPT_NO_DOMAIN',
      `<${root.name.slice(0, 40)}> is no VM of libvirt's: take what "virsh dumpxml --inactive NAME" prints, which begins with <domain>`
    )
  }
  const findings = new Findings()
  const os = childOf(root, 'os')
  const kernel = childOf(os, 'kernel')?.text || undefined
  requireMachine(root, os, kernel !== undefined, findings)
  for (const element of root.children) topLevel(element, findings)
  const { disks, nics, guestAgent } = devicesOf(root, findings)
  return {
    name: childOf(root, 'name')?.text ?? '',
    memoryMiB: memoryOf(root, findings),
    cpus: cpusOf(childOf(root, 'vcpu'), findings),
    disks,
    nics,
    ...(kernel !== undefined && {
      kernel,
      initrd: childOf(os, 'initrd')?.text || undefined,
      append: childOf(os, 'cmdline')?.text
    }),
    generationId: childOf(root, 'genid') !== undefined,
    guestAgent,
    findings
  }
}

function requireMachine(root: Element, os: Element | undefined, hasKernel: boolean, findings: Findings): void {
  const kind = attributeOf(root, 'type') ?? 'none'
  if (kind !== 'kvm' && kind !== 'qemu') {
    findings.refuse(`type='${kind}'`, 'only VMs of QEMU (type kvm or qemu) are understood')
  }
  const type = childOf(os, 'type')
  if (type !== undefined && type.text !== 'hvm') {
    findings.refuse(`<type>${type.text}`, 'it is no whole machine (hvm)')
  }
  const architecture = attributeOf(type, 'arch') ?? 'x86_64'
  if (architecture === 'i686') findings.change(`arch ${architecture}`, 'the processor knows 64 bits, too, here')
  else if (architecture !== 'x86_64') findings.refuse(`arch ${architecture}`, WHY.architecture)
  const machine = attributeOf(type, 'machine') ?? ''
  if (/q35/.test(machine)) findings.change(`machine ${machine}`, WHY.machine)
  else if (machine !== '' && !/^pc(-i440fx-7\.2|$)/.test(machine)) {
    findings.change(`machine ${machine}`, 'the machine is pc-i440fx-7.2 here')
  }
  firmware(os, hasKernel, findings)
}

function firmware(os: Element | undefined, hasKernel: boolean, findings: Findings): void {
  const loader = childOf(os, 'loader')
  const uefi =
    attributeOf(os, 'firmware') === 'efi' ||
    attributeOf(loader, 'type') === 'pflash' ||
    childOf(os, 'nvram') !== undefined ||
    /OVMF|edk2|efi/i.test(loader?.text ?? '')
  if (uefi && hasKernel) findings.change('UEFI firmware', 'its kernel is started by a BIOS here')
  else if (uefi) findings.refuse('UEFI firmware', WHY.uefi)
  else if (loader?.text) findings.change(`loader ${loader.text}`, 'the BIOS is SeaBIOS as QEMU brings it')
  for (const name of ['smbios', 'bios', 'acpi', 'dtb', 'shim'] as const) {
    if (childOf(os, name) !== undefined) findings.leave(`<os><${name}>`, 'the firmware has its defaults here')
  }
}

/** Words of a domain that mean nothing here, or that are read elsewhere. */
const QUIET = new Set(
  `name uuid hwuuid title description metadata currentMemory on_poweroff on_crash on_lockfailure os memory devices vcpu genid seclabel pm
   bootloader_args`.split(/\s+/)
)
const LIMITS = new Set(
  `cputune blkiotune memtune numatune memoryBacking iothreads iothreadids defaultiothread resource throttlegroups vcpus
   perf`.split(/\s+/)
)

function topLevel(element: Element, findings: Findings): void {
  const { name } = element
  if (QUIET.has(name)) return
  if (LIMITS.has(name)) return findings.leave(`<${name}>`, WHY.limits)
  switch (name) {
    case 'maxMemory':
      return findings.leave('<maxMemory>', 'memory does not grow while the VM runs')
    case 'cpu':
      return attributeOf(element, 'mode') === 'host-passthrough' ? undefined : findings.change('<cpu>', WHY.cpu)
    case 'clock':
      return (attributeOf(element, 'offset') ?? 'utc') === 'utc' ? undefined : findings.change('<clock>', WHY.clock)
    case 'features':
      return hypervisorFeatures(element, findings)
    case 'on_reboot':
      return element.text === 'restart' || element.text === ''
        ? undefined
        : findings.change(`<on_reboot>${element.text}`, 'a reboot of the guest reboots it')
    case 'launchSecurity':
      return findings.refuse(`<launchSecurity type='${attributeOf(element, 'type') ?? ''}'>`, WHY.encrypted)
    case 'bootloader':
      return findings.refuse('<bootloader>', 'it is of Xen')
    case 'sysinfo':
      return findings.leave('<sysinfo>', 'the machine tells the guest nothing of its maker, serial number or UUID')
    default:
      findings.leave(`<${name}>`, name.includes(':') ? 'it is for QEMU itself, or another program' : WHY.unknown)
  }
}

function hypervisorFeatures(element: Element, findings: Findings): void {
  if (childOf(element, 'hyperv') !== undefined) {
    findings.leave('<hyperv>', 'Windows runs without what Hyper-V would tell it, a little slower')
  }
  if (attributeOf(childOf(element, 'kvm'), 'hidden') !== undefined || childOf(element, 'ioapic') !== undefined) {
    findings.leave('<features>', 'the machine has its defaults here')
  }
}

const BYTES: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  kb: 1000,
  k: 1024,
  kib: 1024,
  mb: 1_000_000,
  m: 1 << 20,
  mib: 1 << 20,
  gb: 1_000_000_000,
  g: 2 ** 30,
  gib: 2 ** 30,
  tb: 1e12,
  t: 2 ** 40,
  tib: 2 ** 40
}

/** Rounded up; NaN where it says nothing that is a size. */
function memoryMiB(element: Element | undefined): number {
  const unit = BYTES[(attributeOf(element, 'unit') ?? 'KiB').toLowerCase()] ?? Number.NaN
  const text = element?.text ?? ''
  return /^\d{1,15}$/.test(text) ? Math.ceil((Number(text) * unit) / (1 << 20)) : Number.NaN
}

/** A balloon takes from a guest what it has beyond the current memory. */
function memoryOf(root: Element, findings: Findings): number {
  const all = memoryMiB(childOf(root, 'memory'))
  const current = childOf(root, 'currentMemory')
  if (current !== undefined && memoryMiB(current) < all) {
    findings.change('<currentMemory>', 'the guest has all its memory from the beginning: there is no balloon')
  }
  return all
}

/** As many as run at first. */
function cpusOf(element: Element | undefined, findings: Findings): number {
  const most = element?.text ?? '1'
  const current = attributeOf(element, 'current') ?? most
  if (current !== most) findings.change(`${current} of ${most} vcpus`, 'processors are not added while the VM runs')
  if (attributeOf(element, 'cpuset') !== undefined) findings.leave('<vcpu cpuset>', WHY.limits)
  return /^\d{1,5}$/.test(current) ? Number(current) : Number.NaN
}
