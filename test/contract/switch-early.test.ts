/** A VM that runs before others of its group do: what it says to them waits, and how it speaks with them is known. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cut, frameOf, pieceOf, quiet, recordOf, until } from './switch-support.ts'
import { SwitchWorld } from './switch-world.ts'

/** Two talk to one each, on another peer. */
const OWNERS = { a: 'p1', b: 'p1', c: 'p2', d: 'p2' }

let world: SwitchWorld
beforeEach(async () => {
  world = await SwitchWorld.open()
})
afterEach(() => world.close())

describe('a VM that runs early', () => {
  it('loses nothing to one whose peer has not heard of the generation, whose NIC is not there, or who is held', async () => {
    world.at('p1').setGroup(recordOf(OWNERS, 2))
    const a = await world.attach('a', OWNERS, 2, 5)
    const early = await world.connect('a')
    await a.release()
    early.send(frameOf('a', 'c', 1)) // p2 has not heard of it
    await quiet()
    world.at('p2').setGroup(recordOf(OWNERS, 2))
    early.send(frameOf('a', 'c', 2)) // c has no NIC
    await quiet()
    const c = await world.attach('c', OWNERS, 2, 5)
    early.send(frameOf('a', 'c', 3)) // c does not run
    await quiet()
    const late = await world.connect('c')
    await c.inject(pieceOf(frameOf('a', 'c', 8), frameOf('b', 'c', 9)))
    await c.release()
    await until(() => late.ids.length === 5)
    expect(late.ids).toEqual([8, 9, 1, 2, 3])
    expect(world.at('p2').stats()).toMatchObject({ lost: 0, droppedFull: 0, droppedLate: 0, droppedUnknown: 0 })
  })

  it('that floods one who is not there loses its own newest frames, and takes nothing from others', async () => {
    for (const peer of ['p1', 'p2']) world.at(peer).setGroup(recordOf(OWNERS, 1))
    const [a, b] = [await world.attach('a', OWNERS), await world.attach('b', OWNERS)]
    const [flooding, quietly] = [await world.connect('a'), await world.connect('b')]
    await a.release()
    await b.release()
    quietly.send(frameOf('b', 'd', 1))
    await quiet()
    for (let id = 0; id < 9_000; id++) flooding.send(frameOf('a', 'c', id))
    await until(() => world.at('p2').stats().droppedFull > 800)
    quietly.send(frameOf('b', 'd', 2))
    await quiet()
    const [c, d] = [await world.attach('c', OWNERS), await world.attach('d', OWNERS)]
    const [flooded, asked] = [await world.connect('c'), await world.connect('d')]
    await c.release()
    await d.release()
    await until(() => asked.ids.length === 2 && flooded.ids.length > 8_000)
    expect(asked.ids).toEqual([1, 2])
    expect(flooded.ids.slice(0, 8_000)).toEqual(Array.from({ length: 8_000 }, (_, id) => id))
  })
})

describe('how VMs speak with each other', () => {
  it('is told at each cut by the switches of both, for those who speak with one alone', async () => {
    const { a, b, c } = await world.group(OWNERS)
    for (let id = 0; id < 3; id++) {
      a.vm.send(frameOf('a', 'c', id))
      await until(() => c.vm.ids.length === id + 1)
      c.vm.send(frameOf('c', 'a', id, 100))
      await until(() => a.vm.ids.length === id + 1)
    }
    b.vm.send(frameOf('b', '*', 9))
    await until(() => c.vm.ids.length === 4)
    expect(a.nic.talks()).toEqual([])
    await Promise.all([cut(a.nic, 1), cut(b.nic, 1), cut(c.nic, 1)])
    const [asks] = a.nic.talks()
    expect(asks).toMatchObject({ vm: 'c', network: 'default', sent: 3, heard: 3, answers: 3, heardBytes: 3 * 104 })
    const [answers] = c.nic.talks()
    expect(answers).toMatchObject({ vm: 'a', sent: 3, heard: 3, answers: 2 })
    expect(b.nic.talks()).toEqual([])
    await cut(a.nic, 2)
    expect(a.nic.talks()).toMatchObject([{ vm: 'c', sent: 2, heard: 2 }])
  })
})
