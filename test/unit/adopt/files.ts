/** VMs as libvirt and Proxmox VE write them down: files of our own, in the shapes that theirs have. */
import type { DiskFacts } from '../../../node/edge/adopt/adopt.ts'

export const GIB = 2 ** 30
export const qcow2 = (bytes = 20 * GIB): DiskFacts => ({ kind: 'file', bytes: 196_624, qcow2: { bytes, snapshots: 0 } })
export const raw = (bytes = 8 * GIB): DiskFacts => ({ kind: 'file', bytes })

/** A server as a person's hypervisor has it today. `more`: further devices; `os`: in the place of its own. */
export const domain = ({ more = '', os = OS, type = 'kvm', top = '' } = {}): string => `<?xml version="1.0"?>
<domain type='${type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>shop &amp; till</name>
  <uuid>0d6d7a0c-6f0f-4d59-9a80-2f6b1b9d8a11</uuid>
  <memory unit='GiB'>2</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>2</vcpu>
  ${os}
  <features><acpi/><apic/></features>
  <clock offset='utc'/>
  ${top}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/srv/shop.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:AA:00:01'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'><target type='isa-serial' port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    ${more}
  </devices>
</domain>
`

export const OS = `<os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/></os>`

export const SHOP = {
  id: 'shop-till',
  vms: [
    {
      id: 'shop-till',
      nics: [{ mac: '52:54:00:aa:00:01', network: 'uplink' }],
      memoryMiB: 2048,
      cpus: 2,
      disks: [{ sizeMiB: 20_480, base: { path: '/srv/shop.qcow2', format: 'qcow2' } }]
    }
  ]
}

/** A mail server as Proxmox VE has it. */
export const conf = (...more: string[]): string =>
  [
    '#A mail server%3A look after it',
    'agent: 1',
    'boot: order=scsi0;net0',
    'cores: 2',
    'cpu: host',
    'ide2: none,media=cdrom',
    'memory: 4096',
    'meta: creation-qemu=8.1.5,ctime=1700000000',
    'name: mail',
    'net0: virtio=BC:24:11:AA:00:01,bridge=vmbr0',
    'numa: 0',
    'ostype: l26',
    'scsi0: local:100/vm-100-disk-0.qcow2,iothread=1,size=32G',
    'scsihw: virtio-scsi-single',
    'sockets: 2',
    'vmgenid: 3b2d9b9e-0f0e-4b1a-9a51-0b8f9a1c2d3e',
    ...more
  ].join('\n')
