/** Settings of Proxmox VE that a VM here does without, and why. Pure. */
import { type Findings, WHY } from './findings.ts'

/** Read elsewhere, or of Proxmox' own housekeeping: nobody misses them. */
export const QUIET_KEYS = new RegExp(
  `^(${[
    'name|memory|cores|sockets|vcpus|cpu|bios|arch|machine|template|tpmstate0|localtime|kvm|ostype|vmgenid|agent|boot|bootdisk',
    '(ide|sata|scsi|virtio|net|ipconfig)\\d+|serial0|smp|scsihw|numa|acpi|tablet|keyboard|hotplug|meta|digest',
    'onboot|startup|autostart|tags|description|protection|parent|snaptime|migrate_.*|running.*|allow-ksm|tdf|reboot',
    'ciuser|cipassword|nameserver|searchdomain|sshkeys'
  ].join('|')})$`
)

const LEFT: readonly (readonly [RegExp, string])[] = [
  [/^(vga|audio\d+|spice_enhancements)$/, WHY.screen],
  [/^(balloon|shares)$/, 'the guest has all its memory from the beginning: there is no balloon'],
  [/^(cpulimit|cpuunits|affinity|hugepages|keephugepages|numa\d+)$/, WHY.limits],
  [/^(citype|cicustom|ciupgrade)$/, 'the guest has this from its first boot'],
  [/^smbios\d+$/, 'the machine tells the guest nothing of its maker, serial number or UUID'],
  [/^efidisk\d+$/, 'there is no UEFI here'],
  [/^unused\d+$/, 'the VM does not have it there, either'],
  [/^serial\d+$/, 'there is one serial port'],
  [/^parallel\d+$/, 'there are no parallel ports here'],
  [/^usb\d+$/, 'USB is not redirected here'],
  [/^watchdog$/, 'nothing here reboots a guest that hangs; see "objective" of a definition'],
  [/^rng\d+$/, 'the guest gathers randomness itself'],
  [/^ivshmem$/, 'memory that is shared with others is of one host'],
  [/^virtiofs\d+$/, 'a folder of a host is no part of a VM: put what is in it on a disk'],
  [/^(args|hookscript)$/, 'it is for QEMU itself, or another program'],
  [/^(startdate|freeze|lock|vmstate|vmstatestorage)$/, 'it is of a moment there']
]

/** Notes what becomes of a setting that nothing here is made of. */
export function leftOf(key: string, value: string, findings: Findings): void {
  const said = `${key}: ${value}`
  if (/^hostpci\d+$/.test(key)) return findings.refuse(said, WHY.passthrough)
  if (/^usb\d+$/.test(key) && /(^|,)(host|mapping)=|^[0-9a-f]{4}:[0-9a-f]{4}/i.test(value)) {
    return findings.refuse(said, WHY.passthrough)
  }
  if (/^smbios\d+: uuid=[^,]*$/.test(said)) return // every VM there has one
  if (/^(amd-sev|intel-tdx)$/.test(key)) return findings.refuse(said, WHY.encrypted)
  findings.leave(said, LEFT.find(([pattern]) => pattern.test(key))?.[1] ?? WHY.unknown)
}
