import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Action, GroupModel, VMS } from './channel-model.ts'

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
  { weight: 2, arbitrary: fc.record({ do: fc.constant('count' as const), from: vm, to: vm }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('disk' as const), vm, write: fc.boolean() }) }
)

describe('random schedules of a group against the plain model', () => {
  it('deliver no early frame before the cut, record every in-flight frame once, lose none, keep the order', () => {
    let chunksOnDisk = 0
    fc.assert(
      fc.property(fc.array(action, { maxLength: 300, size: 'max' }), actions => {
        const group = new GroupModel()
        for (const next of actions) group.act(next)
        group.finish()
        const { nodes, frames, cuts, abortedEpochs } = group
        for (const [to, { delivered }] of nodes.entries()) {
          for (const id of delivered) expect(frames[id]?.to).toBe(to)
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
        for (const { keeper } of nodes) {
          expect(keeper.bytes).toBe(0)
          chunksOnDisk += keeper.chunksWritten
        }
        expect(cuts.get(group.epoch)?.size).toBe(VMS.length) // one lost frame did not block what came later
      }),
      { numRuns: 600 }
    )
    expect(chunksOnDisk).toBeGreaterThan(100)
  })
})
