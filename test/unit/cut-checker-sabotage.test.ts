/** Each test loads the switch anew: what is broken stays so. */
import { beforeEach, describe, expect, test, vi } from 'vitest'
import type { Sabotage } from '../bench/cut-checker-sabotage.ts'

beforeEach(() => vi.resetModules())

/** A receiver of colour 0 with the sender `a`, whose NIC is open. */
async function receiver(sabotage?: Sabotage) {
  const { SABOTAGES } = await import('../bench/cut-checker-sabotage.ts')
  if (sabotage !== undefined) SABOTAGES[sabotage]()
  const { frame, receiverAt } = await import('./channel-receiver.ts')
  const of = receiverAt(0, ['a'])
  of.receiver.setOpen(0, true)
  return { ...of, frame, come: (colour: number, id: number) => of.receiver.arrive('a', colour, id, frame(id)) }
}

describe('a sabotage of the switch', () => {
  test('gives early frames to the VM at once', async () => {
    const sound = await receiver()
    sound.come(1, 1)
    expect(sound.delivered).toEqual([])
    vi.resetModules()
    const broken = await receiver('early')
    broken.come(1, 1)
    expect(broken.delivered).toEqual([1])
  })

  test('gives early frames to nobody', async () => {
    const { receiver: of, come, delivered } = await receiver('early-dropped')
    come(1, 1)
    of.turn(1, [])
    come(1, 2)
    expect(delivered).toEqual([2])
  })

  test('records no in-flight frames, neither those that wait at the cut nor those that come after it', async () => {
    const run = async (sabotage?: Sabotage) => {
      vi.resetModules()
      const { receiver: of, come, recorded, delivered } = await receiver(sabotage)
      of.setOpen(0, false)
      come(0, 1)
      of.turn(1, [])
      of.setOpen(0, true)
      come(0, 2)
      of.turned('a', 1, 2)
      return { recorded: recorded.get(1), delivered }
    }
    expect(await run()).toEqual({ recorded: [1, 2], delivered: [1, 2] })
    expect(await run('in-flight')).toEqual({ recorded: [], delivered: [1, 2] })
  })

  test('leaves out what the VM had not taken', async () => {
    const run = async (sabotage?: Sabotage) => {
      vi.resetModules()
      const { receiver: of, frame, recorded } = await receiver(sabotage)
      of.turn(1, [frame(1)])
      of.turned('a', 1, 0)
      return recorded.get(1)
    }
    expect(await run()).toEqual([1])
    expect(await run('untaken')).toEqual([])
  })

  test('is chosen by the module that a peer loads, which an import without a name is not', async () => {
    const { isSabotage, SABOTAGES, sabotagePreload } = await import('../bench/cut-checker-sabotage.ts')
    expect(Object.keys(SABOTAGES).every(isSabotage)).toBe(true)
    expect(isSabotage('toString')).toBe(false)
    expect(sabotagePreload('in-flight')).toMatch(/^file:.*cut-checker-sabotage\.ts\?name=in-flight$/)
  })
})
