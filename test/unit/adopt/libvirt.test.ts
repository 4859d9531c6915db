import { describe, expect, it } from 'vitest'
import { adopt, type DiskFacts, withFiles } from '../../../node/edge/adopt/adopt.ts'
import { readLibvirt } from '../../../node/edge/adopt/libvirt.ts'
import { domain, qcow2, raw, SHOP } from './files.ts'

const FACTS: Record<string, DiskFacts> = { '/srv/shop.qcow2': qcow2(), '/srv/data.raw': raw(), '/srv/copy': qcow2() }
const wish = { fallbackName: 'vm-file', networks: new Map<string, string>() }
const adopted = (text: string, files: Record<string, string> = {}, networks: Record<string, string> = {}) =>
  adopt(withFiles(readLibvirt(text), new Map(Object.entries(files))), new Map(Object.entries(FACTS)), {
    ...wish,
    networks: new Map(Object.entries(networks))
  })
const refusals = (text: string) => adopted(text).refused.map(({ what, why }) => `${what}: ${why}`)
const disk = (name: string, inside: string, type = 'file') =>
  `<disk type='${type}' device='disk'>${inside}<target dev='${name}' bus='virtio'/></disk>`

describe('a domain of libvirt', () => {
  it('becomes a definition, with what is not as it was', () => {
    const { definition, refused, changed, left } = adopted(domain())
    expect(refused).toEqual([])
    expect(definition).toEqual(SHOP)
    expect(changed.map(({ what }) => what)).toEqual(['name shop & till', 'NIC 1 on br0'])
    expect(left).toEqual([])
  })

  it('boots its kernel where it has one, and needs no disk and no BIOS for it', () => {
    const kernel = `<os firmware='efi'><type arch='x86_64'>hvm</type><kernel>/k</kernel><cmdline>root=/dev/vda &quot;x&quot;</cmdline></os>`
    expect(adopted(domain({ os: kernel })).definition?.vms[0]).toMatchObject({
      kernel: '/k',
      append: 'root=/dev/vda "x"'
    })
    const alone = domain({ os: kernel }).replace(/<disk.*<\/disk>/s, '')
    expect(adopted(alone).definition?.vms[0]).not.toHaveProperty('disks')
    expect(refusals(alone.replace(/<kernel>.*<\/cmdline>/s, '').replace(" firmware='efi'", ''))).toEqual([
      'no disk: there is nothing to boot from: neither a disk nor a kernel'
    ])
  })

  it('has the disk first from which it boots, and a channel for its agent', () => {
    const second = `<driver type='raw'/><source file='/srv/data.raw'/><boot order='1'/>`
    const agent = `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`
    const { definition, changed } = adopted(domain({ more: disk('vdb', second) + agent, top: '<genid/>' }))
    expect(definition?.vms[0]).toMatchObject({ guestAgent: {}, generationId: true })
    expect(definition?.vms[0]?.disks?.map(({ base }) => base?.path)).toEqual(['/srv/data.raw', '/srv/shop.qcow2'])
    expect(changed).toContainEqual({ what: 'disk vdb', why: expect.stringContaining('/dev/vda') as string })
  })

  it.each([
    ['type xen', domain({ type: 'xen' }), /type='xen': only VMs of QEMU/],
    ['another processor', domain({ os: `<os><type arch='aarch64'>hvm</type></os>` }), /arch aarch64: only x86/],
    ['UEFI', domain({ os: `<os firmware='efi'><type>hvm</type></os>` }), /UEFI firmware: .*convert its boot loader/],
    ['a loader in flash', domain({ os: `<os><type>hvm</type><loader type='pflash'>/f.fd</loader></os>` }), /UEFI/],
    [
      'a device of its host',
      domain({ more: `<hostdev mode='subsystem' type='pci'/>` }),
      /<hostdev type='pci'>: .*detach/
    ],
    ['a NIC of its host', domain({ more: `<interface type='hostdev'/>` }), /NIC 2 of type 'hostdev': .*detach/],
    ['a TPM', domain({ more: `<tpm model='tpm-crb'/>` }), /<tpm>: .*BitLocker/],
    [
      'encrypted memory',
      domain({ top: `<launchSecurity type='sev'/>` }),
      /launchSecurity type='sev'>: .*switch it off/
    ],
    ['a disk on a device', domain({ more: disk('vdb', `<source dev='/dev/vg/x'/>`, 'block') }), /--disk NAME=FILE/],
    [
      'a disk elsewhere',
      domain({ more: disk('vdb', `<source protocol='rbd'/>`, 'network') }),
      /disk vdb: rbd: it is no file/
    ],
    [
      'a disk in another format',
      domain({ more: disk('vdb', `<driver type='vmdk'/><source file='/x'/>`) }),
      /disk vdb: \/x: only raw and qcow2/
    ],
    [
      'a disk that is not here',
      domain({ more: disk('vdb', `<source file='/gone'/>`) }),
      /disk vdb: \/gone: it is not on this/
    ],
    ['a shared disk', domain({ more: disk('vdb', `<source file='/srv/copy'/><shareable/>`) }), /shared with other VMs/],
    [
      'too much memory',
      domain().replace("unit='GiB'>2<", "unit='GiB'>4096<"),
      /memory: 4194304 MiB: a VM here has 16 to 1048576 MiB/
    ],
    ['memory that is no number', domain().replace('>2</memory>', '>plenty</memory>'), /memory: how much it is/]
  ])('is refused with %s, and told why', (_what, text, why) => {
    expect(adopted(text).definition).toBeUndefined()
    expect(refusals(text).join('\n')).toMatch(why)
  })

  it('takes a copy for a disk that it cannot have, by the name that the file gives it', () => {
    const text = domain({ more: disk('vdb', `<source dev='/dev/vg/x'/>`, 'block') })
    const { definition } = adopted(text, { vdb: '/srv/copy' })
    expect(definition?.vms[0]?.disks?.[1]).toEqual({ sizeMiB: 20_480, base: { path: '/srv/copy', format: 'qcow2' } })
    expect(() => adopted(text, { vdc: '/srv/copy' })).toThrow(expect.objectContaining({ code: 'ADOPT_OPTION' }))
  })

  it('says what it is without: screen, sound, folders of its host, what nobody here knows', () => {
    const more = `<graphics type='spice'/><video><model type='qxl'/></video><sound model='ich9'/>
      <filesystem type='mount'/><hologram type='3d'/><disk type='file' device='cdrom'><source file='/iso'/><target dev='sda'/></disk>`
    const { definition, left } = adopted(
      domain({ more, top: '<qemu:commandline/><memoryBacking><hugepages/></memoryBacking>' })
    )
    expect(definition).toEqual(SHOP)
    expect(left.map(({ what }) => what)).toEqual([
      '<qemu:commandline>',
      '<memoryBacking>',
      'cdrom sda',
      "<graphics type='spice'>",
      '<video>',
      '<sound>',
      "<filesystem type='mount'>",
      "<hologram type='3d'>"
    ])
  })

  it('says what it has in another way: q35, a disk on SATA, a NIC that is no virtio, a clock in local time', () => {
    const text = domain({ os: `<os><type machine='pc-q35-8.2'>hvm</type><boot dev='network'/></os>` })
      .replace("bus='virtio'", "bus='sata'")
      .replace("<model type='virtio'/>", "<model type='e1000e'/>")
      .replace("offset='utc'", "offset='localtime'")
      .replace("unit='KiB'>2097152", "unit='KiB'>1048576")
    const { definition, changed } = adopted(text)
    expect(definition).toEqual(SHOP)
    const said = [
      'machine pc-q35-8.2',
      '<clock>',
      'disk vda on sata',
      'boots from network',
      'NIC 1, e1000e',
      '<currentMemory>'
    ]
    for (const what of said) expect(changed.map(each => each.what)).toContain(what)
  })

  it('has its NICs on networks that nobody says: the first way outside is the uplink, of two on one bridge one', () => {
    const nic = (type: string, source: string, mac = '') =>
      `<interface type='${type}'>${mac}<source ${source}/></interface>`
    const more =
      nic('bridge', "bridge='br0'") + nic('network', "network='Back Office'", "<mac address='01:00:5e:00:00:01'/>")
    const networks = (chosen = {}) =>
      adopted(domain({ more }), {}, chosen).definition?.vms[0]?.nics?.map(nics => nics.network)
    expect(networks()).toEqual(['uplink', 'br0', 'back-office'])
    expect(networks({ br0: 'shared/lan', 'Back Office': 'uplink' })).toEqual(['shared/lan', 'shared-lan', 'uplink'])
    const macs = adopted(domain({ more })).definition?.vms[0]?.nics?.map(({ mac }) => mac) ?? []
    expect(macs[0]).toBe('52:54:00:aa:00:01')
    for (const mac of macs) expect(mac).toMatch(/^52:54:00(:[0-9a-f]{2}){3}$/)
    expect(new Set(macs).size).toBe(3)
  })

  it('refuses what is no domain', () => {
    const code = (wanted: string) => expect.objectContaining({ code: wanted }) as Error
    expect(() => readLibvirt('<network><name>x</name></network>')).toThrow(code('ADOPT_NO_DOMAIN'))
    for (const text of ['', 'kernel: /k', '<domain>', '<domain></domain><domain></domain>x<']) {
      expect(() => readLibvirt(text)).toThrow(code('ADOPT_XML'))
    }
  })
})
