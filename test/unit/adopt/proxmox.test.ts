import { describe, expect, it } from 'vitest'
import { adopt, type DiskFacts, withFiles } from '../../../node/edge/adopt/adopt.ts'
import { readProxmox } from '../../../node/edge/adopt/proxmox.ts'
import { conf, qcow2, raw } from './files.ts'

const PATH = '/var/lib/vz/images/100/vm-100-disk-0.qcow2'
const FACTS: Record<string, DiskFacts> = { [PATH]: qcow2(32 * 2 ** 30), '/srv/copy': raw() }
const wish = { fallbackName: 'vm-100', networks: new Map<string, string>() }
const adopted = (text: string, files: Record<string, string> = {}, facts = FACTS) =>
  adopt(withFiles(readProxmox(text), new Map(Object.entries(files))), new Map(Object.entries(facts)), wish)
const refusals = (text: string) => adopted(text).refused.map(({ what, why }) => `${what}: ${why}`)

const MAIL = {
  id: 'mail',
  vms: [
    {
      id: 'mail',
      nics: [{ mac: 'bc:24:11:aa:00:01', network: 'uplink' }],
      memoryMiB: 4096,
      cpus: 4,
      disks: [{ sizeMiB: 32_768, base: { path: PATH, format: 'qcow2' } }],
      generationId: true,
      guestAgent: {}
    }
  ]
}

describe('a VM of Proxmox VE', () => {
  it('becomes a definition, with what is not as it was', () => {
    const { definition, refused, changed, left } = adopted(conf())
    expect(refused).toEqual([])
    expect(definition).toEqual(MAIL)
    expect(changed.map(({ what }) => what)).toEqual(['scsi0', 'net0 on vmbr0'])
    expect(left).toEqual([])
  })

  it('is as it is now, and not as it was in a snapshot', () => {
    const text = conf('', '[before]', 'memory: 512', 'hostpci0: 01:00.0', '[PENDING]', 'memory: 8192')
    const { definition, left } = adopted(text)
    expect(definition).toEqual(MAIL)
    expect(left.map(({ what }) => what)).toEqual(['[before]', '[PENDING]'])
  })

  it('is adopted where its disks are not, as far as the file says how large they are', () => {
    const { definition, changed } = adopted(conf(), {}, {})
    expect(definition).toEqual(MAIL)
    expect(changed).toContainEqual({
      what: `disk scsi0: ${PATH}`,
      why: expect.stringContaining('must have it there') as string
    })
    const unsaid = adopted(conf().replace(',size=32G', ''), {}, {})
    expect(unsaid.refused).toMatchObject([{ what: `disk scsi0: ${PATH}` }])
  })

  it('boots from the disk that it names, in the old way as well', () => {
    const paths = (text: string) =>
      adopted(text, { virtio1: '/srv/copy' }).definition?.vms[0]?.disks?.map(({ base }) => base?.path)
    const second = 'virtio1: local:100/vm-100-disk-1.raw,size=8G'
    expect(paths(conf(second))).toEqual([PATH, '/srv/copy'])
    expect(paths(conf(second).replace('order=scsi0', 'order=ide2;virtio1'))).toEqual(['/srv/copy', PATH])
    expect(paths(conf(second, 'bootdisk: virtio1').replace(/boot: .*\n/, ''))).toEqual(['/srv/copy', PATH])
  })

  it.each([
    ['UEFI', ['bios: ovmf'], /bios: ovmf: .*UEFI/],
    ['another processor', ['arch: aarch64'], /arch: aarch64: only x86/],
    ['a PCI device', ['hostpci0: 0000:01:00,pcie=1'], /hostpci0: .*detach it/],
    ['a USB device', ['usb0: host=1-1.2'], /usb0: .*detach it/],
    ['a TPM', ['tpmstate0: local:100/t.raw,size=4M'], /tpmstate0: .*BitLocker/],
    ['encrypted memory', ['amd-sev: type=snp'], /amd-sev: .*switch it off/],
    ['a template', ['template: 1'], /template: 1: .*clone it there/],
    [
      'a logical volume',
      ['scsi1: local-lvm:vm-100-disk-1,size=4G'],
      /disk scsi1: local-lvm:vm-100-disk-1: it is no file.*--disk/
    ],
    ['a device', ['scsi1: /dev/disk/by-id/ata-X'], /disk scsi1: \/dev\/disk\/by-id\/ata-X: it is a device of its host/],
    [
      'a folder elsewhere',
      ['scsi1: nfs:100/vm-100-disk-1.qcow2'],
      /disk scsi1: nfs:100\/vm-100-disk-1\.qcow2: .*pvesm path/
    ],
    ['another format', ['scsi1: local:100/vm-100-disk-1.vmdk'], /vmdk: only raw and qcow2/],
    ['a container', ['arch: amd64', 'rootfs: local:100/vm-100-disk-0.raw,size=8G'], /^rootfs: it is a container/],
    ['no memory', ['memory: 0'], /memory: 0 MiB: a VM here has 16 to 1048576 MiB/]
  ])('is refused with %s, and told why', (_what, more, why) => {
    expect(adopted(conf(...more)).definition).toBeUndefined()
    expect(refusals(conf(...more)).join('\n')).toMatch(why)
  })

  it('says what it is without, and nothing of what nobody misses', () => {
    const quiet = [
      'onboot: 1',
      'smbios1: uuid=1-2',
      'tags: a;b',
      'hotplug: disk,network',
      'tablet: 1',
      'ciuser: root',
      'ipconfig0: ip=dhcp'
    ]
    expect(adopted(conf(...quiet)).left).toEqual([])
    const more = [
      'vga: qxl',
      'balloon: 2048',
      'efidisk0: local:1/e.raw',
      'args: -device x',
      'ide0: local:iso/x.iso,media=cdrom'
    ]
    const { left } = adopted(conf(...more, 'usb1: spice', 'warp: 9', 'no setting'))
    const said = ['vga: qxl', 'balloon: 2048', 'efidisk0: local:1/e.raw', 'args: -device x', 'ide0: local:iso/x.iso']
    for (const what of [...said, 'usb1: spice', 'warp: 9', 'no setting'])
      expect(left.map(each => each.what)).toContain(what)
  })

  it('refuses what is no file of Proxmox VE', () => {
    const refused = expect.objectContaining({ code: 'ADOPT_PROXMOX' }) as Error
    for (const text of ['', '# only words\n', '[snap]\nmemory: 512']) expect(() => readProxmox(text)).toThrow(refused)
  })
})
