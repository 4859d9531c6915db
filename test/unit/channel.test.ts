import { describe, expect, it } from 'vitest'
import { ChannelSender } from '../../protocols/epoch/channel.ts'
import { FRAME_BYTES, frame, frames, receiverAt } from './channel-receiver.ts'
import { MemoryKeeper } from './chunk-keepers.ts'

describe('a frame at a receiver (Mattern 1993, section 3; Lai-Yang 1987, section 2)', () => {
  it('of the same colour is delivered', () => {
    const { receiver, delivered } = receiverAt(3, ['a'])
    receiver.setOpen(0, true)
    expect(receiver.arrive('a', 3, 1, frame(7))).toBe('delivered')
    expect(delivered).toEqual([7])
  })

  it('of a newer colour is early: held, and the cut is asked for once', () => {
    const { receiver, delivered, markers } = receiverAt(3, ['a'])
    receiver.setOpen(0, true)
    expect(receiver.arrive('a', 4, 1, frame(1))).toBe('early')
    expect(receiver.arrive('a', 4, 2, frame(2))).toBe('early')
    expect(delivered).toEqual([])
    expect(markers).toEqual([4])
    receiver.turn(4, [])
    expect(delivered).toEqual([1, 2])
  })

  it('keeps its place in its channel, also where two newer colours wait', () => {
    const { receiver, delivered } = receiverAt(3, ['a', 'b'])
    receiver.setOpen(0, true)
    receiver.arrive('a', 5, 1, frame(1))
    receiver.arrive('b', 4, 1, frame(2))
    receiver.arrive('b', 5, 2, frame(3))
    receiver.abandon(5)
    expect(delivered).toEqual([2, 1, 3])
  })

  it('does not wait behind early frames of another sender', () => {
    const { receiver, delivered } = receiverAt(3, ['a', 'b'])
    receiver.setOpen(0, true)
    receiver.arrive('a', 4, 1, frame(1))
    receiver.arrive('b', 3, 1, frame(2))
    expect(delivered).toEqual([2])
  })

  it('of an older colour is in flight: delivered and recorded', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'])
    receiver.setOpen(0, true)
    receiver.turn(4, [])
    expect(receiver.arrive('a', 3, 1, frame(1))).toBe('delivered')
    receiver.turned('a', 4, 1)
    expect(delivered).toEqual([1])
    expect(recorded.get(4)).toEqual([1])
  })

  it('from two epochs ago is recorded for every epoch between that is open', () => {
    const { receiver, recorded } = receiverAt(3, ['a'])
    receiver.turn(4, [])
    receiver.turn(5, [])
    receiver.arrive('a', 3, 1, frame(1))
    receiver.turned('a', 4, 1)
    receiver.arrive('a', 4, 2, frame(2))
    receiver.turned('a', 5, 2)
    expect(recorded.get(4)).toEqual([1])
    expect(recorded.get(5)).toEqual([1, 2])
  })

  it('that waits for the VM at the cut is received after it, and so in flight', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'])
    receiver.arrive('a', 3, 1, frame(1))
    receiver.turn(4, [frame(9)])
    receiver.turned('a', 4, 1)
    receiver.setOpen(0, true)
    expect(recorded.get(4)).toEqual([9, 1])
    expect(delivered).toEqual([1])
  })

  it('held as early for an epoch that was aborted is in flight for the next', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'])
    receiver.setOpen(0, true)
    receiver.arrive('a', 4, 1, frame(1))
    receiver.turn(5, [])
    receiver.turned('a', 5, 1)
    expect(delivered).toEqual([1])
    expect(recorded.get(5)).toEqual([1])
  })

  it('of a colour that no epoch can have reached is refused, as is such a turn, and markers go on', () => {
    const { receiver, delivered, markers, tally } = receiverAt(3, ['a'])
    receiver.setOpen(0, true)
    expect(receiver.arrive('a', 2 ** 32 - 1, 1, frame(1))).toBe('unknown')
    receiver.turned('a', 2 ** 32 - 1, 7)
    expect(receiver.arrive('a', 3, 1, frame(2))).toBe('delivered')
    expect(receiver.arrive('a', 3 + 2 ** 20, 2, frame(3))).toBe('early')
    expect([delivered, markers, tally.lost]).toEqual([[2], [3 + 2 ** 20], 0])
  })

  it('of a VM that is not in the group is refused', () => {
    const { receiver } = receiverAt(3, ['a'])
    expect(receiver.arrive('x', 3, 1, frame(1))).toBe('unknown')
  })
})

describe('termination (Mattern 1993, section 4; Chandy-Lamport 1985, section 3)', () => {
  it('comes with the last frame that the sender has counted', () => {
    const sender = new ChannelSender(3)
    const { receiver, recorded } = receiverAt(3, ['a'])
    const numbers = [sender.next('r'), sender.next('r')]
    const counts = sender.turn(4)
    receiver.expect(4, 'a', counts.r ?? 0)
    receiver.turn(4, [])
    expect(recorded.has(4)).toBe(false)
    for (const number of numbers) receiver.arrive('a', 3, number, frame(number))
    expect(recorded.get(4)).toEqual([1, 2])
  })

  it('comes with the first frame of the new colour', () => {
    const { receiver, recorded } = receiverAt(3, ['a'])
    receiver.turn(4, [])
    receiver.arrive('a', 3, 1, frame(1))
    receiver.arrive('a', 4, 2, frame(2))
    expect(recorded.get(4)).toEqual([1])
  })

  it('comes at once where everything is known at the cut, and where there is nobody else', () => {
    const known = receiverAt(3, ['a'])
    known.receiver.turned('a', 4, 0)
    known.receiver.turn(4, [])
    expect(known.recorded.get(4)).toEqual([])
    const alone = receiverAt(3, [])
    alone.receiver.turn(4, [])
    expect(alone.recorded.get(4)).toEqual([])
  })

  it('waits for every sender, but not for one that has left', () => {
    const { receiver, recorded } = receiverAt(3, ['a', 'b'])
    receiver.turn(4, [])
    receiver.turned('a', 4, 0)
    expect(recorded.has(4)).toBe(false)
    receiver.setSenders(['a'])
    expect(recorded.get(4)).toEqual([])
  })

  it('counts a frame whose number was passed as come, and refuses it afterwards', () => {
    const { receiver, recorded, tally } = receiverAt(3, ['a'])
    receiver.turn(4, [])
    receiver.expect(4, 'a', 2)
    receiver.arrive('a', 3, 2, frame(2))
    expect(recorded.get(4)).toEqual([2])
    expect(tally.lost).toBe(1)
    expect(receiver.arrive('a', 3, 1, frame(1))).toBe('late')
  })

  it('is not kept from a later epoch by a frame and a turn record lost in an earlier one', () => {
    const { receiver, recorded, failed } = receiverAt(3, ['a'])
    receiver.turn(4, [])
    receiver.expect(4, 'a', 1) // frame 1 and the turn to 4 never come
    receiver.abandon(4)
    expect(failed.get(4)).toBe('EPOCH_ABORTED')
    receiver.turn(5, [])
    receiver.turned('a', 5, 1)
    expect(recorded.get(5)).toEqual([])
  })

  it('holds across a colour taken without a cut', () => {
    const sender = new ChannelSender(4)
    const first = sender.next('r')
    sender.turn(5) // abandoned there
    const { receiver, recorded, delivered } = receiverAt(4, ['a'])
    receiver.setOpen(0, true)
    receiver.abandon(5)
    receiver.turn(6, [])
    receiver.arrive('a', 4, first, frame(1))
    receiver.arrive('a', 5, sender.next('r'), frame(2))
    receiver.expect(6, 'a', sender.turn(6).r ?? 0)
    expect(recorded.get(6)).toEqual([1, 2])
    expect(delivered).toEqual([1, 2])
  })
})

describe('an abandoned epoch', () => {
  it('lets early frames of its colour flow', () => {
    const { receiver, delivered } = receiverAt(3, ['a'])
    receiver.setOpen(0, true)
    receiver.arrive('a', 4, 1, frame(1))
    receiver.arrive('a', 5, 2, frame(2))
    receiver.abandon(4)
    expect(delivered).toEqual([1])
    receiver.abandon(5)
    expect(delivered).toEqual([1, 2])
  })

  it('gives way to newer ones when too many are open', () => {
    const { receiver, failed } = receiverAt(3, ['a'])
    for (const epoch of [4, 5, 6]) receiver.turn(epoch, [])
    expect([...failed]).toEqual([[4, 'EPOCH_ABORTED']])
  })

  it('cannot be turned to any more', () => {
    const { receiver } = receiverAt(3, ['a'])
    receiver.abandon(4)
    expect(() => receiver.turn(4, [])).toThrow(expect.objectContaining({ code: 'EPOCH_OLD' }))
  })
})

describe('room', () => {
  it('that is used up costs the newest frames, which are counted', () => {
    const keeper = new MemoryKeeper(1024, 2 * FRAME_BYTES)
    const { receiver, delivered, tally } = receiverAt(3, ['a'], keeper)
    for (const id of [1, 2, 3]) receiver.arrive('a', 3, id, frame(id))
    receiver.setOpen(0, true)
    expect(delivered).toEqual([1, 2])
    expect(tally.droppedFull).toBe(1)
    expect(keeper.bytes).toBe(0)
  })

  it('that is used up fails a recording, and delivers all the same', () => {
    const keeper = new MemoryKeeper(1024, FRAME_BYTES)
    const { receiver, delivered, failed } = receiverAt(3, ['a'], keeper)
    receiver.setOpen(0, true)
    receiver.turn(4, [])
    for (const id of [1, 2]) receiver.arrive('a', 3, id, frame(id))
    expect(failed.get(4)).toBe('RECORDING_FULL')
    expect(delivered).toEqual([1, 2])
    expect(keeper.bytes).toBe(0)
  })

  it('is given back by a recording that had none at the cut itself', () => {
    const keeper = new MemoryKeeper(1024, 3 * FRAME_BYTES)
    const { receiver, delivered, failed, tally } = receiverAt(3, ['a'], keeper)
    for (const id of [1, 2, 3]) receiver.arrive('a', 3, id, frame(id))
    receiver.turn(4, [frame(8), frame(9)])
    expect(failed.get(4)).toBe('RECORDING_FULL')
    expect(tally).toMatchObject({ recordedRecent: 0, recordedInFlight: 0 })
    receiver.setOpen(0, true)
    expect(delivered).toEqual([1, 2, 3])
    expect(keeper.bytes).toBe(0)
  })

  it('is not taken twice by frames that wait for the VM and are part of a recording', () => {
    const keeper = new MemoryKeeper(1024)
    const { receiver, recorded, delivered } = receiverAt(3, ['a'], keeper)
    for (const id of [1, 2, 3]) receiver.arrive('a', 3, id, frame(id))
    receiver.turn(4, [])
    expect(keeper.bytes).toBe(3 * FRAME_BYTES)
    receiver.turned('a', 4, 3)
    receiver.setOpen(0, true)
    expect(recorded.get(4)).toEqual([1, 2, 3])
    expect(delivered).toEqual([1, 2, 3])
    expect(keeper.bytes).toBe(0)
  })

  it('is given back by all that a receiver held when it is cleared', () => {
    const keeper = new MemoryKeeper(16)
    const { receiver } = receiverAt(3, ['a', 'b'], keeper)
    receiver.inject(frames(7, 8))
    for (const id of [1, 2, 3, 4]) receiver.arrive('a', id < 3 ? 3 : 5, id, frame(id))
    receiver.turn(4, [frame(9)])
    receiver.arrive('b', 3, 1, frame(5))
    receiver.takeForeign(frame(6))
    expect(keeper.bytes).toBeGreaterThan(0)
    receiver.clear()
    expect(keeper.bytes).toBe(0)
  })
})

describe('a NIC', () => {
  it('that takes nothing holds up no other one of its VM', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'], new MemoryKeeper(), 2)
    receiver.setOpen(0, true)
    receiver.arrive('a', 3, 1, frame(1, 1))
    receiver.arrive('a', 3, 2, frame(2, 0))
    receiver.arrive('a', 4, 3, frame(3, 1))
    receiver.arrive('a', 4, 4, frame(4, 0))
    expect(delivered).toEqual([2])
    receiver.turn(4, [])
    expect(delivered).toEqual([2, 4])
    receiver.turned('a', 4, 2)
    expect(recorded.get(4)).toEqual([1])
    receiver.inject(Uint8Array.of(...frame(5, 1), ...frame(6, 0)))
    receiver.setOpen(1, true)
    expect(delivered).toEqual([2, 4, 6, 5, 1, 3])
  })

  it('that has stalled loses the newest frames, beyond a few MB, and gets what waited when it goes on', () => {
    const keeper = new MemoryKeeper(1 << 16)
    const { receiver, delivered, tally } = receiverAt(3, ['a'], keeper)
    const large = Uint8Array.from({ length: 4 + 60_000 }, (_, at) => [0, 0, 60_000 >> 8, 60_000 & 255][at] ?? 7)
    for (let id = 1; id <= 100; id++) receiver.arrive('a', 3, id, large)
    expect(tally.droppedFull).toBe(0)
    receiver.setStalled(0, true)
    receiver.arrive('a', 3, 101, large)
    expect(tally.droppedFull).toBe(1)
    receiver.setOpen(0, true)
    receiver.setStalled(0, false)
    receiver.arrive('a', 3, 102, large)
    expect(delivered.length).toBe(101)
  })

  it('gets frames from outside of the group in their order, and no cut is asked for or has them', () => {
    const { receiver, delivered, foreign, markers, recorded, tally } = receiverAt(3, ['a'])
    receiver.takeForeign(frame(1))
    receiver.arrive('a', 3, 1, frame(2))
    receiver.takeForeign(frame(3))
    receiver.turn(4, [])
    receiver.turned('a', 4, 1)
    expect(recorded.get(4)).toEqual([2])
    receiver.setOpen(0, true)
    receiver.takeForeign(frame(4))
    expect(delivered).toEqual([2, 1, 3, 4])
    expect(foreign).toEqual([1, 3, 4])
    expect([markers, tally.recordedInFlight]).toEqual([[], 1])
  })
})

describe('injected frames', () => {
  it('come first, and are in flight at a cut that comes before them', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'])
    receiver.arrive('a', 3, 1, frame(3))
    receiver.inject(frames(1, 2))
    receiver.turn(4, [])
    receiver.turned('a', 4, 1)
    receiver.setOpen(0, true)
    expect(delivered).toEqual([1, 2, 3])
    expect(recorded.get(4)).toEqual([1, 2, 3])
  })

  it('are all taken, or refused where there is no room for all', () => {
    const keeper = new MemoryKeeper(1024, 3 * FRAME_BYTES)
    for (const nics of [1, 2]) {
      const { receiver, delivered, tally } = receiverAt(3, ['a'], keeper, nics)
      receiver.arrive('a', 3, 1, frame(3))
      receiver.arrive('a', 3, 2, frame(4))
      expect(receiver.hasRoom(FRAME_BYTES)).toBe(true)
      expect(() => receiver.inject(frames(1, 2))).toThrow(expect.objectContaining({ code: 'INJECTION_FULL' }))
      receiver.inject(frames(5))
      receiver.setOpen(0, true)
      expect(delivered).toEqual([5, 3, 4])
      expect([tally.droppedFull, keeper.bytes]).toEqual([0, 0])
    }
  })
})
