import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { VirtualSwitch } from '../../node/switch/switch.ts'
import { openTrace, type Trace, type TraceLine } from '../../node/switch/trace.ts'
import { BatchWriter } from '../../protocols/frames/records.ts'
import { memoryLog } from './real-clock.ts'
import { cut, frameOf, idsIn, quiet, recordOf, until } from './switch-support.ts'
import { OWNERS, SwitchWorld } from './switch-world.ts'

let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())
const at = (peer: string): VirtualSwitch => world.at(peer)

describe('a lease that has run out', () => {
  it('lets nothing leave for peers or VMs, and loses nothing where it is regained', async () => {
    const { a, b, c } = await world.group(OWNERS)
    let holds = false
    world.mayAct = peer => peer !== 'p1' || holds
    for (const id of [1, 2]) a.vm.send(frameOf('a', 'b', id))
    for (const id of [3, 4]) a.vm.send(frameOf('a', 'c', id))
    c.vm.send(frameOf('c', 'b', 5))
    await until(() => at('p1').stats().sent === 4 && at('p2').stats().sent === 1)
    await quiet()
    expect([b.vm.ids, c.vm.ids]).toEqual([[], []])
    expect(at('p1').stats().heldFenced).toBe(2)
    holds = true
    await until(() => b.vm.ids.length === 3 && c.vm.ids.length === 2)
    expect([b.vm.ids.toSorted((x, y) => x - y), c.vm.ids]).toEqual([
      [1, 2, 5],
      [3, 4]
    ])
    expect(at('p2').stats()).toMatchObject({ lost: 0, droppedLate: 0 })
    expect(at('p1').stats()).toMatchObject({ droppedFenced: 0 })
  })

  it('keeps the order of frames that the transport had already, and of those that came after them', async () => {
    const { a, c } = await world.group(OWNERS)
    world.network.stopped = true
    for (const id of [1, 2, 3]) {
      a.vm.send(frameOf('a', 'c', id))
      await until(() => at('p1').stats().sent === id)
    }
    await quiet()
    world.mayAct = peer => peer !== 'p1'
    a.vm.send(frameOf('a', 'c', 4))
    await until(() => at('p1').stats().sent === 4)
    world.network.stopped = false
    await until(() => at('p1').stats().heldFenced === 4)
    expect(c.vm.ids).toEqual([])
    world.mayAct = () => true
    await until(() => c.vm.ids.length === 4)
    expect(c.vm.ids).toEqual([1, 2, 3, 4])
  })

  it('drops and counts what waits, when a newer generation takes over', async () => {
    const { a, b, c } = await world.group(OWNERS)
    world.mayAct = (peer, generation) => peer !== 'p1' || generation > 1
    a.vm.send(frameOf('a', 'b', 1))
    a.vm.send(frameOf('a', 'c', 2))
    await until(() => at('p1').stats().heldFenced === 1)
    at('p1').setGroup(recordOf(OWNERS, 2))
    a.vm.send(frameOf('a', 'c', 3))
    await until(() => at('p1').stats().refusedGeneration === 1)
    await quiet()
    expect([b.vm.ids, c.vm.ids]).toEqual([[], []])
    expect(at('p1').stats().droppedFenced).toBe(1)
  })

  it('holds what was delivered in this very turn, and it is part of a cut made then', async () => {
    const { a, b, c } = await world.group(OWNERS)
    let asked = 0
    world.mayAct = peer => peer !== 'p1' || asked++ < 0
    c.vm.send(frameOf('c', 'b', 1))
    await until(() => at('p1').stats().delivered === 1)
    await b.nic.hold()
    await b.nic.turn(1)
    world.mayAct = () => true
    await b.nic.release()
    await Promise.all([cut(a.nic, 1), cut(c.nic, 1)])
    expect(await idsIn(await b.nic.recorded(1))).toEqual([1])
    await until(() => b.vm.ids.length === 1)
  })
})

function traced(): { readonly path: string; readonly trace: Trace } {
  const path = join(world.directory, 'frames.jsonl')
  const trace = openTrace(path, memoryLog())
  world.atEnd(() => trace.close())
  return { path, trace }
}

async function linesOf(path: string): Promise<TraceLine[]> {
  const lines = (await readFile(path, 'utf8')).trim().split('\n')
  return lines.map(line => JSON.parse(line) as TraceLine)
}

describe('a trace', () => {
  it('tells what left and came, by sender and colour, with the same clock on all peers', async () => {
    const { path, trace } = traced()
    for (const self of ['p1', 'p2']) world.addSwitch(self, { trace })
    const { a, c } = await world.group(OWNERS)
    a.vm.send(frameOf('a', 'c', 1, 100))
    await until(() => c.vm.ids.length === 1)
    await cut(a.nic, 1)
    await quiet()
    const lines = await linesOf(path)
    const sent = { direction: 'out', verdict: 'sent', peer: 'p2', group: 'bank', generation: 1, vm: 'a' }
    const come = { ...sent, direction: 'in', verdict: 'taken', peer: 'p1' }
    expect(lines).toMatchObject([
      { ...sent, epoch: 0, frames: 1, turns: 0, bytes: 100 },
      { ...come, epoch: 0, frames: 1, turns: 0, bytes: 100 },
      { ...sent, epoch: 1, frames: 0, turns: 1, bytes: 0 },
      { ...come, epoch: 1, frames: 0, turns: 1, bytes: 0 }
    ])
    const times = lines.map(({ ms }) => ms)
    expect(times).toEqual(times.toSorted((x, y) => x - y))
  })

  it('says of what comes whether its generation is over, or not known yet, or the lease has run out', async () => {
    const { path, trace } = traced()
    world.addSwitch('p1', { trace }).setGroup(recordOf(OWNERS, 2))
    let asked = 0
    world.mayAct = () => asked++ === 0
    for (const generation of [1, 2, 2, 3]) {
      const writer = new BatchWriter('bank', generation)
      writer.add({ source: 'c', destination: 'a', colour: 1, sequence: 0, nic: 0, packet: undefined })
      world.network.deliver('p2', 'p1', 'frames', writer.take().message)
    }
    const lines = await linesOf(path)
    expect(lines.map(({ generation, verdict }) => [generation, verdict])).toEqual([
      [1, 'old'],
      [2, 'taken'],
      [2, 'fenced'],
      [3, 'early']
    ])
  })

  it('keeps one older file and no more', async () => {
    const path = join(world.directory, 'frames.jsonl')
    const writer = new BatchWriter('bank', 1)
    const note = (trace: Trace, id: number) => {
      writer.add({ source: 'a', destination: 'c', colour: id, sequence: 0, nic: 0, packet: undefined })
      trace.note('out', 'sent', 'p2', writer.take().message)
    }
    // The length of a line depends on how long this host has been up: one is written to know it.
    const first = openTrace(path, memoryLog())
    note(first, 0)
    first.close()
    const lineBytes = (await stat(path)).size
    await rm(path)
    const trace = openTrace(path, memoryLog(), 1.5 * lineBytes)
    for (let id = 1; id <= 9; id++) note(trace, id)
    trace.close()
    trace.note('out', 'sent', 'p2', new Uint8Array())
    const epochs = async (file: string) =>
      [...(await readFile(file, 'utf8')).matchAll(/"epoch":(\d)/g)].map(match => Number(match[1]))
    expect([...(await epochs(`${path}.1`)), ...(await epochs(path))]).toEqual([7, 8, 9])
    expect((await readdir(world.directory)).toSorted()).toEqual(['frames.jsonl', 'frames.jsonl.1'])
  })
})
