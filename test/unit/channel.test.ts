import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  ChannelReceiver,
  ChannelSender,
  type ChannelTally,
  type ReceiverLimits
} from '../../protocols/epoch/channel.ts'

const LIMITS: ReceiverLimits = {
  waiting: { frames: 1000, bytes: 1 << 20 },
  recording: { frames: 1000, bytes: 1 << 20 },
  recordings: 2
}

const frame = (id: number): Uint8Array => Uint8Array.of(id >> 8, id & 255)
const idOf = (bytes: Uint8Array): number => ((bytes[0] as number) << 8) | (bytes[1] as number)

/** A receiver whose effects are lists. */
function receiverAt(colour: number, senders: string[], limits = LIMITS) {
  const delivered: number[] = []
  const markers: number[] = []
  const recorded = new Map<number, number[]>()
  const failed = new Map<number, string>()
  const tally: ChannelTally = { lost: 0, recordedInFlight: 0, recordedRecent: 0, droppedFull: 0 }
  const receiver = new ChannelReceiver({
    colour,
    limits,
    tally,
    sink: {
      deliver: bytes => delivered.push(idOf(bytes)),
      marker: epoch => markers.push(epoch),
      recorded: (epoch, frames) => recorded.set(epoch, frames.map(idOf)),
      failed: (epoch, error) => failed.set(epoch, error.code)
    }
  })
  receiver.setSenders(senders)
  return { receiver, delivered, markers, recorded, failed, tally }
}

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

/**
 * The plain model: every send, delivery and cut of a whole group is written into one list; what was in flight is read
 * off that list at the end, by the definition.
 */
const VMS = ['a', 'b', 'c']

type Action =
  | { do: 'send'; from: number; to: number }
  | { do: 'carry'; from: number; to: number; lost: boolean }
  | { do: 'cut'; vm: number }
  | { do: 'abort'; late: number }
  | { do: 'open'; vm: number; open: boolean }
  | { do: 'count'; from: number; to: number }

const vm = fc.nat(VMS.length - 1)
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('send' as const), from: vm, to: vm }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('carry' as const),
      from: vm,
      to: vm,
      lost: fc.integer({ min: 0, max: 9 }).map(n => n === 0)
    })
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const), vm }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('abort' as const), late: vm }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('open' as const), vm, open: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('count' as const), from: vm, to: vm }) }
)

interface Sent {
  readonly id: number
  readonly colour: number
  readonly sequence: number
}
type Carried = { frame: Sent } | { colour: number; sent: number }

function runGroup(actions: readonly Action[]) {
  const nodes = VMS.map(name => {
    const outcome = receiverAt(
      0,
      VMS.filter(other => other !== name)
    )
    outcome.receiver.setOpen(true)
    return { ...outcome, sender: new ChannelSender(0), counts: new Map<number, Readonly<Record<string, number>>>() }
  })
  const at = (index: number) => nodes[index] as (typeof nodes)[number]
  const links = new Map<string, Carried[]>()
  const link = (from: number, to: number): Carried[] => {
    const key = `${from}>${to}`
    if (!links.has(key)) links.set(key, [])
    return links.get(key) as Carried[]
  }
  /** Per frame: the moments of its sending and delivery, and whether the link lost it. */
  const frames: { id: number; from: number; to: number; sentAt: number; lost: boolean; deliveredAt: number }[] = []
  /** Epoch → VM → the moment of its cut. */
  const cuts = new Map<number, Map<number, number>>()
  const abortedEpochs = new Set<number>()
  let open = 1
  let moment = 0

  const noteDeliveries = (): void => {
    for (const [to, node] of nodes.entries()) {
      for (const id of node.delivered) {
        const sent = frames[id] as (typeof frames)[number]
        expect(sent.to).toBe(to)
        if (sent.deliveredAt === Number.POSITIVE_INFINITY) sent.deliveredAt = moment
      }
    }
  }
  const carry = (from: number, to: number, lost: boolean): void => {
    const carried = link(from, to).shift()
    if (carried === undefined) return
    const name = VMS[from] as string
    if (lost) {
      if ('frame' in carried) (frames[carried.frame.id] as (typeof frames)[number]).lost = true
    } else if ('frame' in carried) {
      at(to).receiver.arrive(name, carried.frame.colour, carried.frame.sequence, frame(carried.frame.id))
    } else at(to).receiver.turned(name, carried.colour, carried.sent)
  }
  const cut = (index: number): void => {
    const node = at(index)
    if (node.receiver.colour >= open) return
    if (!cuts.has(open)) cuts.set(open, new Map())
    cuts.get(open)?.set(index, moment)
    moment++
    node.receiver.turn(open, [])
    node.counts.set(open, node.sender.turn(open))
    for (const to of VMS.keys()) {
      if (to !== index) link(index, to).push({ colour: open, sent: node.sender.sentBeforeTurn(VMS[to] as string) })
    }
  }
  const abandon = (index: number, epoch: number): void => {
    const node = at(index)
    node.receiver.abandon(epoch)
    if (node.sender.colour < epoch) node.sender.turn(epoch)
  }
  const count = (from: number, to: number): void => {
    const counts = at(from).counts.get(open)
    if (counts !== undefined && from !== to)
      at(to).receiver.expect(open, VMS[from] as string, counts[VMS[to] as string] ?? 0)
  }
  const step = (next: Action): void => {
    if (next.do === 'send' && next.from !== next.to) {
      const { sender } = at(next.from)
      const id = frames.length
      frames.push({
        id,
        from: next.from,
        to: next.to,
        sentAt: moment,
        lost: false,
        deliveredAt: Number.POSITIVE_INFINITY
      })
      const sequence = sender.next(VMS[next.to] as string)
      link(next.from, next.to).push({ frame: { id, colour: sender.colour, sequence } })
    } else if (next.do === 'carry') carry(next.from, next.to, next.lost)
    else if (next.do === 'cut') cut(next.vm)
    else if (next.do === 'open') at(next.vm).receiver.setOpen(next.open)
    else if (next.do === 'count') count(next.from, next.to)
    else if (next.do === 'abort') {
      abortedEpochs.add(open)
      // One VM learns of it only by the next epoch, which is opened at once.
      for (const index of VMS.keys()) if (index !== next.late) abandon(index, open)
      open++
    }
  }

  for (const next of actions) {
    moment++
    step(next)
    noteDeliveries()
    const whole = nodes.every(
      node => node.receiver.colour === open && (node.recorded.has(open) || node.failed.has(open))
    )
    if (whole) open++
  }
  // Then faults stop: the open epoch ends, and so does one more.
  for (let round = 0; round < 2; round++) {
    for (const index of VMS.keys()) at(index).receiver.setOpen(true)
    noteDeliveries()
    for (const index of VMS.keys()) cut(index)
    for (const from of VMS.keys()) {
      for (const to of VMS.keys()) while (link(from, to).length > 0) carry(from, to, false)
    }
    for (const from of VMS.keys()) for (const to of VMS.keys()) count(from, to)
    moment++
    noteDeliveries()
    if (round === 0) open++
  }
  return { nodes, frames, cuts, abortedEpochs, last: open }
}

describe('random schedules of a group against the plain model', () => {
  it('deliver no early frame before the cut, record every in-flight frame once, lose none, keep the order', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 150 }), actions => {
        const { nodes, frames, cuts, abortedEpochs, last } = runGroup(actions)
        for (const { delivered } of nodes) {
          expect(new Set(delivered).size).toBe(delivered.length)
          for (const from of VMS.keys()) {
            const ofChannel = delivered.filter(id => frames[id]?.from === from)
            expect(ofChannel).toEqual(ofChannel.toSorted((x, y) => x - y))
          }
        }
        for (const { lost, deliveredAt } of frames) expect(deliveredAt === Number.POSITIVE_INFINITY).toBe(lost)
        for (const [epoch, moments] of cuts) {
          if (abortedEpochs.has(epoch) || moments.size < VMS.length) continue
          for (const [to, node] of nodes.entries()) {
            const sentBefore = frames.filter(f => f.to === to && f.sentAt <= (moments.get(f.from) as number))
            const inFlight = sentBefore.filter(f => !f.lost && f.deliveredAt > (moments.get(to) as number))
            expect(node.recorded.get(epoch)?.toSorted((x, y) => x - y)).toEqual(inFlight.map(f => f.id))
            const early = frames.filter(f => f.to === to && f.sentAt > (moments.get(f.from) as number))
            for (const f of early) expect(f.deliveredAt).toBeGreaterThan(moments.get(to) as number)
          }
        }
        expect(cuts.get(last)?.size).toBe(VMS.length) // one lost frame did not block what came later
      }),
      { numRuns: 2000 }
    )
  })
})
