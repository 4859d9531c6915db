import { describe, expect, it } from 'vitest'
import {
  commonArguments,
  guestName,
  isMachineOf,
  machineArguments,
  requireEnds,
  requireSocketPath
} from '../../node/hypervisor/command-line.ts'
import { parseQemuVersion } from '../../node/hypervisor/qemu.ts'

const paths = { qmp: '/r/q', consoleLog: '/r/c.log' }
const spec = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: 'a=1,b=2 c' }
const ends = [{ kind: 'stream', path: '/r/n' }] as const
const options = { accel: 'tcg', guest: 'g', spec, ends, paths, incoming: false, sharedRam: false } as const

/** The value that follows `name`. */
const valueOf = (args: string[], name: string) => args[args.indexOf(name) + 1]

describe("QEMU's command line", () => {
  it('pins the machine type and the CPU, which images depend on', () => {
    expect(valueOf(machineArguments(options), '-machine')).toMatch(/^pc-i440fx-7\.2(,|$)/)
    expect(valueOf(machineArguments(options), '-cpu')).toBe('max')
    expect(valueOf(machineArguments({ ...options, accel: 'kvm' }), '-cpu')).toBe('host,migratable=on')
  })

  it('differs between a boot and a resume only in what it waits for', () => {
    const incoming = machineArguments({ ...options, incoming: true })
    expect(incoming).toEqual([...machineArguments(options), '-incoming', 'defer'])
  })

  it('is the same for one processor as before there could be several', () => {
    const before = machineArguments(options)
    expect(before).not.toContain('-smp')
    expect(machineArguments({ ...options, spec: { ...spec, cpus: 1 } })).toEqual(before)
    const four = machineArguments({ ...options, spec: { ...spec, cpus: 4 } })
    expect(valueOf(four, '-smp')).toBe('4')
    expect(four.filter((_, at) => four[at] !== '-smp' && four[at - 1] !== '-smp')).toEqual(before)
  })

  it('boots a kernel with what the specification has of it, or nothing, and lets the guest reboot', () => {
    const flags = (more: object) => {
      const args = machineArguments({ ...options, spec: { id: 'vm1', mac: spec.mac, memoryMiB: 64, ...more } })
      expect(args).not.toContain('-no-reboot')
      expect(args).toContain('-no-shutdown') // one that turns itself off leaves QEMU standing
      return args.flatMap((word, at) => (/^-(kernel|initrd|append)$/.test(word) ? [word, args[at + 1]] : []))
    }
    expect(flags({ kernel: '/k', initrd: '/i', append: 'a' })).toEqual([
      '-kernel',
      '/k',
      '-initrd',
      '/i',
      '-append',
      'a'
    ])
    expect(flags({ kernel: '/k' })).toEqual(['-kernel', '/k', '-append', ''])
    expect(flags({})).toEqual([])
  })

  it('puts what a guest is to notice of a restore behind all other devices, whose places are in images of before', () => {
    const disks = ['-device', 'virtio-blk-pci,drive=d0']
    const before = machineArguments({ ...options, disks })
    const guest = { generationId: true, guestAgent: {}, clock: 'continue' } as const
    const after = machineArguments({
      ...options,
      disks,
      paths: { ...paths, agent: '/r/a,b' },
      spec: { ...spec, ...guest }
    })
    expect(after.slice(0, before.length)).toEqual(before)
    const added = [
      ['-rtc', 'base=utc,clock=vm', '-device', 'vmgenid,guid=auto'],
      ['-chardev', 'socket,id=agent,path=/r/a,,b,server=off', '-device', 'virtio-serial-pci'],
      ['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0']
    ]
    expect(after.slice(before.length)).toEqual(added.flat())
    expect(machineArguments({ ...options, disks, spec: { ...spec, generationId: false, clock: 'wall' } })).toEqual(
      before
    )
  })

  it('calls the RAM block pc.ram also where RAM is an inherited file, with which images fit both', () => {
    const args = machineArguments({ ...options, sharedRam: true })
    expect(valueOf(args, '-object')).toMatch(/^memory-backend-file,id=pc\.ram,size=64M,mem-path=[^,]+,share=on$/)
    expect(valueOf(args, '-machine')).toBe(`${valueOf(machineArguments(options), '-machine')},memory-backend=pc.ram`)
  })

  it('lets no comma of a path or name become an option of its own', () => {
    const given = {
      guest: 'a,b',
      ends: [{ kind: 'stream', path: '/r,server=on' }],
      paths: { ...paths, qmp: '/q,x' }
    } as const
    const args = machineArguments({ ...options, ...given })
    expect(valueOf(args, '-name')).toBe('guest=a,,b')
    expect(valueOf(args, '-netdev')).toMatch(/addr\.path=\/r,,server=on$/)
    expect(valueOf(args, '-qmp')).toBe('unix:/q,,x,server=off')
    expect(valueOf(args, '-append')).toBe('a=1,b=2 c')
  })

  it('has a NIC for each network, in their order, plugged into what the switch says', () => {
    const nics = ['default', 'backup'].map((network, index) => ({ mac: `52:54:00:00:00:0${index}`, network }))
    const two = [{ kind: 'tap', device: 'dp0' }, ...ends] as const
    const args = machineArguments({ ...options, spec: { ...spec, mac: undefined, nics }, ends: two })
    expect(args.filter((_, at) => args[at - 1] === '-netdev')).toEqual([
      'tap,id=n0,ifname=dp0,script=no,downscript=no,vnet_hdr=off,vhost=off',
      'stream,id=n1,server=off,addr.type=unix,addr.path=/r/n'
    ])
    expect(args.filter((_, at) => args[at - 1] === '-device')).toEqual([
      'virtio-net-pci,netdev=n0,mac=52:54:00:00:00:00,romfile=',
      'virtio-net-pci,netdev=n1,mac=52:54:00:00:00:01,romfile='
    ])
    const one = machineArguments({
      ...options,
      spec: { ...spec, mac: undefined, nics: [{ mac: spec.mac, network: 'x' }] }
    })
    expect(one).toEqual(machineArguments(options))
  })

  it('shows the guest the same NIC whatever it is plugged into', () => {
    const others = (args: string[]) => args.filter((_, at) => args[at - 1] !== '-netdev')
    const tap = machineArguments({ ...options, ends: [{ kind: 'tap', device: 'dp0' }] })
    expect(others(tap)).toEqual(others(machineArguments(options)))
  })

  it('refuses ends that are not one for each NIC, or that no device can be called', () => {
    const refusal = expect.objectContaining({ code: 'HYPERVISOR_NICS' })
    const tap = (device: string) => [{ kind: 'tap', device }] as const
    requireEnds(spec, ends)
    requireEnds(spec, tap('x'.repeat(15)))
    for (const wrong of [[], [...ends, ...ends], tap('x'.repeat(16))]) {
      expect(() => requireEnds(spec, wrong)).toThrow(refusal)
    }
    expect(() => requireEnds(spec, [{ kind: 'stream', path: 'x'.repeat(108) }])).toThrow(/108 bytes.*peer\.runDir/)
  })

  it("marks a peer's machines, and no other's", () => {
    const argv = ['setpriv', 'qemu', ...commonArguments('tcg', guestName('PeerA', 'vm1'))]
    expect(isMachineOf('PeerA', argv)).toBe(true)
    for (const other of ['Peer', 'PeerA:vm1', 'PeerB', '']) expect(isMachineOf(other, argv)).toBe(false)
    expect(isMachineOf('PeerA', ['grep', 'guest=diapause:PeerA:vm1'])).toBe(false)
  })

  it('takes socket paths of up to 107 bytes', () => {
    requireSocketPath('x'.repeat(107), 'it')
    for (const path of ['x'.repeat(108), 'é'.repeat(54)]) {
      expect(() => requireSocketPath(path, 'it')).toThrow(/108 bytes.*peer\.runDir/)
    }
  })
})

describe("QEMU's version", () => {
  const parse = (text: string) => parseQemuVersion(text, 'qemu')

  it('is read from the first line of --version', () => {
    const debian = 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022'
    expect(parse(debian)).toEqual({ text: '7.2.22', number: [7, 2] })
    expect(parse('QEMU emulator version 10.0.0').number).toEqual([10, 0])
  })

  it('must be 7.2 or later', () => {
    for (const old of ['7.1.0', '6.2.0', '2.11.1']) {
      expect(() => parse(`QEMU emulator version ${old}`)).toThrow(expect.objectContaining({ code: 'QEMU_TOO_OLD' }))
    }
    expect(() => parse('GNU bash')).toThrow(expect.objectContaining({ code: 'QEMU_UNKNOWN' }))
  })
})
