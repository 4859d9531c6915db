/** One peer's switch without sockets: what records of a group leave behind on networks of all, and NICs that do not open. */
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { toPacket } from '../../node/switch/ethernet.ts'
import type { OpenSocket, VmLink } from '../../node/switch/link.ts'
import { createSwitch } from '../../node/switch/switch.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { BROADCAST, frameOf, MemoryNetwork, recordOf } from '../contract/switch-support.ts'

const linkOf = (close: () => void): VmLink => ({
  write: () => {},
  recent: () => [],
  stoodStill: () => {},
  drained: async () => {},
  close: async () => close()
})

const switchWith = (openLink: OpenSocket) =>
  createSwitch({
    self: 'p1',
    transport: new MemoryNetwork().transport('p1'),
    clock,
    log: quietLog,
    mayAct: () => true,
    openLink
  })

describe('on a network of all groups', () => {
  const COMMON = ['shared/lan', 'uplink']
  const bank = recordOf({ a: 'p1' }, 1, { nics: { a: COMMON } })
  const shop = (generation: number, networks: readonly string[], version = generation) =>
    recordOf({ d: 'p1', e: 'p1' }, generation, { nics: { d: networks }, group: 'shop', news: { version } })

  /** `say`: VM a of one group says something on its NIC `card`; `shopSays`: VM d of the other. */
  async function open() {
    const said = new Map<string, (packet: Uint8Array) => void>()
    const own = switchWith(async (path, _clock, events) => {
      said.set(path, events.packet)
      return linkOf(() => {})
    })
    own.setGroup(bank)
    own.setGroup(shop(1, COMMON))
    await own.attach({ group: 'bank', vm: 'a', generation: 1, epoch: 0, nicPath: 'a' })
    const nic = await own.attach({ group: 'shop', vm: 'd', generation: 1, epoch: 0, nicPath: 'd' })
    await nic.release()
    const saying = (vm: string) => (from: string, to: string, card: 0 | 1) => {
      const path = [...said.keys()].filter(each => each.startsWith(vm))[card] ?? ''
      said.get(path)?.(toPacket(frameOf(from, to, 1)))
    }
    return { own, say: saying('a'), shopSays: saying('d') }
  }

  it.each([
    ['a generation without it', shop(2, ['default', 'backup'])],
    ['a record of the same generation without it', shop(1, ['default', 'backup'], 2)]
  ])('a NIC is nowhere, and its address is free, from %s on', async (_, record) => {
    const { own, say } = await open()
    say('a', 'd', 0)
    say('d', BROADCAST, 0)
    say('d1', BROADCAST, 1)
    expect(own.stats()).toMatchObject({ flooded: 0, droppedSpoofed: 2 })
    own.setGroup(record)
    say('a', 'd', 0)
    say('d', BROADCAST, 0)
    say('d1', BROADCAST, 1)
    expect(own.stats()).toMatchObject({ flooded: 1, droppedSpoofed: 2 })
  })

  it('what was heard behind a NIC stays behind it in the next generation', async () => {
    const { own, say, shopSays } = await open()
    shopSays('x', BROADCAST, 0)
    own.setGroup(shop(2, COMMON))
    say('a', 'x', 0)
    expect(own.stats()).toMatchObject({ flooded: 0 })
  })
})

it('of a VM whose NICs do not all open none is left open, however late it opens', async () => {
  const late = Promise.withResolvers<void>()
  const open = new Set<string>()
  const own = switchWith(async path => {
    if (path === 'a') throw new Error('too many open files')
    await late.promise
    open.add(path)
    return linkOf(() => open.delete(path))
  })
  own.setGroup(recordOf({ a: 'p1' }, 1, { nics: { a: ['default', 'backup'] } }))
  let isOver = false
  const attaching = own.attach({ group: 'bank', vm: 'a', generation: 1, epoch: 0, nicPath: 'a' }).finally(() => {
    isOver = true
  })
  attaching.catch(() => {}) // awaited below
  await setImmediate()
  expect(isOver).toBe(false)
  late.resolve()
  await expect(attaching).rejects.toThrow('too many open files')
  expect([...open]).toEqual([])
})
