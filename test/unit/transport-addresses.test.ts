import { expect, test } from 'vitest'
import { isUsable, serviceName } from '../../protocols/discovery.ts'
import { MemberAddresses } from '../../protocols/transport-addresses.ts'

const at = (host: number): string => `/ip4/10.0.0.${host}/tcp/7400`

function nextOf(addresses: MemberAddresses, count: number): string[] {
  return Array.from({ length: count }, () => {
    const { next } = addresses
    addresses.failed()
    return next
  })
}

test('without mDNS the configured address is dialled again and again', () => {
  expect(nextOf(new MemberAddresses(at(1)), 3)).toEqual([at(1), at(1), at(1)])
})

test('after each failure the configured address and those that mDNS told of take turns', () => {
  const addresses = new MemberAddresses(at(1))
  for (const host of [3, 2, 1, 2]) addresses.found(at(host))
  expect(nextOf(addresses, 6)).toEqual([at(1), at(2), at(1), at(3), at(1), at(2)])
})

test('an address that worked is the next one again', () => {
  const addresses = new MemberAddresses(at(1))
  addresses.found(at(2))
  addresses.failed()
  expect([addresses.next, addresses.next]).toEqual([at(2), at(2)])
  expect([addresses.isFound(at(2)), addresses.isFound(at(1))]).toEqual([true, false])
})

test('a new configured address is dialled first; the same one again changes nothing', () => {
  const addresses = new MemberAddresses(at(1))
  addresses.found(at(2))
  addresses.failed()
  expect(addresses.configure(at(1))).toBe(false)
  expect(addresses.next).toBe(at(2))
  expect(addresses.configure(at(3))).toBe(true)
  expect(addresses.next).toBe(at(3))
})

test('a neighbour that lies wastes at most every second dial', () => {
  const addresses = new MemberAddresses(at(1))
  for (let host = 2; host < 250; host++) addresses.found(at(host))
  const dials = nextOf(addresses, 100)
  expect(dials.filter(address => address === at(1))).toHaveLength(50)
  expect(new Set(dials).size).toBe(5)
})

test('what mDNS is published under tells clusters apart and does not tell their names', () => {
  expect(serviceName('home')).toMatch(/^_[a-z0-9-]{1,15}\._udp\.local$/)
  expect(serviceName('home')).not.toContain('home')
  expect(serviceName('home')).not.toBe(serviceName('work'))
})

test('mDNS makes nobody look up names or dial anything but TCP', () => {
  expect(['/ip4/10.0.0.7/tcp/7400', '/ip6/fd77::7/tcp/7400'].map(isUsable)).toEqual([true, true])
  const others = ['/dns4/evil.example/tcp/7400', '/ip4/10.0.0.7/udp/7400', '/unix/x', '/ip4/10.0.0.7/tcp/1/ws', '']
  expect(others.filter(isUsable)).toEqual([])
})
