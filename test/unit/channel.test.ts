import { describe, expect, it } from 'vitest'
import { ChannelSender } from '../../protocols/epoch/channel.ts'
import { frame, LIMITS, receiverAt } from './channel-receiver.ts'

describe('a frame at a receiver (Mattern 1993, section 3; Lai-Yang 1987, section 2)', () => {
  it('of the same colour is delivered', () => {
    const { receiver, delivered } = receiverAt(3, ['a'])
    receiver.setOpen(true)
    expect(receiver.arrive('a', 3, 1, frame(7))).toBe('delivered')
    expect(delivered).toEqual([7])
  })

  it('of a newer colour is early: held, and the cut is asked for once', () => {
    const { receiver, delivered, markers } = receiverAt(3, ['a'])
    receiver.setOpen(true)
    expect(receiver.arrive('a', 4, 1, frame(1))).toBe('early')
    expect(receiver.arrive('a', 4, 2, frame(2))).toBe('early')
    expect(delivered).toEqual([])
    expect(markers).toEqual([4])
    receiver.turn(4, [])
    expect(delivered).toEqual([1, 2])
  })

  it('does not wait behind early frames of another sender', () => {
    const { receiver, delivered } = receiverAt(3, ['a', 'b'])
    receiver.setOpen(true)
    receiver.arrive('a', 4, 1, frame(1))
    receiver.arrive('b', 3, 1, frame(2))
    expect(delivered).toEqual([2])
  })

  it('of an older colour is in flight: delivered and recorded', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'])
    receiver.setOpen(true)
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
    receiver.setOpen(true)
    expect(recorded.get(4)).toEqual([9, 1])
    expect(delivered).toEqual([1])
  })

  it('held as early for an epoch that was aborted is in flight for the next', () => {
    const { receiver, delivered, recorded } = receiverAt(3, ['a'])
    receiver.setOpen(true)
    receiver.arrive('a', 4, 1, frame(1))
    receiver.turn(5, [])
    receiver.turned('a', 5, 1)
    expect(delivered).toEqual([1])
    expect(recorded.get(5)).toEqual([1])
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
    receiver.setOpen(true)
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
    receiver.setOpen(true)
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

describe('limits', () => {
  it('drop the oldest waiting frame and count it', () => {
    const { receiver, delivered, tally } = receiverAt(3, ['a'], { ...LIMITS, waiting: { frames: 2, bytes: 100 } })
    for (const id of [1, 2, 3]) receiver.arrive('a', 3, id, frame(id))
    receiver.setOpen(true)
    expect(delivered).toEqual([2, 3])
    expect(tally.droppedFull).toBe(1)
  })

  it('fail a recording that outgrows them, and deliver all the same', () => {
    const { receiver, delivered, failed } = receiverAt(3, ['a'], { ...LIMITS, recording: { frames: 1, bytes: 100 } })
    receiver.setOpen(true)
    receiver.turn(4, [])
    for (const id of [1, 2]) receiver.arrive('a', 3, id, frame(id))
    expect(failed.get(4)).toBe('RECORDING_FULL')
    expect(delivered).toEqual([1, 2])
  })

  it('do not count injected frames, which come first', () => {
    const { receiver, delivered } = receiverAt(3, ['a'], { ...LIMITS, waiting: { frames: 1, bytes: 100 } })
    receiver.arrive('a', 3, 1, frame(3))
    receiver.inject([frame(1), frame(2)])
    receiver.setOpen(true)
    expect(delivered).toEqual([1, 2, 3])
  })
})
