import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeAddresses, type HeardAddress, takeAddresses } from '../../node/switch/addresses.ts'
import { macNumber } from '../../node/switch/ethernet.ts'
import { Network } from '../../node/switch/network.ts'

function networkOf(...vms: string[]) {
  const network = new Network()
  const stations = vms.map((vm, at) => ({ group: 'g', vm, nic: 0, mac: 0x525400000000 + at, owner: 'p', network }))
  network.setStations('g', stations)
  return { network, stations }
}

const X = macNumber('52:54:00:00:01:00')

describe('addresses on a network', () => {
  it('are forgotten when nothing was heard from them for five minutes', () => {
    const { network, stations } = networkOf('a', 'b')
    expect(network.admit(stations[1] as never, X, 0)).toBe(true)
    expect(network.find(X, 299_999)?.vm).toBe('b')
    expect(network.find(X, 300_000)).toBeUndefined()
    network.admit(stations[1] as never, X, 299_000)
    expect(network.find(X, 598_000)?.vm).toBe('b')
    expect(network.behind(stations[1] as never, 598_000)).toEqual([X])
    expect(network.behind(stations[1] as never, 599_000)).toEqual([])
  })

  it("of groups of hosts are nobody's to send from", () => {
    const { network, stations } = networkOf('a')
    expect(network.admit(stations[0] as never, macNumber('ff:ff:ff:ff:ff:ff'), 0)).toBe(false)
    expect(network.admit(stations[0] as never, macNumber('01:00:5e:00:00:01'), 0)).toBe(false)
  })

  it('that a VM invents displace the oldest, and no declared one', () => {
    const { network, stations } = networkOf('a', 'b')
    for (let at = 0; at <= 4096; at++) network.admit(stations[0] as never, X + at, at)
    expect(network.find(X, 4096)).toBeUndefined()
    expect(network.find(X + 4096, 4096)?.vm).toBe('a')
    expect(network.find(0x525400000001, 4096)?.vm).toBe('b')
  })

  it('stay behind a VM whose group changes, and go with it', () => {
    const { network, stations } = networkOf('a', 'b')
    network.admit(stations[1] as never, X, 0)
    const moved = stations.map(station => ({ ...station, owner: 'q' }))
    network.setStations('g', moved)
    expect(network.find(X, 1)?.owner).toBe('q')
    network.setStations('g', moved.slice(0, 1))
    expect(network.find(X, 1)).toBeUndefined()
    network.setStations('g', [])
    expect(network.stations).toEqual([])
  })
})

describe('addresses in an image', () => {
  const address: fc.Arbitrary<HeardAddress> = fc.record({ nic: fc.nat(7), mac: fc.nat(2 ** 48 - 1) })

  it('come back as they were, and what follows them is untouched', () => {
    const frames = fc.uint8Array({ maxLength: 50 }).map(bytes => Uint8Array.of(0, ...bytes))
    fc.assert(
      fc.property(fc.array(address), frames, (addresses, rest) => {
        const taken = takeAddresses(Buffer.concat([encodeAddresses(addresses), rest]))
        expect({ addresses: taken.addresses, rest: [...taken.rest] }).toEqual({ addresses, rest: [...rest] })
      })
    )
  })

  it('in no known format are refused', () => {
    const record = encodeAddresses([{ nic: 0, mac: X }])
    const otherFormat = Uint8Array.from(record)
    otherFormat[4] = 2
    for (const bad of [
      otherFormat,
      record.slice(0, -1),
      record.slice(0, 3),
      Uint8Array.of(0xff, 0, 0, 5, 1, 0, 0, 0, 0)
    ]) {
      expect(() => takeAddresses(bad)).toThrow(expect.objectContaining({ code: 'FRAMES_MALFORMED' }))
    }
  })
})
