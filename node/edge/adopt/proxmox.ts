/** A VM's file of Proxmox VE (`/etc/pve/qemu-server/VMID.conf`), as far as a VM here can be one. Format: qm.conf(5). Pure. */
import { UsageError } from '../../errors.ts'
import { type Draft, Findings, type FoundDisk, type FoundNic, WHY } from './findings.ts'
import { leftOf, QUIET_KEYS } from './proxmox-keys.ts'
import { MAX_FILE_CHARACTERS } from './xml.ts'

/** `key: value` of the VM as it is now. */
type Settings = ReadonlyMap<string, string>

/** UsageError ADOPT_PROXMOX. */
export function readProxmox(text: string): Draft {
  const findings = new Findings()
  const settings = settingsOf(text, findings)
  requireMachine(settings, findings)
  for (const key of settings.keys()) if (!QUIET_KEYS.test(key)) leftOf(key, settings.get(key) ?? '', findings)
  const { disks, boot } = bootDisk(disksOf(settings, findings), settings, findings)
  return {
    name: settings.get('name') ?? '',
    memoryMiB: numberOf(partsOf(settings.get('memory') ?? '512', 'current').get('current')),
    cpus: cpusOf(settings),
    disks: boot === undefined ? disks : [boot, ...disks.filter(disk => disk !== boot)],
    nics: nicsOf(settings, findings),
    generationId: (settings.get('vmgenid') ?? '0') !== '0',
    guestAgent: isOn(partsOf(settings.get('agent') ?? '0', 'enabled').get('enabled')),
    findings
  }
}

/** Up to the first section, which is a snapshot or what waits for a restart. */
function settingsOf(text: string, findings: Findings): Settings {
  if (text.length > MAX_FILE_CHARACTERS) throw invalid(`it has more than ${MAX_FILE_CHARACTERS} characters`)
  const settings = new Map<string, string>()
  let section = ''
  for (const line of text.split(/\r?\n/)) {
    const [, name] = /^\[(.+)\]\s*$/.exec(line) ?? []
    if (name !== undefined) {
      section = name
      findings.leave(`[${name}]`, sectionWhy(name))
    }
    if (section !== '' || /^\s*(#|$)/.test(line)) continue
    const [, key = '', value = ''] = /^([a-z][a-z_-]*\d*):\s*(.+?)\s*$/.exec(line) ?? []
    if (key !== '') settings.set(key, value)
    else findings.leave(line, 'it is no setting: key: value')
  }
  if (settings.size === 0) throw invalid('there is no setting in it (key: value)')
  return settings
}

function sectionWhy(name: string): string {
  if (name === 'PENDING')
    return 'what waits for a restart there is not looked at: restart it there, or define it as it is'
  if (name.startsWith('special:')) return 'the guest has this from its first boot'
  return 'snapshots are not carried along: epochs begin anew'
}

/** `a,b=c`: what has no name is called `first`. */
function partsOf(value: string, first: string): Map<string, string> {
  const parts = value.split(',').map(part => {
    const at = part.indexOf('=')
    return at < 0 ? ([first, part] as const) : ([part.slice(0, at), part.slice(at + 1)] as const)
  })
  return new Map(parts.toReversed()) // of two the first counts
}

const isOn = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? '')
const numberOf = (value: string | undefined): number => (/^\d{1,9}$/.test(value ?? '') ? Number(value) : Number.NaN)

function cpusOf(settings: Settings): number {
  const vcpus = settings.get('vcpus')
  return vcpus === undefined
    ? numberOf(settings.get('cores') ?? '1') * numberOf(settings.get('sockets') ?? '1')
    : numberOf(vcpus)
}

function requireMachine(settings: Settings, findings: Findings): void {
  const value = (key: string) => settings.get(key) ?? ''
  if (value('bios') === 'ovmf') findings.refuse('bios: ovmf', WHY.uefi)
  const arch = value('arch')
  if (settings.has('rootfs')) findings.refuse('rootfs', 'it is a container, and no VM: run what is in it in a VM')
  if (arch !== '' && arch !== 'x86_64' && !settings.has('rootfs')) findings.refuse(`arch: ${arch}`, WHY.architecture)
  const machine = partsOf(value('machine'), 'type').get('type') ?? ''
  if (/q35/.test(machine)) findings.change(`machine: ${value('machine')}`, WHY.machine)
  else if (machine !== '' && machine !== 'pc') {
    findings.change(`machine: ${machine}`, 'the machine is pc-i440fx-7.2 here')
  }
  const cpu = partsOf(value('cpu'), 'cputype').get('cputype') ?? ''
  if (cpu !== '' && cpu !== 'host') findings.change(`cpu: ${cpu}`, WHY.cpu)
  if (isOn(settings.get('template'))) {
    findings.refuse('template: 1', 'a template is no VM yet: clone it there, and adopt the clone')
  }
  if (settings.has('tpmstate0')) findings.refuse('tpmstate0', WHY.tpm)
  if (isOn(settings.get('localtime'))) findings.change('localtime: 1', WHY.clock)
  if (settings.get('kvm') === '0') findings.change('kvm: 0', 'each host uses KVM where it has it')
  if (/^(w|win)/.test(value('ostype'))) findings.change(`ostype: ${value('ostype')}`, WHY.virtio)
}

const DISK = /^(ide|sata|scsi|virtio)\d+$/
/** Where "local" is, unless somebody moved it. */
const LOCAL = '/var/lib/vz/images'

function disksOf(settings: Settings, findings: Findings): FoundDisk[] {
  return [...settings].flatMap(([name, value]): FoundDisk[] => {
    if (!DISK.test(name)) return []
    const parts = partsOf(value, 'file')
    const file = parts.get('file') ?? ''
    if (parts.get('media') === 'cdrom' || file === 'none' || file === 'cdrom') {
      if (/cloudinit/.test(file)) findings.leave(`${name}: cloud-init`, 'the guest has this from its first boot')
      else if (file !== 'none') findings.leave(`${name}: ${file}`, WHY.cdrom)
      return []
    }
    if (!name.startsWith('virtio')) findings.change(name, WHY.virtio)
    if ([...parts.keys()].some(key => /^(mbps|bps|iops)/.test(key))) findings.leave(`limits of ${name}`, WHY.limits)
    if (parts.has('serial') || parts.has('wwn')) {
      findings.leave(`serial number of ${name}`, 'the guest finds its disks as /dev/vda, /dev/vdb, … only')
    }
    if (isOn(parts.get('ro'))) findings.change(name, 'the guest may write to it here')
    if (isOn(parts.get('snapshot'))) findings.change(name, 'what the guest writes stays here')
    return [{ name, sizeMiB: sizeMiB(parts.get('size')), ...placeOf(file) }]
  })
}

/** Of a volume `STORAGE:VMID/FILE`, of any other, or of a path. */
function placeOf(file: string): Pick<FoundDisk, 'path' | 'format' | 'cannot' | 'where'> {
  const [, storage, volume = ''] = /^([^:/]+):(.+)$/.exec(file) ?? []
  const path = storage === undefined ? file : storage === 'local' ? `${LOCAL}/${volume}` : undefined
  const [, ending = 'raw'] = /\.([a-z0-9]+)$/i.exec(file) ?? []
  // BASEID/BASE/VMID/NAME, a linked clone: the file is in VMID, and has what the template's has not.
  if (/^\d+\/[^/]+\/\d+\//.test(volume)) return { where: file, cannot: WHY.layer }
  if (path?.startsWith('/dev/')) return { where: file, cannot: WHY.device }
  if (ending !== 'raw' && ending !== 'qcow2') return { where: file, cannot: WHY.format }
  if (storage !== undefined && !/^\d+\/.*\.(raw|qcow2)$/.test(volume)) return { where: file, cannot: WHY.noFile }
  return path?.startsWith('/') ? { path, format: ending } : { where: file, cannot: WHY.storage }
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

function sizeMiB(text: string | undefined): number | undefined {
  const [, number, unit = ''] = /^(\d{1,12}(?:\.\d{1,6})?)([KMGT]?)$/.exec(text ?? '') ?? []
  return number === undefined ? undefined : Math.ceil((Number(number) * (UNITS[unit] ?? 1)) / 2 ** 20)
}

/** `boot: order=scsi0;net0`; before there was that, `bootdisk: scsi0`. */
function bootDisk(disks: readonly FoundDisk[], settings: Settings, findings: Findings) {
  const order =
    partsOf(settings.get('boot') ?? '', 'legacy')
      .get('order')
      ?.split(';') ?? []
  const wanted = [...order, settings.get('bootdisk') ?? '']
  const boot = wanted.flatMap(name => disks.filter(disk => disk.name === name))[0]
  const [first = ''] = order
  if (first !== '' && first !== boot?.name) {
    findings.change(`boot: order=${order.join(';')}`, 'it boots from its first disk here')
  }
  if (boot !== undefined && boot !== disks[0]) {
    findings.change(boot.name, 'it boots from it, so it is its first disk, /dev/vda, here')
  }
  return { disks, boot }
}

const MODEL = /^(e1000.*|i82551|i82557b|i82559er|ne2k_isa|ne2k_pci|pcnet|rtl8139|virtio|vmxnet3)$/

function nicsOf(settings: Settings, findings: Findings): FoundNic[] {
  return [...settings].flatMap(([name, value]): FoundNic[] => {
    if (!/^net\d+$/.test(name)) return []
    const parts = partsOf(value, 'model')
    const named = [...parts].find(([key]) => MODEL.test(key))
    const model = named?.[0] ?? parts.get('model') ?? ''
    const mac = named?.[1] ?? parts.get('macaddr')
    if (model !== 'virtio') findings.change(`${name}, ${model}`, WHY.virtio)
    if (isOn(parts.get('firewall'))) findings.leave(`firewall of ${name}`, WHY.firewall)
    if (parts.has('tag') || parts.has('trunks')) findings.leave(`VLAN of ${name}`, WHY.vlan)
    if (parts.has('rate')) findings.leave(`rate of ${name}`, WHY.limits)
    if (parts.has('mtu')) findings.leave(`MTU of ${name}`, 'set it in the guest')
    if (isOn(parts.get('link_down'))) findings.change(name, 'its cable is plugged in here')
    return [{ name, mac, on: parts.get('bridge') ?? 'user', outside: true }]
  })
}

function invalid(why: string): UsageError {
  return new UsageError(
    'ADOPT_PROXMOX',
    `this is no VM's file of Proxmox VE: ${why}. Take /etc/pve/qemu-server/VMID.conf of its host`
  )
}
