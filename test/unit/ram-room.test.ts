/** Room for RAM of VMs that start at once, where standby copies are given up for it. */
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { RamRoom } from '../../node/hypervisor/ram-room.ts'

/** So many bytes are free, and so many standby copies can be given up, each for as many bytes as are asked for. */
function host(freeBytes: number, copies: number) {
  const room = new RamRoom()
  const here = { freeBytes, copies }
  const makeRoom = async (bytes: number): Promise<void> => {
    if (here.copies > 0) here.freeBytes += bytes
    here.copies = Math.max(0, here.copies - 1)
    await turn() // others come meanwhile
  }
  const takesBack: (() => void)[] = []
  const start = async (bytes: number): Promise<'room' | 'none'> => {
    const requireRoom = (wanted: number, promised: number): void => {
      if (wanted > here.freeBytes - promised) throw new Error('no room')
    }
    try {
      takesBack.push(await room.promise(bytes, requireRoom, makeRoom))
      return 'room'
    } catch {
      return 'none'
    }
  }
  return { here, start, takesBack }
}

describe('room for RAM', () => {
  it('that is made for one VM is not taken by another that starts meanwhile: more is made for that one', async () => {
    const { here, start } = host(0, 2)
    expect(await Promise.all([start(100), start(100)])).toEqual(['room', 'room'])
    expect(here.copies).toBe(0)
  })

  it('goes to the first of two VMs that start at once, where it can be made for one', async () => {
    const { start } = host(0, 1)
    expect(await Promise.all([start(100), start(100)])).toEqual(['room', 'none'])
  })

  it('that was given is not given to who waits since before', async () => {
    const { here, start } = host(90, 0)
    const waiting = start(100)
    here.freeBytes = 160
    expect(await start(60)).toBe('room')
    here.freeBytes = 150 // others write there too
    expect(await waiting).toBe('none')
  })

  it('is free again when it is taken back, or was not to be had', async () => {
    const { start, takesBack } = host(100, 0)
    expect(await start(101)).toBe('none')
    expect(await start(100)).toBe('room')
    expect(await start(1)).toBe('none')
    for (const takeBack of takesBack) takeBack()
    expect(await start(100)).toBe('room')
  })
})
