/** What a peer tells everybody on its network segment by mDNS, and when it tells nothing. The multicast itself is a fake. */
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import type { Multiaddr } from '@multiformats/multiaddr'
import { afterEach, expect, test, vi } from 'vitest'
import { serviceName } from '../../protocols/discovery.ts'
import { createTransport } from '../../protocols/transport.ts'
import { clock, memoryLog } from './store-support.ts'

interface Aloud {
  readonly serviceTag: string
  /** All that the service of mDNS is given to tell, by its names. */
  readonly parts: { readonly addressManager: { getAddresses(): Multiaddr[] } }
}

const said = vi.hoisted(() => [] as Aloud[])

vi.mock('@libp2p/mdns', () => ({
  mdns: (init: { serviceTag: string }) => (parts: Aloud['parts']) => {
    said.push({ serviceTag: init.serviceTag, parts })
    return Object.assign(new EventTarget(), { start: async () => {}, stop: async () => {} })
  }
}))

afterEach(() => void said.splice(0))

/** What a peer of the cluster "forest" says, and its id and port. */
async function peer(mdns: boolean) {
  const privateKey = await generateKeyPair('Ed25519')
  const id = peerIdFromPrivateKey(privateKey).toString()
  const listen = '/ip4/127.0.0.1/tcp/0'
  const member = { id, name: 'oak', address: listen }
  const log = memoryLog()
  const transport = await createTransport({
    privateKey,
    listen,
    mdns,
    cluster: 'forest',
    members: [member],
    log,
    clock
  })
  await transport.start()
  const heard = said.map(({ serviceTag, parts: { addressManager, ...others } }) => ({
    serviceTag,
    addresses: addressManager.getAddresses().map(String),
    others: Object.keys(others)
  }))
  await transport.stop()
  return { id, heard }
}

test('with mDNS everybody on the network segment hears ids, addresses, and a name made of that of the cluster', async () => {
  const { id, heard } = await peer(true)
  const address = expect.stringMatching(new RegExp(`^/ip4/127\\.0\\.0\\.1/tcp/[1-9]\\d*/p2p/${id}$`))
  expect(heard).toEqual([{ serviceTag: serviceName('forest'), addresses: [address], others: ['logger'] }])
  expect(JSON.stringify(heard)).not.toMatch(/forest|oak/)
})

test('without mDNS a peer says nothing to its network segment', async () => {
  expect((await peer(false)).heard).toEqual([])
})
