/** A peer's own switch and a bridge as one: two peers, fake VMs at their NICs, and pretended bridges between them. */
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { GroupRecord } from '../../protocols/group.ts'
import type { NicPort } from '../../node/ports.ts'
import { JoinedSwitch } from '../../node/switch/openflow/joined-switch.ts'
import type { Tap } from '../../node/switch/openflow/taps.ts'
import { toPacket } from '../../node/switch/ethernet.ts'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { clock, memoryLog } from '../contract/real-clock.ts'
import { cut, type FakeVm, frameOf, heard, idOf, quiet, recordOf, until } from '../contract/switch-support.ts'
import { OWNERS, SwitchWorld } from '../contract/switch-world.ts'
import { allPieces, piecesOf } from './frame-logs.ts'
import { PretendedSwitch } from './openflow-switch.ts'

const WAY = 'eth1'
/** The first NIC is on a network of the group's own, the second is not. */
const NICS = { a: ['default', 'shared/street'], b: ['default', 'shared/street'], c: ['default', 'shared/street'] }
type Vm = keyof typeof OWNERS

describe('a switch with a bridge', () => {
  let world: SwitchWorld
  let bridges: Record<string, PretendedSwitch>
  let owns: Record<string, VirtualSwitch>
  let joined: Record<string, JoinedSwitch>
  let nics: Record<Vm, NicPort>
  /** VM → numbers of the frames that came out of its TAP device. */
  let tapped: Record<string, number[]>
  let findControl: (path: string) => Promise<string>
  let nameOf: (peer: string) => string | undefined
  const log = memoryLog()
  const leases = new Map<string, (key: string, generation: number) => void>()

  beforeEach(async () => {
    world = await SwitchWorld.open({ bridged: true })
    owns = { p1: world.at('p1'), p2: world.at('p2') }
    tapped = { a: [], b: [], c: [] }
    findControl = path => Promise.resolve(path)
    nameOf = peer => peer
    bridges = { p1: pretended('p1', 'p2'), p2: pretended('p2', 'p1') }
    joined = { p1: await open('p1'), p2: await open('p2') }
    for (const [peer, each] of Object.entries(joined)) world.use(peer, each)
  })

  afterEach(async () => {
    await world.close()
    for (const each of Object.values(joined)) each.close()
    for (const each of Object.values(bridges)) each.close()
  })

  function pretended(peer: string, other: string): PretendedSwitch {
    const made: PretendedSwitch = new PretendedSwitch(join(world.directory, `${peer}.br`), (port, frame) => {
      const name = made.nameOf(port)
      if (name === WAY) bridges[other]?.arrive(bridges[other].ports.get(WAY) ?? 0, frame)
      else if (name !== undefined) tapped[name.split('-')[1] ?? '']?.push(idOf(frame))
    })
    made.ports.set(WAY, 90)
    return made
  }

  async function open(self: string, towards: string | Record<string, string> = WAY): Promise<JoinedSwitch> {
    const bridge = bridges[self] as PretendedSwitch
    await bridge.listen()
    const address = join(world.directory, `${self}.br`)
    let made = 0
    const taps = {
      make: async ({ vm, nics: count }: { vm: string; nics: number }): Promise<Tap[]> =>
        Array.from({ length: count }, () => {
          const [device, interfaceIndex] = [`tap-${vm}-${++made}`, made]
          bridge.ports.set(device, interfaceIndex)
          return { device, interfaceIndex }
        }),
      remove: async (devices: readonly string[]) => {
        for (const device of devices) bridge.ports.delete(device)
      }
    }
    const own = owns[self] as VirtualSwitch
    const packetQueues = () => Promise.resolve(bridge.packetQueues)
    const control = () => findControl(`${address}.ctl`)
    const parts = { address, control, clock, log, keeper: () => own.keeper(), packetQueues }
    return await JoinedSwitch.open({ self, own, bridge: parts, taps, log, towards, nameOf: peer => nameOf(peer) })
  }

  const record = (generation: number, news: Partial<GroupRecord> = {}): GroupRecord =>
    recordOf(OWNERS, generation, { nics: NICS, news: { openFlow: true, ...news } })

  async function attachAll(generation: number, epoch: number): Promise<void> {
    const attached = async (vm: Vm) => [vm, await world.attach(vm, OWNERS, generation, epoch)] as const
    nics = Object.fromEntries(await Promise.all([attached('a'), attached('b'), attached('c')])) as typeof nics
  }

  /** All VMs run. The sockets of their second NICs. */
  async function begin(): Promise<Record<Vm, FakeVm>> {
    for (const each of Object.values(joined)) each.setGroup(record(1))
    await attachAll(1, 0)
    const vms = { a: await world.connect('a', 1), b: await world.connect('b', 1), c: await world.connect('c', 1) }
    for (const nic of Object.values(nics)) await nic.release()
    return vms
  }

  /** Out of the VM's TAP device. */
  function say(vm: Vm, to: Vm, id: number): void {
    const bridge = bridges[OWNERS[vm]]
    const device = (nics[vm].ends[0] as { device: string }).device
    const frame = Buffer.from(frameOf(vm, to, id))
    frame.writeUInt16BE(0x0800, 12) // its own type is that of markers
    bridge?.arrive(bridge.ports.get(device) ?? 0, frame)
  }

  /** Bridges and peers have done what there is. */
  async function settled(what: () => boolean): Promise<void> {
    const step = async (): Promise<void> => {
      while (Object.values(bridges).some(each => each.step()));
      await setImmediate()
    }
    for (let turns = 0; turns < 5_000 && !what(); turns++) await step()
    for (let turns = 0; turns < 20; turns++) await step()
    expect(what()).toBe(true)
  }

  it("plugs each NIC in where its network is, in the guest's order", async () => {
    await begin()
    expect(nics.a.ends).toEqual([
      { kind: 'tap', device: expect.stringMatching(/^tap-a-/) as string },
      { kind: 'stream', path: `${world.pathOf('a')}1` }
    ])
    joined.p1?.setGroup(recordOf({ d: 'p1' }, 1, { group: 'shop', nics: { d: ['default', 'shared/street'] } }))
    const plain = await world.attach('d', { d: 'p1' }, 1, 0, 'shop')
    expect(plain.ends.map(({ kind }) => kind)).toEqual(['stream', 'stream'])
    expect([...(bridges.p1?.ports.keys() ?? [])].filter(name => name.startsWith('tap-d'))).toEqual([])
  })

  it("lets frames on the group's own network pass the bridge alone, and forwards the others itself", async () => {
    const vms = await begin()
    say('a', 'c', 1)
    say('a', 'b', 2)
    vms.a.send(frameOf('a1', 'c1', 3))
    await settled(() => tapped.c?.length === 1 && tapped.b?.length === 1 && heard(vms.c).length === 1)
    expect([tapped.c, tapped.b, heard(vms.c)]).toEqual([[1], [2], [3]])
    expect(joined.p1?.stats().sent).toBe(1)
  })

  it('has in one image what was in flight on both, and gives each its own where it is resumed', async () => {
    const vms = await begin()
    await cut(nics.b, 1)
    say('a', 'b', 1)
    vms.a.send(frameOf('a1', 'b1', 2))
    await settled(() => tapped.b?.length === 1 && heard(vms.b).length === 1)
    await Promise.all([cut(nics.a, 1), cut(nics.c, 1)])
    await settled(() => true)
    const image = await nics.b.recorded(1)
    expect(image.frames).toBe(2)
    const pieces = await allPieces(image.pieces())
    expect(pieces.reduce((sum, { length }) => sum + length, 0)).toBe(image.bytes)

    for (const nic of Object.values(nics)) await nic.detach()
    for (const each of Object.values(joined)) each.setGroup(record(2))
    tapped.b = []
    await attachAll(2, 1)
    const again = await world.connect('b', 1)
    await nics.b.inject(piecesOf(pieces))
    await nics.b.release()
    await settled(() => tapped.b?.length === 1 && heard(again).length === 1)
    expect([tapped.b, heard(again)]).toEqual([[1], [2]])

    // The same image where the group is on the peers' own path.
    await nics.b.detach()
    for (const each of Object.values(joined)) each.setGroup(record(3, { openFlow: false }))
    const own = await world.attach('b', OWNERS, 3, 1)
    const cards = [await world.connect('b'), await world.connect('b', 1)]
    await own.inject(piecesOf(pieces))
    await own.release()
    await until(() => cards.every(card => heard(card).length === 1))
    expect(cards.map(heard)).toEqual([[1], [2]])
  })

  describe('without room for the frames of an image', () => {
    /** Gives the room back. */
    function takeAllRoom(): () => void {
      const keeper = owns.p1?.keeper()
      let taken = 0
      for (let bytes = 1 << 20; bytes >= 1; bytes /= 2) while (keeper?.reserve(bytes) === true) taken += bytes
      return () => keeper?.release(taken)
    }
    /** The first frame is the bridge's, the second one the own switch's. */
    function image(): AsyncGenerator<Uint8Array> {
      const [first, second] = [toPacket(frameOf('a', 'b', 1)), toPacket(frameOf('a1', 'b1', 2))]
      second[0] = 1
      return piecesOf([Buffer.concat([first, second])])
    }

    it('lets them wait until there is, whichever way they go', async () => {
      const vms = await begin()
      await nics.b.hold()
      const giveBack = takeAllRoom()
      let injected = false
      const injecting = nics.b.inject(image()).then(() => {
        injected = true
      })
      await quiet()
      expect(injected).toBe(false)
      giveBack()
      await injecting
      await nics.b.release()
      await settled(() => tapped.b?.length === 1 && heard(vms.b).length === 1)
      expect([tapped.b, heard(vms.b)]).toEqual([[1], [2]])
    })

    it('lets them wait for no VM that is gone', async () => {
      await begin()
      await nics.b.hold()
      const giveBack = takeAllRoom()
      const injecting = nics.b.inject(image())
      injecting.catch(() => {}) // it is awaited below
      await quiet()
      await nics.b.detach()
      await expect(injecting).rejects.toMatchObject({ code: 'NIC_DETACHED' })
      giveBack()
    })
  })

  it('asks for the cut of a VM for which a frame of a newer colour has come, on either', async () => {
    const asked: string[] = []
    joined.p2?.onMarker((_, vm, epoch) => asked.push(`${vm} ${epoch}`))
    await begin()
    await cut(nics.a, 1)
    say('a', 'c', 1)
    await settled(() => asked.length >= 1)
    expect(new Set(asked)).toEqual(new Set(['c 1']))
    expect(tapped.c).toEqual([])
    await nics.c.abandon(1)
    await settled(() => tapped.c?.length === 1)
  })

  it('lets nothing of a group pass while its lease has lapsed', async () => {
    await begin()
    joined.p1?.follow({
      onLapse: handler => void leases.set('lapse', handler),
      onRegained: handler => void leases.set('regained', handler),
      onLost: () => {}
    })
    leases.get('lapse')?.('group/bank', 0) // of a generation that is over
    leases.get('lapse')?.('group/other', 1)
    await settled(() => true)
    say('a', 'c', 1)
    await settled(() => tapped.c?.length === 1)
    leases.get('lapse')?.('group/bank', 1)
    await settled(() => true)
    say('a', 'c', 2)
    say('c', 'a', 3)
    await settled(() => true)
    expect([tapped.c, tapped.a]).toEqual([[1], []])
    leases.get('regained')?.('group/bank', 1)
    await settled(() => tapped.a?.length === 1)
    say('a', 'c', 4)
    await settled(() => tapped.c?.length === 2)
    expect([tapped.c, tapped.a]).toEqual([[1, 4], [3]])
  })

  it('leaves no device and no NIC behind where a VM cannot be attached, or is detached', async () => {
    const ports = () => [...(bridges.p1?.ports.keys() ?? [])]
    for (const each of Object.values(joined)) each.setGroup(record(1))
    const late = world.attach('a', OWNERS)
    joined.p1?.setGroup(record(2)) // while the device is being made
    await expect(late).rejects.toMatchObject({ code: 'GENERATION_OLD' })
    expect(ports()).toEqual([WAY])
    bridges.p1?.close()
    await expect(world.attach('a', OWNERS, 2)).rejects.toMatchObject({ code: 'OPENFLOW_DOWN' })
    expect(ports()).toEqual([WAY])
    await bridges.p1?.listen()
    await until(() => joined.p1?.connected === true)
    const nic = await world.attach('a', OWNERS, 2)
    expect(ports().length).toBe(2)
    await Promise.all([nic.detach(), nic.detach()])
    expect(ports()).toEqual([WAY])
  })

  it('looks for the control socket at each attempt to reach a bridge that is gone, and tells once why one fails', async () => {
    await begin()
    let attempts = 0
    findControl = () => {
      attempts++
      return Promise.reject(new Error('no pid file'))
    }
    bridges.p1?.close()
    await bridges.p1?.listen()
    await until(() => attempts >= 3)
    expect(joined.p1?.connected).toBe(false)
    const told = log.lines.filter(({ fields }) => 'error' in fields && fields.error === 'no pid file')
    expect(told.map(({ level }) => level)).toEqual(['warn'])
    findControl = path => Promise.resolve(path)
    await until(() => joined.p1?.connected === true)
    say('a', 'c', 1)
    await settled(() => tapped.c?.length === 1)
  })

  it('takes a group off the bridge when it is removed', async () => {
    await begin()
    joined.p2?.removeGroup('bank')
    await settled(() => true)
    say('a', 'c', 1)
    await settled(() => true)
    expect(tapped.c).toEqual([])
  })

  it('finds the way to a member whose name it learns after its VMs', async () => {
    joined.p1?.close()
    bridges.p1?.close()
    joined.p1 = await open('p1', { p2: WAY })
    world.use('p1', joined.p1)
    nameOf = () => undefined
    const said = log.lines.filter(({ level }) => level === 'error').length
    await begin()
    say('a', 'c', 1)
    await settled(() => true)
    expect(tapped.c).toEqual([])
    nameOf = peer => peer
    joined.p1.refresh()
    await settled(() => true)
    say('a', 'c', 2)
    await settled(() => tapped.c?.length === 1)
    expect(tapped.c).toEqual([2])
    expect(log.lines.filter(({ level }) => level === 'error').length).toBe(said)
  })

  it('has no way to a member that its table of ways does not name, and says so', async () => {
    joined.p1?.close()
    bridges.p1?.close()
    joined.p1 = await open('p1', { p3: WAY })
    world.use('p1', joined.p1)
    await begin()
    expect(log.lines).toContainEqual(
      expect.objectContaining({ level: 'error', fields: expect.objectContaining({ peer: 'p2' }) })
    )
    say('a', 'b', 1)
    say('a', 'c', 2)
    await settled(() => tapped.b?.length === 1)
    expect(tapped.c).toEqual([])
    for (let i = 0; i < 100; i++) joined.p1.refresh()
    const noWay = log.lines.map(({ fields }) => fields as { code?: string; count: number })
    expect(noWay.filter(({ code }) => code === 'OPENFLOW_TOWARDS').map(({ count }) => count)).toEqual([
      1, 2, 4, 8, 16, 32, 64
    ])
  })

  it('says so of each group, also of one that is made again under its name', async () => {
    joined.p1?.close()
    bridges.p1?.close()
    joined.p1 = await open('p1', { p3: WAY })
    world.use('p1', joined.p1)
    const before = log.lines.length
    for (let i = 0; i < 2; i++) {
      for (const id of ['one', 'other']) joined.p1.setGroup(record(1, { id }))
      for (let again = 0; again < 5; again++) joined.p1.refresh()
      joined.p1.removeGroup('other')
    }
    const said = log.lines
      .slice(before)
      .map(({ fields }) => fields as { code?: string; group: string; name: string; count: number })
      .filter(({ code }) => code === 'OPENFLOW_TOWARDS')
    const countsOf = (id: string): number[] => said.filter(({ group }) => group === id).map(({ count }) => count)
    expect(countsOf('one')).toEqual([1, 2, 4, 8])
    expect(countsOf('other')).toEqual([1, 2, 4, 1, 2, 4])
    expect(new Set(said.map(({ name }) => name))).toEqual(new Set(['p2']))
  })
})

describe('a switch without a bridge', () => {
  it('runs no VM of a group that wants one', async () => {
    const world = await SwitchWorld.open()
    try {
      world.setGroup(OWNERS, { news: { openFlow: true } })
      await expect(world.attach('a', OWNERS)).rejects.toMatchObject({ code: 'OPENFLOW_UNSET' })
    } finally {
      await world.close()
    }
  })
})
