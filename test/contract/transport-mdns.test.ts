/** Members that look for each other on a LAN: a network namespace of their own, so that nobody else hears them. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import type { Member } from '../../protocols/transport.ts'
import type { MdnsPeer, MdnsResult } from './transport-mdns-child.ts'
import { cleanUp, cleanups, type Host, hosts, publicPart } from './transport-support.ts'

const CHILD = fileURLToPath(new URL('transport-mdns-child.ts', import.meta.url))
/** Three peers on one switch, or one without any network. */
const LOOPBACK = 'ip link set lo up &&'
const NO_NETWORK = ''

afterEach(cleanUp)

async function inNamespace(network: string, peers: readonly MdnsPeer[]): Promise<MdnsResult[]> {
  const command = `${network} exec "$0" "$@"`
  const args = ['--map-root-user', '--net', 'sh', '-c', command, process.execPath, CHILD, JSON.stringify(peers)]
  const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  cleanups.push(() => child.kill('SIGKILL'))
  const [out, complaints] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
  if (out === '')
    throw new Error(`this test needs unshare (util-linux) and ip (iproute2), and to be let: ${complaints}`)
  return JSON.parse(out) as MdnsResult[]
}

const peerOf = (host: Host, members: readonly Member[], expected: Partial<MdnsPeer> = {}): MdnsPeer => ({
  key: Buffer.from(host.key.raw).toString('hex'),
  listen: host.address,
  cluster: 'mdns-test',
  members,
  links: [],
  ignores: 0,
  lingerMs: 200, // for what must not happen
  ...expected
})

test('members with wrong addresses find each other by mDNS, and nobody else', async () => {
  const [first, second, stranger, foreigner] = (await hosts(4)) as [Host, Host, Host, Host]
  const lost = [first, second].map(host => ({ ...publicPart(host), address: '/ip4/127.0.0.1/tcp/9' }))
  const [a, b, s, f] = await inNamespace(LOOPBACK, [
    peerOf(first, lost, { links: [second.id], ignores: 1 }),
    peerOf(second, lost, { links: [first.id], ignores: 1 }),
    // It speaks for the same cluster and believes to be a member; the others do not.
    peerOf(stranger, [...lost, publicPart(stranger)]),
    peerOf(foreigner, [publicPart(foreigner)], { cluster: 'another' })
  ])
  for (const member of [a, b]) {
    expect(member?.stats).toMatchObject({ mdnsLinks: 1, connections: 6 })
    expect(member?.stats.mdnsIgnored).toBeGreaterThan(0)
    expect(member?.warnings).toEqual([])
  }
  expect(s?.stats).toMatchObject({ mdnsLinks: 0, connections: 0 })
  expect(f?.stats).toMatchObject({ mdnsIgnored: 0, connections: 0 })
})

test('a peer without multicast starts all the same and says so once', async () => {
  const [host, absent] = (await hosts(2)) as [Host, Host]
  const anywhere = { ...host, address: '/ip4/0.0.0.0/tcp/7400' }
  const peers = [peerOf(anywhere, [publicPart(absent)], { lingerMs: 3_500 })] // it asks three times
  const [peer] = await inNamespace(NO_NETWORK, peers)
  expect(peer?.warnings).toEqual([expect.stringContaining('mDNS does not work here')])
})
