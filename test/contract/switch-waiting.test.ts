import { once } from 'node:events'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { FakeVm, frameOf, until } from './switch-support.ts'
import { SwitchWorld } from './switch-world.ts'

/** All on one peer. */
const OWNERS = { a: 'p1', b: 'p1' }
let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())

async function reserved(name: string) {
  const nicPath = join(world.directory, name)
  const sockets = await world.at('p1').reserve?.(nicPath, 1)
  expect(sockets?.ends).toEqual([{ kind: 'stream', path: nicPath }])
  const vm = await FakeVm.connect('a', nicPath)
  world.atEnd(() => vm.close())
  return { nicPath, sockets, vm }
}

it('a NIC that was connected before its VM is attached gets its frames, beside that of the generation before', async () => {
  const { a, b } = await world.group(OWNERS)
  const waiting = await reserved('a.waiting')
  a.vm.send(frameOf('a', 'b', 1))
  await until(() => b.vm.ids.length === 1)
  world.setGroup(OWNERS, {}, 2)
  await Promise.all([a.nic.detach(), b.nic.detach()])
  const again = await world.attach('b', OWNERS, 2)
  const other = await world.connect('b')
  const { nicPath } = waiting
  const nic = await world.at('p1').attach({ group: 'bank', vm: 'a', generation: 2, epoch: 0, nicPath })
  expect(nic.ends).toEqual([{ kind: 'stream', path: nicPath }])
  await Promise.all([again.release(), nic.release()])
  waiting.vm.send(frameOf('a', 'b', 2))
  other.send(frameOf('b', 'a', 3))
  await until(() => other.ids.includes(2) && waiting.vm.ids.includes(3))
  await waiting.sockets?.close() // of no effect by now
  await nic.drained()
  other.send(frameOf('b', 'a', 4))
  await until(() => waiting.vm.ids.includes(4))
  const closed = once(waiting.vm.socket, 'close')
  await nic.detach()
  await closed
})

it('a NIC that nobody attaches is closed with its reservation', async () => {
  const { sockets, vm } = await reserved('a.waiting')
  const closed = once(vm.socket, 'close')
  await sockets?.close()
  await closed
  await expect(FakeVm.connect('a', join(world.directory, 'a.waiting'))).rejects.toThrow()
})
