import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { allPieces, piecesOf } from '../unit/frame-logs.ts'
import { BROADCAST, cut, frameOf, idsIn, macOf, quiet, recordOf, until } from './switch-support.ts'
import { OWNERS, SwitchWorld } from './switch-world.ts'

let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())
const at = (peer: string): VirtualSwitch => world.at(peer)
const hexOf = (mac: string): string => mac.replaceAll(':', '')

describe('a network', () => {
  it('floods what is for an address that nobody has been heard under, and learns where it is from the answer', async () => {
    const { a, b, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'x', 1))
    await until(() => b.vm.ids.length === 1 && c.vm.ids.length === 1)
    c.vm.send(frameOf('x', 'a', 2)) // x is behind c
    await until(() => a.vm.ids.length === 1)
    a.vm.send(frameOf('a', 'x', 3))
    await until(() => c.vm.ids.length === 2)
    await quiet()
    expect([a.vm.ids, b.vm.ids, c.vm.ids]).toEqual([[2], [1], [1, 3]])
    expect(at('p1').stats()).toMatchObject({ flooded: 1, droppedUnknown: 0, droppedSpoofed: 0 })
  })

  it('follows an address that moves to another VM, but not the declared one of a NIC', async () => {
    const { a, b, c } = await world.group(OWNERS)
    b.vm.send(frameOf('x', 'a', 1))
    await until(() => a.vm.ids.length === 1)
    c.vm.send(frameOf('x', 'a', 2))
    c.vm.send(frameOf('b', 'a', 3))
    await until(() => at('p2').stats().droppedSpoofed === 1 && a.vm.ids.length === 2)
    a.vm.send(frameOf('a', 'x', 4))
    a.vm.send(frameOf('a', 'b', 5))
    await until(() => b.vm.ids.length === 1 && c.vm.ids.length === 1)
    expect([a.vm.ids, b.vm.ids, c.vm.ids]).toEqual([[1, 2], [5], [4]])
  })

  it('floods no more than a bounded number of frames', async () => {
    world.nowMs = () => 1000
    const { a, b } = await world.group(OWNERS)
    for (let id = 0; id < 1500; id++) a.vm.send(frameOf('a', 'x', id))
    await until(() => at('p1').stats().droppedUnknown === 500)
    await until(() => b.vm.ids.length === 1000)
    world.nowMs = () => 1010
    for (let id = 0; id < 20; id++) a.vm.send(frameOf('a', 'x', id))
    await until(() => at('p1').stats().droppedUnknown === 510)
    expect(at('p1').stats().flooded).toBe(1010)
  })

  it('remembers addresses behind a VM in its image, and says where they are when it runs again', async () => {
    const { a, b, c } = await world.group(OWNERS)
    c.vm.send(frameOf('x', 'a', 1))
    await until(() => a.vm.ids.length === 1)
    await Promise.all([a, b, c].map(({ nic }) => cut(nic, 1)))
    const pieces = await allPieces((await c.nic.recorded(1)).pieces())
    expect(Buffer.concat(pieces).toString('hex')).toContain(hexOf(macOf('x')))
    for (const { nic } of [a, b, c]) await nic.detach()
    // c goes back to the image on the other peer, where nothing has been heard in this generation.
    const moved = { a: 'p2', b: 'p2', c: 'p1' }
    world.setGroup(moved, {}, 2)
    const [a2, c2] = [await world.attach('a', moved, 2, 1), await world.attach('c', moved, 2, 1)]
    const [aVm, cVm] = [await world.connect('a'), await world.connect('c')]
    await a2.release()
    await c2.inject(piecesOf(pieces))
    await c2.release()
    await until(() => aVm.received.length === 1)
    const x = hexOf(macOf('x'))
    const rarp = `ffffffffffff${x}80350001080006040003${x}00000000${x}${'00'.repeat(22)}`
    expect(Buffer.from(aVm.received[0] as Uint8Array).toString('hex')).toBe(rarp)
    aVm.send(frameOf('a', 'x', 2))
    await until(() => cVm.ids.length === 1)
    expect(at('p2').stats().flooded).toBe(0)
  })
})

describe('a VM with several NICs', () => {
  const nics = { a: ['default', 'backup'], b: ['default', 'backup'], c: ['backup'] }

  it('is on several networks, which hear nothing of each other', async () => {
    const { a, b, c } = await world.group(OWNERS, { nics })
    a.vms[0]?.send(frameOf('a', BROADCAST, 1))
    a.vms[1]?.send(frameOf('a1', BROADCAST, 2))
    a.vms[1]?.send(frameOf('a1', 'c', 3)) // c's only NIC is on backup
    c.vm.send(frameOf('c', 'b1', 4))
    await until(() => c.vm.ids.length === 2 && b.vms[1]?.ids.length === 2 && b.vm.ids.length === 1)
    await quiet()
    expect([a.vms, b.vms, c.vms].map(vms => vms.map(vm => vm.ids.toSorted((x, y) => x - y)))).toEqual([
      [[], []],
      [[1], [2, 4]],
      [[2, 3]]
    ])
    a.vms[0]?.send(frameOf('a1', 'b', 5)) // another NIC's address
    a.vms[0]?.send(frameOf('a', 'b', 6))
    await until(() => b.vm.ids.length === 3)
    expect(b.vm.received.slice(1).every(frame => frame.length === 64)).toBe(true)
  })

  it('gets what was in flight back on the NICs it was for', async () => {
    const { a, b, c } = await world.group(OWNERS, { nics })
    await cut(b.nic, 1)
    await b.nic.hold()
    a.vms[0]?.send(frameOf('a', 'b', 1))
    a.vms[1]?.send(frameOf('a1', 'b1', 2))
    c.vm.send(frameOf('c', 'b1', 3))
    await until(() => at('p1').stats().sent === 2 && at('p1').stats().recordedInFlight === 3)
    await Promise.all([cut(a.nic, 1), cut(c.nic, 1)])
    const pieces = await allPieces((await b.nic.recorded(1)).pieces())
    await b.nic.detach()
    world.setGroup(OWNERS, { nics }, 2)
    const again = await world.attach('b', OWNERS, 2, 1)
    const vms = [await world.connect('b'), await world.connect('b', 1)]
    await again.inject(piecesOf(pieces))
    await again.release()
    await until(() => vms[0]?.ids.length === 1 && vms[1]?.ids.length === 2)
    expect(vms.map(vm => vm.ids)).toEqual([[1], [2, 3]])
  })
})

describe('a network of the whole cluster', () => {
  const lan = { nics: { a: ['default', 'shared/lan'], b: ['shared/lan'], c: ['default'] } }
  const shop = { nics: { d: ['shared/lan'], e: ['shared/lan'], f: ['default'] }, group: 'shop' }
  const SHOP = { d: 'p1', e: 'p2', f: 'p1' }

  it('carries frames between groups, here and to other peers, and between VMs of one group with their colours', async () => {
    const { a, b, c } = await world.group(OWNERS, lan)
    const { d, e, f } = await world.group(SHOP, shop)
    a.vms[1]?.send(frameOf('a1', BROADCAST, 1))
    await until(() => [b, d, e].every(({ vm }) => vm.ids.length === 1))
    e.vm.send(frameOf('e', 'b', 2))
    d.vm.send(frameOf('d', 'a1', 3))
    d.vm.send(frameOf('d', 'e', 4))
    await until(() => b.vm.ids.length === 2 && a.vms[1]?.ids.length === 1 && e.vm.ids.length === 2)
    await quiet()
    expect([a.vm.ids, c.vm.ids, f.vm.ids]).toEqual([[], [], []])
    await cut(a.nic, 1)
    a.vms[1]?.send(frameOf('a1', 'e', 5)) // of another group: not early
    a.vms[1]?.send(frameOf('a1', 'b', 6)) // of the same: early
    await until(() => e.vm.ids.length === 3 && at('p1').stats().heldEarly === 1)
    expect(b.vm.ids).toEqual([1, 2])
  })

  it('carries a broadcast to more VMs of other groups than one batch has names for', async () => {
    const { a } = await world.group({ a: 'p1' }, lan)
    const others = Array.from({ length: 140 }, (_, at) => String.fromCharCode(0x74 + at))
    for (const vm of others) world.setGroup({ [vm]: 'p2' }, { nics: { [vm]: ['shared/lan'] }, group: `group-${vm}` })
    const guests = [others[0], others.at(-1)] as string[]
    const vms = await Promise.all(
      guests.map(async vm => {
        const nic = await world.attach(vm, { [vm]: 'p2' }, 1, 0, `group-${vm}`)
        const guest = await world.connect(vm)
        await nic.release()
        return guest
      })
    )
    a.vms[1]?.send(frameOf('a1', BROADCAST, 1))
    await until(() => vms.every(vm => vm.ids.length === 1))
    expect(at('p1').stats()).toMatchObject({ linksBroken: 0 })
  })

  it('has frames of its own VMs in the image of one, and none of other groups', async () => {
    const { a, b, c } = await world.group(OWNERS, lan)
    const { d } = await world.group(SHOP, shop)
    d.vm.send(frameOf('d', 'b', 1))
    a.vms[1]?.send(frameOf('a1', 'b', 2))
    await until(() => b.vm.ids.length === 2)
    await b.nic.hold()
    d.vm.send(frameOf('d', 'b', 3))
    a.vms[1]?.send(frameOf('a1', 'b', 4))
    await until(() => at('p1').stats().waitingMemoryBytes > 2 * 64)
    await b.nic.turn(1)
    await Promise.all([cut(a.nic, 1), cut(c.nic, 1)])
    expect(await idsIn(await b.nic.recorded(1))).toEqual([2, 4])
  })

  it('refuses frames of a generation of their group that is over, and sends none without its lease', async () => {
    const { a } = await world.group(OWNERS, lan)
    const { d, e } = await world.group(SHOP, shop)
    at('p2').setGroup(recordOf(OWNERS, 2, lan))
    a.vms[1]?.send(frameOf('a1', 'e', 1))
    await until(() => at('p2').stats().refusedGeneration === 1)
    world.mayAct = peer => peer !== 'p1'
    a.vms[1]?.send(frameOf('a1', 'e', 2))
    a.vms[1]?.send(frameOf('a1', 'd', 3))
    await until(() => at('p1').stats().heldFenced === 1 && at('p1').stats().droppedFenced === 1)
    await quiet()
    expect([d.vm.ids, e.vm.ids]).toEqual([[], []])
  })

  it('forgets the VMs of a group that is removed', async () => {
    const { a } = await world.group(OWNERS, lan)
    await world.group(SHOP, shop)
    at('p1').removeGroup('shop')
    a.vms[1]?.send(frameOf('a1', 'd', 1))
    await until(() => at('p1').stats().sent > 0)
    expect(at('p1').stats()).toMatchObject({ flooded: 1, sent: 1 }) // to b, which is left
  })
})
