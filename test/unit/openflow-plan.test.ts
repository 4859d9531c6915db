import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { FlowEntry } from '../../protocols/openflow/messages.ts'
import { changesOf } from '../../node/switch/openflow/changes.ts'
import { queuedBytes } from '../../node/switch/openflow/packet-queue.ts'
import {
  ahead,
  type BridgeGroup,
  type BridgeStation,
  type BridgeVm,
  COOKIE,
  COOKIE_MASK,
  type Inbound,
  MARKER_COOKIE,
  planFlows
} from '../../node/switch/openflow/plan.ts'
import { MARKER_TYPE, markerFrame, readMarker, readTagged, tagOf, untagged } from '../../node/switch/openflow/tagged.ts'
import { after, type Frame, outcome } from './openflow-tables.ts'

const UP = 0xffff_fffd
const ALL = 0xffff_ffff_ffff
const IP = 0x0800
const TAG = 5

/** a and b are here at ports 1 and 2; x and y are with the peer behind port 9, z with the one behind port 8. */
const stations: readonly BridgeStation[] = [
  { vm: 'a', nic: 0, mac: 0xa, network: 1, port: 1, local: true },
  { vm: 'b', nic: 0, mac: 0xb, network: 1, port: 2, local: true },
  { vm: 'x', nic: 0, mac: 0xc, network: 1, port: 9, local: false },
  { vm: 'y', nic: 0, mac: 0xd, network: 1, port: 9, local: false },
  { vm: 'z', nic: 0, mac: 0xe, network: 1, port: 8, local: false }
]
const flowing = (colour: number): BridgeVm => ({ colour, inbound: 'direct', recording: false })
const group = (vms: Record<string, BridgeVm>, rest: Partial<BridgeGroup> = {}): BridgeGroup => ({
  id: 'bank',
  tag: TAG,
  stations,
  vms: new Map(Object.entries(vms)),
  acting: true,
  ...rest
})
const entriesOf = (...groups: BridgeGroup[]): readonly FlowEntry[] => planFlows(groups).entries

const from = (inPort: number, ethSrc: number, ethDst: number): Frame => {
  return { inPort, ethSrc, ethDst, ethType: IP, tag: undefined }
}
/** From the peer behind port 9, of VM x. */
const fromX = (pcp: number, ethDst = 0xb, vid = TAG): Frame => {
  return { inPort: 9, ethSrc: 0xc, ethDst, ethType: IP, tag: { vid, pcp } }
}
const up = (pcp: number) => `${UP} tagged ${TAG}/${pcp}`

describe('the entries of a bridge', () => {
  const entries = entriesOf(group({ a: flowing(3), b: flowing(3) }))

  it('carry frames between VMs of this peer, and to VMs of others with tag and colour', () => {
    expect(outcome(entries, from(1, 0xa, 0xb))).toEqual(['2'])
    expect(outcome(entries, from(1, 0xa, 0xd))).toEqual([`9 tagged ${TAG}/3`])
    expect(outcome(entries, fromX(3))).toEqual(['2'])
  })

  it('carry broadcasts to everybody once, but not back, and from a peer to nobody but ours', () => {
    expect(outcome(entries, from(1, 0xa, ALL))).toEqual(['2', `8 tagged ${TAG}/3`, `9 tagged ${TAG}/3`])
    expect(outcome(entries, fromX(3, ALL))).toEqual(['1', '2'])
  })

  it('drop frames under the address of another VM, of another generation, to nobody, and between other peers', () => {
    const dropped = [
      from(1, 0xb, 0xb),
      from(9, 0xc, 0xb),
      fromX(3, 0xb, TAG - 1),
      { ...fromX(3), inPort: 8 },
      { ...fromX(3), ethSrc: 0xa },
      from(1, 0xa, 0xf),
      fromX(3, 0xe)
    ]
    expect(dropped.map(frame => outcome(entries, frame))).toEqual(dropped.map(() => []))
  })

  it('keep networks and groups apart', () => {
    const other = stations.map(station => ({ ...station, vm: `${station.vm}2`, mac: station.mac + 0x100, network: 2 }))
    const ports = other.map(station => (station.local ? { ...station, port: station.port + 10 } : station))
    const second = group({ a2: flowing(0), b2: flowing(0) }, { id: 'shop', tag: 6, stations: ports })
    const both = entriesOf(group({ a: flowing(3), b: flowing(3) }), second)
    expect(outcome(both, from(1, 0xa, 0x10b))).toEqual([])
    expect(outcome(both, from(1, 0xa, ALL))).toEqual(['2', `8 tagged ${TAG}/3`, `9 tagged ${TAG}/3`])
    expect(outcome(both, from(11, 0x10a, 0x10b))).toEqual(['12'])
  })

  it('take markers from peers, and none from VMs', () => {
    expect(outcome(entries, { ...fromX(4, ALL), ethType: MARKER_TYPE })).toEqual([up(4)])
    expect(outcome(entries, { ...from(1, 0xa, ALL), ethType: MARKER_TYPE })).toEqual([])
    const { cookie } = entries.find(({ match }) => match.inPort === 9 && match.ethType === MARKER_TYPE) as FlowEntry
    expect(cookie).toBe(MARKER_COOKIE)
  })

  it('let nothing out and nothing in where the peer may not act', () => {
    const fenced = entriesOf(group({ a: flowing(3), b: flowing(3) }, { acting: false }))
    expect(outcome(fenced, from(1, 0xa, 0xb))).toEqual([])
    expect(outcome(fenced, fromX(3))).toEqual([up(3)])
  })
})

describe('a cut', () => {
  it('of the sender: its new colour goes up, towards a VM that is not cut', () => {
    const entries = entriesOf(group({ a: flowing(4), b: flowing(3) }))
    expect(outcome(entries, from(1, 0xa, 0xb))).toEqual([up(4)])
    expect(outcome(entries, fromX(4))).toEqual([up(4)])
    expect(outcome(entries, fromX(3))).toEqual(['2'])
  })

  it('of the receiver: the old colour goes by the peer, as long as it is recorded', () => {
    const cut = { colour: 4, inbound: 'direct', recording: true } as const
    const entries = entriesOf(group({ a: flowing(3), b: cut }))
    expect(outcome(entries, from(1, 0xa, 0xb))).toEqual([up(3)])
    expect(outcome(entries, fromX(4))).toEqual(['2'])
    expect(outcome(entriesOf(group({ b: flowing(4) })), fromX(3))).toEqual(['2'])
  })

  it('has all frames for a VM that is held go up, and for one that is about to be, both', () => {
    const at = (inbound: Inbound) => entriesOf(group({ a: flowing(3), b: { colour: 3, inbound, recording: false } }))
    expect([2, 3, 4].map(pcp => outcome(at('held'), fromX(pcp)))).toEqual([[up(2)], [up(3)], [up(4)]])
    expect([2, 3, 4].map(pcp => outcome(at('copied'), fromX(pcp)))).toEqual([['2', up(2)], ['2', up(3)], [up(4)]])
  })

  it('says by the cookie who of a broadcast has had it and who not', () => {
    const { entries, ups } = planFlows([
      group({ a: { ...flowing(4), inbound: 'copied' }, b: { ...flowing(4), inbound: 'held' } })
    ])
    expect(outcome(entries, fromX(4, ALL))).toEqual(['1', up(4)])
    const entry = entries.find(({ match }) => match.multicast && match.vlanPcp === 4) as FlowEntry
    expect(entry.cookie & COOKIE_MASK).toBe(COOKIE)
    expect(ups.get(entry.cookie)).toEqual({
      group: 'bank',
      held: [{ vm: 'b', nic: 0 }],
      copied: [{ vm: 'a', nic: 0 }]
    })
  })
})

const colour = fc.nat(40)
const inbound = fc.constantFrom<Inbound>('direct', 'copied', 'held')
const facts = fc.record({ colour, inbound, recording: fc.boolean() })
const groups = fc.record({ a: facts, b: facts, acting: fc.boolean(), tag: fc.constantFrom(TAG, TAG + 1) })
const planOf = ({ a, b, ...rest }: { a: BridgeVm; b: BridgeVm; acting: boolean; tag: number }) =>
  entriesOf(group({ a, b }, rest))

describe('colours in three bits', () => {
  it('are told apart as the channel core tells them, up to four ahead and three behind', () => {
    fc.assert(
      fc.property(facts, fc.integer({ min: -3, max: 4 }), (receiver, distance) => {
        const sender = receiver.colour + distance
        expect(ahead(((sender % 8) + 8) % 8, receiver.colour)).toBe(distance)
        const byPeer = distance > 0 || receiver.inbound === 'held' || (distance < 0 && receiver.recording)
        const toPeer = byPeer || receiver.inbound === 'copied'
        const toVm = !byPeer
        const pcp = ((sender % 8) + 8) % 8
        const entries = entriesOf(group({ b: receiver }))
        expect(outcome(entries, fromX(pcp))).toEqual([...(toVm ? ['2'] : []), ...(toPeer ? [up(pcp)] : [])])
      })
    )
  })
})

describe('a change of entries', () => {
  /** A frame of each kind. */
  const frames = [from(1, 0xa, 0xb), from(1, 0xa, 0xd), from(1, 0xa, ALL), ...[0, 3, 7].map(pcp => fromX(pcp))]

  it('ends with the entries that are wanted, and is none where they are there', () => {
    fc.assert(
      fc.property(groups, groups, (one, two) => {
        const [before, wanted] = [planOf(one), planOf(two)]
        let entries: readonly FlowEntry[] = before
        for (const message of changesOf(before, wanted)) entries = after(entries, message)
        for (const frame of frames) expect(outcome(entries, frame)).toEqual(outcome(wanted, frame))
        expect(changesOf(entries, wanted)).toEqual([])
        expect(entries.length).toBe(wanted.length)
      })
    )
  })

  it('lets no frame fall through on the way which neither the old entries nor the new ones would drop', () => {
    fc.assert(
      fc.property(groups, groups, (one, two) => {
        const [before, wanted] = [planOf(one), planOf(two)]
        const kept = frames.filter(frame => outcome(before, frame).length > 0 && outcome(wanted, frame).length > 0)
        let entries: readonly FlowEntry[] = before
        for (const message of changesOf(before, wanted)) {
          entries = after(entries, message)
          for (const frame of kept) expect(outcome(entries, frame)).not.toEqual([])
        }
      })
    )
  })
})

describe('a frame between bridges', () => {
  const marker = markerFrame({ generation: 70_000, colour: 11, source: 0x52_54_00_12_34_56, vid: 9 })

  it('is told by its tag, and loses it on the way to the VM', () => {
    const tagged = { vid: 9, pcp: 3, source: 0x52_54_00_12_34_56, destination: ALL, multicast: true, type: MARKER_TYPE }
    expect(readTagged(marker)).toEqual(tagged)
    const packet = untagged(marker, 2)
    expect([packet[0], Buffer.from(packet).readUIntBE(1, 3)]).toEqual([2, marker.length - 4])
    expect([...packet.subarray(4, 16)]).toEqual([...marker.subarray(0, 12)])
    expect(Buffer.from(packet).readUInt16BE(16)).toBe(MARKER_TYPE)
    expect(readTagged(packet.subarray(4))).toBeUndefined()
  })

  it('is a marker where it says so', () => {
    expect(readMarker(marker)).toEqual({ generation: 70_000, colour: 11 })
    for (const at of [13, 17, 18]) {
      const other = Uint8Array.from(marker)
      other[at] = 0xee
      expect(readMarker(other)).toBeUndefined()
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 70 }), bytes => readMarker(bytes) === undefined))
  })

  it('has a tag that is in the range of VLANs, and another one in the next generation', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 32 - 2), generation => {
        const tag = tagOf('bank', generation)
        expect(tag).toBeGreaterThan(0)
        expect(tag).toBeLessThan(4095)
        expect(tagOf('bank', generation + 1)).not.toBe(tag)
      })
    )
  })
})

describe('what a bridge has not read yet', () => {
  const head = 'sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n'

  it('is the sum over the packet sockets of the interface', () => {
    const line = (iface: number, bytes: number) => `00000000abc 3 3 0003 ${iface} 1 ${bytes} 0 4711\n`
    expect(queuedBytes(head + line(7, 0) + line(12, 2304) + line(12, 100), 12)).toBe(2404)
    expect(queuedBytes(head, 12)).toBe(0)
  })

  it('is not taken from a table of another form', () => {
    expect(() => queuedBytes('nothing', 12)).toThrow(expect.objectContaining({ code: 'OPENFLOW_QUEUE' }))
  })
})
