import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type EpochNews, OutputHold } from '../../protocols/epoch/output-hold.ts'
import { FRAME_BYTES, frame } from './channel-receiver.ts'
import { DiskKeeper, MemoryKeeper } from './chunk-keepers.ts'

const idOf = (packet: Uint8Array): number => ((packet[4] as number) << 8) | (packet[5] as number)
const VMS = ['a', 'b', 'c']
const GENERATION = 3
/** The epoch that the VMs began with: taken by an older generation. */
const FIRST = { epoch: 4, generation: GENERATION - 1, previousEpoch: 0, images: {} }

const idle = (lastEpoch: number, committed: EpochNews['committed'] = FIRST): EpochNews => ({
  generation: GENERATION,
  lastEpoch,
  open: null,
  committed
})
const opened = (epoch: number, committed: EpochNews['committed'] = FIRST): EpochNews => ({
  ...idle(epoch, committed),
  open: { epoch, proposer: 'p1', deadlineMs: 1 }
})
const committedAs = (epoch: number): NonNullable<EpochNews['committed']> => ({
  ...FIRST,
  epoch,
  generation: GENERATION
})

function holdWith(keeper = new MemoryKeeper(2 * FRAME_BYTES)) {
  const events = { ready: 0, lost: 0 }
  const hold = new OutputHold({
    generation: GENERATION,
    keeper,
    ready: () => events.ready++,
    lost: frames => {
      events.lost += frames
    }
  })
  hold.learn(idle(4), 0)
  const out = (): [string, number][] => {
    const ids: [string, number][] = []
    for (let next = hold.shift(); next !== undefined; next = hold.shift()) ids.push([next.source, idOf(next.packet)])
    return ids
  }
  return { hold, keeper, events, out }
}

describe('frames to the outside', () => {
  it('wait for the epoch after their colour, each VM in its order', () => {
    const { hold, out } = holdWith()
    for (const id of [1, 2]) hold.hold('a', 4, frame(id), 0)
    hold.hold('b', 4, frame(3), 0)
    hold.learn(opened(5), 10)
    hold.hold('a', 5, frame(4), 10) // a has been cut, b has not
    hold.hold('b', 4, frame(5), 10)
    expect(out()).toEqual([])
    hold.learn(idle(5, committedAs(5)), 20)
    const left = out()
    expect(left.filter(([vm]) => vm === 'a')).toEqual([
      ['a', 1],
      ['a', 2]
    ])
    expect(left.filter(([vm]) => vm === 'b')).toEqual([
      ['b', 3],
      ['b', 5]
    ])
    expect(hold.frames).toBe(1)
    hold.learn(idle(6, committedAs(6)), 30)
    expect(out()).toEqual([['a', 4]])
  })

  it('outlast epochs that come to nothing, and leave with the next that is committed', () => {
    const { hold, keeper, out } = holdWith()
    hold.hold('a', 4, frame(1), 0)
    for (let epoch = 5; epoch < 50; epoch++) {
      hold.learn(opened(epoch), epoch)
      hold.hold('a', epoch, frame(epoch), epoch)
      hold.learn(idle(epoch), epoch)
    }
    expect(out()).toEqual([])
    hold.learn(idle(51, committedAs(51)), 100) // the record between was missed
    expect(out().map(([, id]) => id)).toEqual([1, ...Array.from({ length: 45 }, (_, i) => i + 5)])
    expect([hold.frames, keeper.bytes]).toEqual([0, 0])
  })

  it('do not leave by the epoch that their generation began with, nor by news of another generation', () => {
    const { hold, out } = holdWith()
    hold.hold('a', 4, frame(1), 0)
    hold.learn(idle(9, { ...FIRST, epoch: 9 }), 0)
    hold.learn({ ...idle(9, committedAs(9)), generation: GENERATION + 1 }, 0)
    expect(out()).toEqual([])
  })

  it('are forgotten with their generation, also those that might have left', () => {
    const { hold, keeper, out } = holdWith()
    hold.hold('a', 4, frame(1), 0)
    hold.learn(idle(5, committedAs(5)), 0)
    for (const id of [2, 3]) hold.hold('b', 5, frame(id), 0)
    expect(hold.clear()).toBe(3)
    expect(out()).toEqual([])
    expect([hold.frames, keeper.bytes]).toEqual([0, 0])
  })

  it('tell how long the longest has waited: for its epoch, or until now', () => {
    const { hold } = holdWith()
    expect(hold.longestMs(5)).toBe(0)
    hold.hold('a', 4, frame(1), 10)
    hold.hold('a', 5, frame(2), 20)
    hold.hold('b', 4, frame(3), 25)
    expect(hold.longestMs(30)).toBe(20)
    hold.learn(idle(5, committedAs(5)), 40)
    expect(hold.longestMs(41)).toBe(30)
    expect(hold.longestMs(60)).toBe(40)
  })

  it('are refused where there is no room, and count those that a disk has lost', () => {
    const none = holdWith(new MemoryKeeper(1024, 2 * FRAME_BYTES))
    expect([1, 2, 3].map(id => none.hold.hold(`v${id}`, 4, frame(id), id))).toEqual([true, true, false])
    expect(none.hold.longestMs(3)).toBe(2)
    const keeper = new DiskKeeper(2 * FRAME_BYTES)
    const { hold, events, out } = holdWith(keeper)
    for (const id of [1, 2, 3, 4, 5]) hold.hold('a', 4, frame(id), 0)
    keeper.write()
    hold.learn(idle(5, committedAs(5)), 0)
    expect(out()).toEqual([])
    keeper.read(true)
    expect(events.ready).toBeGreaterThan(0)
    expect(out()).toEqual([['a', 5]])
    expect(events.lost).toBe(4)
  })
})

type Action =
  | { readonly do: 'send' | 'cut' | 'take the colour'; readonly vm: number }
  | { readonly do: 'open' | 'commit' | 'abort'; readonly heard: boolean }
  | { readonly do: 'shift' | 'write' | 'read' | 'hear' }

const vm = fc.nat(VMS.length - 1)
const heard = fc.integer({ min: 0, max: 3 }).map(n => n > 0)
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('send' as const), vm }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('cut' as const, 'take the colour' as const), vm }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom('open' as const, 'commit' as const, 'abort' as const), heard })
  },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constantFrom('shift' as const, 'write' as const, 'read' as const, 'hear' as const) })
  }
)

/** A group by the definitions: a frame is safe when a committed image of its VM was made after it was sent. */
class Group {
  readonly keeper = new DiskKeeper(2 * FRAME_BYTES)
  readonly #parts = holdWith(this.keeper)
  readonly #colours = VMS.map(() => FIRST.epoch)
  /** Of the open epoch: VM → how many frames all VMs had sent when it was cut. */
  #cuts = new Map<number, number>()
  #record: EpochNews = idle(FIRST.epoch)
  /** As this peer knows it. */
  #known = this.#record
  readonly sent: { readonly vm: string; containedIn: number | undefined }[] = []
  readonly out: number[] = []
  readonly wrong: string[] = []

  act(next: Action): void {
    const { hold } = this.#parts
    const { open, lastEpoch } = this.#record
    if (next.do === 'send') {
      hold.hold(VMS[next.vm] as string, this.#colours[next.vm] as number, frame(this.sent.length), 0)
      this.sent.push({ vm: VMS[next.vm] as string, containedIn: undefined })
    } else if (next.do === 'cut') this.#cut(next.vm)
    else if (next.do === 'take the colour') {
      // Of an aborted epoch, which this peer has heard of.
      const epoch = this.#known.open === null ? this.#known.lastEpoch : 0
      this.#colours[next.vm] = Math.max(epoch, this.#colours[next.vm] as number)
    } else if (next.do === 'open') {
      if (open === null) this.#decide({ ...opened(lastEpoch + 1), committed: this.#record.committed }, next.heard)
    } else if (next.do === 'abort') {
      if (open !== null) this.#decide({ ...this.#record, open: null }, next.heard)
    } else if (next.do === 'commit') this.#commit(next.heard)
    else if (next.do === 'hear') this.#hear()
    else if (next.do === 'write') this.keeper.write()
    else if (next.do === 'read') this.keeper.read()
    else this.shift()
  }

  shift(): boolean {
    const next = this.#parts.hold.shift()
    if (next === undefined) return false
    const id = idOf(next.packet)
    const { vm: sender, containedIn } = this.sent[id] as (typeof this.sent)[number]
    if (sender !== next.source) this.wrong.push(`frame ${id} of ${sender} is said to be of ${next.source}`)
    if (containedIn === undefined) this.wrong.push(`frame ${id} left before its epoch`)
    this.out.push(id)
    return true
  }

  /** The open epoch and one more, of which all hear: everything leaves. */
  finish(): void {
    this.#commit(false)
    this.act({ do: 'open', heard: true })
    this.#commit(true)
    for (let left = this.sent.length; left >= 0; left--) {
      this.keeper.read()
      while (this.shift()) continue
    }
  }

  /** What the open epoch's cuts contain, and only that, is safe then. */
  #commit(isHeard: boolean): void {
    const { open } = this.#record
    if (open === null) return
    for (const each of VMS.keys()) this.#cut(each)
    for (const [each, count] of this.#cuts) {
      for (const frame of this.sent.slice(0, count)) if (frame.vm === VMS[each]) frame.containedIn ??= open.epoch
    }
    this.#decide({ ...this.#record, open: null, committed: committedAs(open.epoch) }, isHeard)
  }

  #cut(each: number): void {
    const { open } = this.#record
    if (open === null || this.#cuts.has(each)) return
    this.#cuts.set(each, this.sent.length)
    this.#colours[each] = open.epoch
  }

  #decide(record: EpochNews, isHeard: boolean): void {
    this.#record = record
    this.#cuts = new Map()
    if (isHeard) this.#hear()
  }

  #hear(): void {
    this.#known = this.#record
    this.#parts.hold.learn(this.#record, 0)
  }
}

describe('random schedules of a group against a plain model', () => {
  it('let nothing out before an epoch contains it, lose nothing, and keep the order of each VM', () => {
    let chunksOnDisk = 0
    fc.assert(
      fc.property(fc.array(action, { maxLength: 300, size: 'max' }), actions => {
        const group = new Group()
        for (const next of actions) group.act(next)
        group.finish()
        const { out, sent, wrong, keeper } = group
        expect(wrong).toEqual([])
        expect(out.toSorted((x, y) => x - y)).toEqual([...sent.keys()])
        for (const name of VMS) {
          const ofVm = out.filter(id => sent[id]?.vm === name)
          expect(ofVm).toEqual(ofVm.toSorted((x, y) => x - y))
        }
        expect(keeper.bytes).toBe(0)
        chunksOnDisk += keeper.chunksWritten
      }),
      { numRuns: 400 }
    )
    expect(chunksOnDisk).toBeGreaterThan(100)
  })
})
