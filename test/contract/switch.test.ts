import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { BatchWriter } from '../../protocols/frames/records.ts'
import { BROADCAST, cut, frameOf, idsIn, pieceOf, quiet, recordOf, until } from './switch-support.ts'
import { OWNERS, SwitchWorld } from './switch-world.ts'

let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())
const at = (peer: string): VirtualSwitch => world.at(peer)

describe('a switch', () => {
  it('carries unicast to its VM only, on this peer and on another', async () => {
    const { a, b, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'b', 1))
    a.vm.send(frameOf('a', 'c', 2))
    await until(() => b.vm.ids.length === 1 && c.vm.ids.length === 1)
    expect([a.vm.ids, b.vm.ids, c.vm.ids]).toEqual([[], [1], [2]])
    expect(Buffer.from(c.vm.received[0] as Uint8Array).equals(frameOf('a', 'c', 2))).toBe(true)
  })

  it('carries broadcast to all others of the group', async () => {
    const { a, b, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', BROADCAST, 1))
    await until(() => b.vm.ids.length === 1 && c.vm.ids.length === 1)
    expect([a.vm.ids, b.vm.ids, c.vm.ids]).toEqual([[], [1], [1]])
  })

  it("drops and counts frames under another VM's address, and frames that are too short", async () => {
    const { a, b } = await world.group(OWNERS)
    a.vm.send(frameOf('c', 'b', 2))
    a.vm.send(frameOf(BROADCAST, 'b', 3))
    a.vm.send(frameOf('a', 'b', 3, 18).subarray(0, 13))
    a.vm.send(frameOf('a', 'a', 4))
    a.vm.send(frameOf('a', 'b', 5))
    await until(() => b.vm.ids.length > 0)
    expect(b.vm.ids).toEqual([5])
    expect(at('p1').stats()).toMatchObject({ droppedUnknown: 1, droppedSpoofed: 3, delivered: 1 })
  })

  it('carries frames of every size up to the largest', async () => {
    const { a, c } = await world.group(OWNERS)
    for (const bytes of [64, 1514, 9014, 65_550]) a.vm.send(frameOf('a', 'c', bytes, bytes))
    await until(() => c.vm.ids.length === 4)
    expect(c.vm.received.map(frame => frame.length)).toEqual([64, 1514, 9014, 65_550])
  })

  it('closes a NIC whose stream makes no sense, and says so', async () => {
    const { a } = await world.group(OWNERS)
    a.vm.socket.write(Buffer.from('ffffffff00', 'hex'))
    await until(() => a.vm.socket.destroyed)
    expect(at('p1').stats().linksBroken).toBe(1)
  })

  it('holds frames for a VM until its release, injected ones first', async () => {
    world.setGroup(OWNERS)
    const a = await world.attach('a', OWNERS)
    const sender = await world.connect('a')
    await a.release()
    sender.send(frameOf('a', 'c', 1)) // c is not even attached
    await quiet()
    const c = await world.attach('c', OWNERS)
    const receiver = await world.connect('c')
    sender.send(frameOf('a', 'c', 2))
    await quiet()
    expect(receiver.ids).toEqual([])
    await c.inject(pieceOf(frameOf('b', 'c', 8), frameOf('b', 'c', 9)))
    await c.release()
    await until(() => receiver.ids.length === 4)
    expect(receiver.ids).toEqual([8, 9, 1, 2])
  })

  it('keeps frames for a VM that does not read, and delivers all when it does', async () => {
    const { a, b } = await world.group(OWNERS)
    b.vm.socket.pause()
    for (let id = 0; id < 1000; id++) a.vm.send(frameOf('a', 'b', id, 1500))
    await until(() => at('p1').stats().sent === 1000)
    expect(at('p1').stats().delivered).toBeLessThan(1000)
    b.vm.socket.resume()
    await until(() => b.vm.ids.length === 1000)
    expect(b.vm.ids).toEqual(Array.from({ length: 1000 }, (_, id) => id))
  })
})

describe('a cut', () => {
  it('counts every frame that the VM has sent before it stopped', async () => {
    const { a } = await world.group(OWNERS)
    for (let id = 0; id < 500; id++) a.vm.send(frameOf('a', id % 2 === 0 ? 'b' : 'c', id, 1500))
    await new Promise(resolve => a.vm.socket.write('', resolve)) // all of it is in the socket
    expect(await cut(a.nic, 1)).toEqual({ b: 250, c: 250 })
  })

  it('waits for the rest of a split frame, and fails where it does not come', async () => {
    world.nowMs = () => 1000
    const { a, b } = await world.group(OWNERS)
    const packet = Buffer.concat([Buffer.from('00000040', 'hex'), frameOf('a', 'b', 7)])
    a.vm.socket.write(packet.subarray(0, 30))
    await quiet()
    const drained = a.nic.drained()
    await quiet()
    a.vm.socket.write(packet.subarray(30))
    await drained
    expect(await a.nic.turn(1)).toEqual({ b: 1 })
    await b.nic.abandon(1)
    a.vm.socket.write(packet.subarray(0, 30))
    await quiet()
    const clockReads = [1000, 1021]
    world.nowMs = () => clockReads.shift() ?? 1021
    await expect(a.nic.drained()).rejects.toMatchObject({ code: 'NIC_NOT_DRAINED' })
  })

  it('reaches the others by turn records alone, with no frame and no message', async () => {
    const { a } = await world.group(OWNERS)
    const markers: string[] = []
    for (const peer of ['p1', 'p2']) at(peer).onMarker((id, vm, epoch) => markers.push(`${peer} ${id} ${vm} ${epoch}`))
    await cut(a.nic, 1)
    await until(() => markers.length === 2)
    expect(markers.toSorted()).toEqual(['p1 bank b 1', 'p2 bank c 1'])
  })

  it('is complete when all turn records have come, and holds what was in flight', async () => {
    const { a, b, c } = await world.group(OWNERS)
    await cut(c.nic, 1)
    a.vm.send(frameOf('a', 'c', 1)) // a has not been cut: in flight
    c.vm.send(frameOf('c', 'a', 2)) // c has been: early
    await until(() => c.vm.ids.length === 1 && at('p1').stats().heldEarly === 1)
    expect(a.vm.ids).toEqual([])
    await Promise.all([cut(a.nic, 1), cut(b.nic, 1)])
    expect(await idsIn(await c.nic.recorded(1))).toEqual([1])
    expect(await idsIn(await a.nic.recorded(1))).toEqual([])
    expect(await idsIn(await b.nic.recorded(1))).toEqual([])
    await until(() => a.vm.ids.length === 1)
    expect(at('p2').stats().recordedInFlight).toBe(1)
  })

  it('is complete by counts where the turn record is lost', async () => {
    const { a, b, c } = await world.group(OWNERS)
    world.network.setConnected('p1', 'p2', false)
    const counts = { a: await cut(a.nic, 1), b: await cut(b.nic, 1) }
    await cut(c.nic, 1)
    c.nic.expect(1, 'a', counts.a)
    c.nic.expect(1, 'b', counts.b)
    expect(await idsIn(await c.nic.recorded(1))).toEqual([])
  })

  it('is complete after a new connection, without the frames that the old one lost', async () => {
    const { a, b, c } = await world.group(OWNERS)
    world.network.setConnected('p1', 'p2', false)
    a.vm.send(frameOf('a', 'c', 1))
    await until(() => at('p1').stats().droppedUnsent === 1)
    for (const { nic } of [a, b, c]) await cut(nic, 1)
    world.network.setConnected('p1', 'p2', true)
    for (const { nic } of [a, b, c]) expect(await idsIn(await nic.recorded(1))).toEqual([])
    expect(at('p2').stats().lost).toBe(1)
  })

  it('says its turn again where the transport had no room for it', async () => {
    const { a, b, c } = await world.group(OWNERS)
    world.network.hasRoom = () => false
    for (const { nic } of [a, b, c]) await cut(nic, 1)
    await quiet()
    world.network.hasRoom = () => true
    for (const { nic } of [a, b, c]) expect(await idsIn(await nic.recorded(1))).toEqual([])
  })

  it('keeps the last frames given to the VM, which it may not have taken, and no older ones', async () => {
    world.nowMs = () => 1000
    const { a, b, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'b', 0))
    await until(() => b.vm.ids.length === 1)
    world.nowMs = () => 1101
    a.vm.send(frameOf('a', 'b', 1))
    await until(() => at('p1').stats().delivered === 2)
    await b.nic.hold()
    world.nowMs = () => 2000 // however long the VM takes to stop
    a.vm.send(frameOf('a', 'b', 2))
    await until(() => at('p1').stats().sent === 3)
    await b.nic.turn(1)
    await Promise.all([cut(a.nic, 1), cut(c.nic, 1)])
    expect(await idsIn(await b.nic.recorded(1))).toEqual([1, 2])
    expect(at('p1').stats()).toMatchObject({ recordedRecent: 1, recordedInFlight: 1 })
  })

  it('keeps what was given to the VM right before it was paused, however long that was', async () => {
    world.nowMs = () => 1000
    const { a, b, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'b', 1))
    await until(() => b.vm.ids.length === 1)
    await b.nic.hold()
    world.nowMs = () => 9000
    await b.nic.release()
    world.nowMs = () => 9100
    await Promise.all([cut(a.nic, 1), cut(b.nic, 1), cut(c.nic, 1)])
    expect(await idsIn(await b.nic.recorded(1))).toEqual([1])
  })

  it('keeps all that a VM has not taken which reads slowly, however long ago that was written', async () => {
    const { a, b, c } = await world.group(OWNERS)
    const frames = 1500 // of 1,500 bytes: more than socket, QEMU and this process hold
    b.vm.socket.pause()
    for (let id = 1; id <= frames; id++) a.vm.send(frameOf('a', 'b', id, 1500))
    await until(() => at('p1').stats().sent === frames)
    b.vm.socket.resume()
    await until(() => b.vm.ids.length > 700)
    b.vm.socket.pause()
    const taken = b.vm.ids.length
    world.nowMs = () => performance.now() + 3_600_000
    await quiet()
    await b.nic.hold()
    await b.nic.turn(1)
    await Promise.all([cut(a.nic, 1), cut(c.nic, 1)])
    const recorded = await idsIn(await b.nic.recorded(1))
    const missing = Array.from({ length: frames - taken }, (_, at) => taken + 1 + at).filter(
      id => !recorded.includes(id)
    )
    expect(missing).toEqual([])
    expect(recorded.length).toBeLessThan(frames)
  })

  it('that is abandoned rejects its recording and lets early frames flow', async () => {
    const { a, c } = await world.group(OWNERS)
    await cut(c.nic, 1)
    c.vm.send(frameOf('c', 'a', 1))
    await until(() => at('p1').stats().heldEarly === 1)
    const recorded = c.nic.recorded(1)
    await c.nic.abandon(1)
    await expect(recorded).rejects.toMatchObject({ code: 'EPOCH_ABORTED' })
    await a.nic.abandon(1)
    await until(() => a.vm.ids.length === 1)
    await expect(a.nic.recorded(1)).rejects.toMatchObject({ code: 'EPOCH_ABORTED' })
    await expect(a.nic.recorded(2)).rejects.toMatchObject({ code: 'EPOCH_NOT_CUT' })
    await expect(a.nic.turn(1)).rejects.toMatchObject({ code: 'EPOCH_OLD' })
  })
})

describe('a new generation', () => {
  it('starts afresh: old ports are dead, old frames refused, newer ones wait for the record', async () => {
    const { a, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'c', 1))
    await until(() => c.vm.ids.length === 1)
    at('p1').setGroup(recordOf(OWNERS, 2))
    await a.nic.detach()
    const a2 = await world.attach('a', OWNERS, 2, 5)
    const fresh = await world.connect('a')
    await a2.release()
    fresh.send(frameOf('a', 'c', 2)) // p2 knows generation 1 only
    c.vm.send(frameOf('c', 'a', 3))
    await until(() => at('p1').stats().refusedGeneration === 1)
    await quiet()
    expect(c.vm.ids).toEqual([1])
    at('p2').setGroup(recordOf(OWNERS, 2))
    await expect(c.nic.turn(1)).rejects.toMatchObject({ code: 'GENERATION_OLD' })
    await c.nic.detach()
    const c2 = await world.attach('c', OWNERS, 2, 5)
    const other = await world.connect('c')
    await c2.release()
    await until(() => other.ids.length === 1)
    expect(other.ids).toEqual([2])
    expect(fresh.ids).toEqual([])
  })

  it('rejects what was being recorded', async () => {
    const { a } = await world.group(OWNERS)
    await cut(a.nic, 1)
    const recorded = a.nic.recorded(1)
    at('p1').setGroup(recordOf(OWNERS, 2))
    await expect(recorded).rejects.toMatchObject({ code: 'EPOCH_ABORTED' })
  })

  it('refuses frames of a VM from a peer that does not own it', async () => {
    const { b } = await world.group(OWNERS)
    const packet = Buffer.concat([Buffer.from('00000040', 'hex'), frameOf('a', 'b', 1)])
    const record = { source: 'a', destination: 'b', colour: 0, sequence: 1, nic: 0, packet }
    const writer = new BatchWriter('bank', 1)
    writer.add(record)
    world.network.deliver('p2', 'p1', 'frames', writer.take().message)
    await quiet()
    expect(b.vm.ids).toEqual([])
    expect(at('p1').stats().refusedSource).toBe(1)
  })

  it('continues the numbering where a NIC is attached again in the same one', async () => {
    const { a, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'c', 1))
    c.vm.send(frameOf('c', 'a', 9))
    await until(() => c.vm.ids.length === 1 && a.vm.ids.length === 1)
    await a.nic.detach()
    const again = await world.attach('a', OWNERS)
    const vm = await world.connect('a')
    await again.release()
    vm.send(frameOf('a', 'c', 2))
    c.vm.send(frameOf('c', 'a', 3))
    await until(() => c.vm.ids.length === 2 && vm.ids.length === 1)
    expect(c.vm.ids).toEqual([1, 2])
    expect(at('p1').stats()).toMatchObject({ lost: 0, droppedLate: 0 })
  })
})

describe('attach', () => {
  it('is refused with a reason', async () => {
    await expect(world.attach('a', OWNERS)).rejects.toMatchObject({ code: 'GROUP_UNKNOWN' })
    at('p1').setGroup(recordOf(OWNERS, 2))
    await expect(world.attach('a', OWNERS, 1)).rejects.toMatchObject({ code: 'GENERATION_OLD' })
    await expect(world.attach('c', { c: 'p1' }, 2)).rejects.toMatchObject({ code: 'VM_ELSEWHERE' })
    await world.attach('a', OWNERS, 2)
    await expect(world.attach('a', OWNERS, 2)).rejects.toMatchObject({ code: 'NIC_ATTACHED' })
    const nicPath = join(world.directory, 'nowhere', 'b.nic')
    const refused = at('p1').attach({ group: 'bank', vm: 'b', generation: 2, epoch: 0, nicPath })
    await expect(refused).rejects.toMatchObject({ code: 'NIC_LISTEN' })
  })

  it('removes a stale socket file, and detach its own', async () => {
    at('p1').setGroup(recordOf(OWNERS))
    await writeFile(world.pathOf('a'), '')
    const nic = await world.attach('a', OWNERS)
    await world.connect('a')
    await nic.detach()
    await nic.detach()
    expect(existsSync(world.pathOf('a'))).toBe(false)
    await expect(nic.drained()).rejects.toMatchObject({ code: 'NIC_DETACHED' })
  })
})
