import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { relayArguments, UplinkRelay } from '../../node/hypervisor/uplink-relay.ts'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { clock, memoryLog } from './real-clock.ts'
import { BROADCAST, cut, type FakeVm, frameOf, heard, idsIn, macOf, quiet, recordOf, until } from './switch-support.ts'
import { OWNERS, SwitchWorld } from './switch-world.ts'

const nics = { a: ['default', 'uplink'], b: ['default', 'uplink'], c: ['default', 'uplink'] }

let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())
const at = (peer: string): VirtualSwitch => world.at(peer)
const pathOf = (peer: string): string => join(world.directory, `${peer}.uplink`)
const outside = (peer: string) => world.outside(peer)

/** ARP: who has `target`? Says 10.0.2.15 or the like of itself. */
function whoHas(target: readonly number[], own: readonly number[]): Uint8Array {
  const frame = Buffer.alloc(60)
  const mac = Buffer.from(macOf('a', 1).replaceAll(':', ''), 'hex')
  frame.fill(0xff, 0, 6)
  frame.set([...mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...own, 0, 0, 0, 0, 0, 0, ...target], 6)
  return frame
}

describe('the uplink', () => {
  it('joins the VMs of a host with the outside, and with each other', async () => {
    const { relay, ids } = await outside('p1')
    const { a, b, c } = await world.group(OWNERS, { nics })
    a.vms[1]?.send(frameOf('a1', BROADCAST, 1))
    a.vms[1]?.send(frameOf('a1', 'b1', 2)) // here
    a.vms[1]?.send(frameOf('a1', 'c1', 3)) // on another host: by the way outside
    a.vms[1]?.send(frameOf('a1', 'x', 4))
    a.vm.send(frameOf('a', 'c', 5)) // the group's own network
    await until(() => ids().length === 3 && heard(b.vms[1]).length === 2 && c.vm.ids.length === 1)
    relay.send(frameOf('x', 'a1', 6))
    relay.send(frameOf('x', BROADCAST, 7))
    relay.send(frameOf('x', 'c1', 8))
    relay.send(frameOf('a1', 'b1', 9)) // a loop outside
    await until(() => heard(a.vms[1]).length === 2 && heard(b.vms[1]).length === 3)
    await quiet()
    expect(ids()).toEqual([1, 3, 4])
    expect([a, b, c].map(({ vms }) => vms.map(heard))).toEqual([
      [[], [6, 7]],
      [[], [1, 2, 7]],
      [[5], []]
    ])
    expect(at('p1').stats()).toMatchObject({ uplinkIn: 3 })
  })

  it('knows no cuts: its frames are not counted and not early, though their sender is ahead', async () => {
    const { ids } = await outside('p1')
    const { a, b } = await world.group(OWNERS, { nics })
    expect(await cut(a.nic, 1)).toEqual({})
    a.vms[1]?.send(frameOf('a1', 'b1', 1))
    a.vms[1]?.send(frameOf('a1', 'x', 2))
    await until(() => heard(b.vms[1]).length === 1 && ids().length === 1)
    expect(await cut(a.nic, 2)).toEqual({})
    expect(at('p1').stats()).toMatchObject({ heldEarly: 0 })
  })

  it('is in no image: neither what waits at the cut nor what the VM may not have taken', async () => {
    const { relay } = await outside('p1')
    const { a, b, c } = await world.group(OWNERS, { nics })
    relay.send(frameOf('x', 'a1', 1))
    a.vms[1]?.send(frameOf('a1', 'b1', 2))
    c.vm.send(frameOf('c', 'a', 3)) // the group's own network
    await until(() => [a.vms[1], b.vms[1], a.vm].every(vm => heard(vm).length === 1))
    await a.nic.hold()
    relay.send(frameOf('x', 'a1', 4))
    b.vms[1]?.send(frameOf('b1', 'a1', 5))
    await until(() => at('p1').stats().waitingMemoryBytes > 2 * 64)
    await a.nic.turn(1)
    await Promise.all([cut(b.nic, 1), cut(c.nic, 1)])
    expect(await idsIn(await a.nic.recorded(1))).toEqual([3])
    expect(at('p1').stats()).toMatchObject({ recordedInFlight: 0, recordedRecent: 1 })
    await a.nic.release()
    await until(() => heard(a.vms[1]).length === 3)
    expect(heard(a.vms[1])).toEqual([1, 4, 5])
  })

  it("is told where a VM's address is now, when the VM runs there", async () => {
    const { announced } = await outside('p1')
    const { a } = await world.group(OWNERS, { nics })
    await until(() => announced().length === 2)
    expect(announced()).toEqual([macOf('a', 1), macOf('b', 1)])
    await a.nic.hold()
    await a.nic.release()
    await quiet()
    expect(announced().length).toBe(2)
  })

  it('hears nothing from a peer without the lease, and everything when that is regained', async () => {
    const { ids } = await outside('p1')
    const { a, b } = await world.group(OWNERS, { nics })
    await quiet()
    world.mayAct = (_, generation) => generation > 1
    for (const id of [1, 2]) a.vms[1]?.send(frameOf('a1', 'x', id))
    a.vms[1]?.send(frameOf('a1', 'b1', 3))
    await until(() => at('p1').stats().droppedFenced === 1)
    await quiet()
    expect(ids()).toEqual([])
    world.mayAct = () => true
    await until(() => ids().length === 2)
    world.mayAct = (_, generation) => generation > 1
    a.vms[1]?.send(frameOf('a1', 'x', 4))
    await quiet()
    at('p1').setGroup(recordOf(OWNERS, 2, { nics }))
    b.vms[1]?.send(frameOf('b1', 'x', 5))
    await until(() => at('p1').stats().droppedFenced === 2 && at('p1').stats().refusedGeneration === 1)
    expect(ids()).toEqual([1, 2])
  })
})

describe('the relay to the outside', () => {
  it('in user mode answers for the gateway, and is started again when it ends', async () => {
    await at('p1').openUplink(pathOf('p1'))
    world.atEnd(() => at('p1').closeUplink())
    const log = memoryLog()
    const relay = new UplinkRelay({
      program: 'qemu-system-x86_64',
      peer: `test-${process.pid}`,
      kind: 'user',
      socketPath: pathOf('p1'),
      clock,
      log
    })
    relay.start()
    world.atEnd(() => relay.stop())
    const { a } = await world.group({ a: 'p1' }, { nics })
    const nic = a.vms[1] as FakeVm
    const asking = setInterval(() => nic.send(whoHas([10, 0, 2, 2], [10, 0, 2, 15])), 50)
    world.atEnd(() => clearInterval(asking))
    const answers = (): number => nic.received.filter(frame => Buffer.from(frame).readUInt16BE(20) === 2).length
    await until(() => answers() > 0)
    const started = log.lines.find(line => line.message === 'the uplink is there')?.fields
    process.kill((started as { pid: number }).pid, 'SIGKILL')
    const before = answers()
    await until(() => answers() > before + 1)
    expect(log.lines.filter(line => line.level === 'error').length).toBe(1)
  })

  it('warns of a TAP device that is not there, with the command that puts it on a bridge', async () => {
    const log = memoryLog()
    const warned = async (kind: string): Promise<string[]> => {
      const options = { program: 'false', peer: `test-${process.pid}`, socketPath: pathOf('p1'), clock }
      const relay = new UplinkRelay({ ...options, kind, log })
      relay.start()
      world.atEnd(() => relay.stop())
      const failed = log.lines.filter(({ level }) => level === 'error').length
      await until(() => log.lines.filter(({ level }) => level === 'error').length > failed)
      relay.stop()
      return log.lines.filter(({ level }) => level === 'warn').map(({ message }) => message)
    }
    expect(await warned('user')).toEqual([])
    expect(await warned('tap:lo')).toEqual([]) // a device, if no TAP
    expect(await warned('tap:dp-nobody')).toEqual([
      expect.stringContaining('as root: ip link set dp-nobody master BRIDGE up')
    ])
  })

  it('on a TAP device reaches what the host has there', async () => {
    await at('p1').openUplink(pathOf('p1'))
    world.atEnd(() => at('p1').closeUplink())
    // In a network of its own, where the device may be made; the socket is a file, and reaches there.
    const args = relayArguments({ peer: `test-${process.pid}`, kind: 'tap:up0', socketPath: pathOf('p1') })
    const script =
      'ip tuntap add up0 mode tap && ip addr add 10.77.0.1/24 dev up0 && ip link set up0 up && exec "$0" "$@"'
    const host: ChildProcess = spawn(
      'unshare',
      ['--user', '--map-root-user', '--net', '--kill-child', 'sh', '-c', script, 'qemu-system-x86_64', ...args],
      { stdio: ['ignore', 'ignore', 'inherit'] }
    )
    world.atEnd(() => host.kill('SIGKILL'))
    const { a } = await world.group({ a: 'p1' }, { nics })
    const nic = a.vms[1] as FakeVm
    const asking = setInterval(() => nic.send(whoHas([10, 77, 0, 1], [10, 77, 0, 9])), 50)
    world.atEnd(() => clearInterval(asking))
    await until(() => nic.received.some(frame => Buffer.from(frame).readUInt16BE(20) === 2))
    const answer = nic.received.find(frame => Buffer.from(frame).readUInt16BE(20) === 2) as Uint8Array
    expect([...answer.subarray(28, 32)]).toEqual([10, 77, 0, 1])
  })
})
