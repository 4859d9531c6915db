/** The networks of a drill: VMs with the names and addresses of live ones speak with each other, and with nobody else. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { switchOfItsOwn } from '../../node/composition/drilling.ts'
import { nicPathOf } from '../../protocols/group.ts'
import { clock, quietLog } from './real-clock.ts'
import { announcedTo, BROADCAST, FakeVm, frameOf, heard, quiet, recordOf, until } from './switch-support.ts'
import { SwitchWorld } from './switch-world.ts'

const networks = ['default', 'shared/office', 'uplink']
const owners = { a: 'p1', b: 'p1' }
const nics = { a: networks, b: networks }

let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())

/** The same group once more, on a switch of a drill. */
async function drilled(): Promise<Record<'a' | 'b', readonly FakeVm[]>> {
  const folder = join(world.directory, 'drill')
  await mkdir(folder)
  const network = switchOfItsOwn({ self: 'p1', clock, log: quietLog })
  network.setGroup(recordOf(owners, 1, { nics }))
  const made = { a: [] as FakeVm[], b: [] as FakeVm[] }
  for (const vm of ['a', 'b'] as const) {
    const nicPath = join(folder, vm)
    const nic = await network.attach({ group: 'bank', vm, generation: 1, epoch: 0, nicPath })
    world.atEnd(() => nic.detach())
    for (const card of networks.keys()) {
      const fake = await FakeVm.connect(vm, nicPathOf(nicPath, card))
      world.atEnd(() => fake.close())
      made[vm].push(fake)
    }
    await nic.release()
  }
  return made
}

test('no frame of a drill reaches live VMs, shared networks or the outside, and none of theirs reaches it', async () => {
  const outside = await world.outside('p1')
  const live = await world.group(owners, { nics })
  const other = await world.group({ x: 'p1' }, { group: 'shop', nics: { x: ['shared/office'] } })
  const announced = [...outside.announced(), ...announcedTo(other.x.vm)]
  const drill = await drilled()
  for (const [card, from] of drill.a.entries()) {
    const to = card === 0 ? 'b' : `b${card}`
    const own = card === 0 ? 'a' : `a${card}`
    from.send(frameOf(own, BROADCAST, 10 + card))
    from.send(frameOf(own, to, 20 + card))
    from.send(frameOf(own, 'x', 30 + card))
    live.a.vms[card]?.send(frameOf(own, BROADCAST, 40 + card))
    live.a.vms[card]?.send(frameOf(own, to, 50 + card))
  }
  await until(() => drill.b.every((vm, card) => heard(vm).includes(20 + card)))
  await until(() => live.b.vms.every((vm, card) => heard(vm).includes(50 + card)))
  await quiet()
  const ids = [...live.a.vms, ...live.b.vms, other.x.vm].flatMap(heard)
  expect([...ids, ...outside.ids()].filter(id => id < 40)).toEqual([])
  expect([...drill.a, ...drill.b].flatMap(heard).filter(id => id >= 40)).toEqual([])
  // Nor is it told where the drill's VMs are.
  expect([...outside.announced(), ...announcedTo(other.x.vm)]).toEqual(announced)
})
