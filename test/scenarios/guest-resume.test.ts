/** A group goes back to a snapshot: what its guest, in which Debian's agent runs, is told by the peer of its host. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { PeerEvent } from '../../node/edge/events.ts'
import { Cluster, type ClusterPeer } from '../demo/cluster.ts'
import { buildAgentGuest, type GuestClocks, guestClocks } from '../guest/agent.ts'
import { bankAppend } from '../guest/build.ts'
import { calm } from './bank.ts'
import { until } from './member.ts'

const GROUP = 'told'
const CONNECTED_MS = 60_000
/** So far in the past is what the group goes back to. Whole seconds are compared, so some of them. */
const GAP_MS = 4_000

let cluster: Cluster
let peer: ClusterPeer

beforeAll(async () => {
  const guest = await buildAgentGuest()
  cluster = await Cluster.create({
    peers: 3,
    roles: ['storage', 'storage', 'witness'],
    settings: { ...calm, shards: { k: 1, m: 1 } }
  })
  for (const each of cluster.peers) cluster.startPeer(each)
  await cluster.allConnected(CONNECTED_MS)
  peer = cluster.peers[0] as ClusterPeer
  const afterRestore = ['/bin/busybox', 'sh', '-c', 'echo back > /run/told; exit 3']
  const vm = {
    id: 'vm',
    mac: '52:54:00:d1:00:01',
    memoryMiB: 160,
    ...guest,
    append: bankAppend({ index: 1, total: 1 })
  }
  await peer.client.createGroup({ id: GROUP, vms: [{ ...vm, guestAgent: { afterRestore } }], owners: { vm: 'p1' } })
}, 240_000)

afterAll(async () => {
  await cluster?.stop()
})

async function clocks(): Promise<GuestClocks[]> {
  const names = await readdir(peer.consoleDir).catch(() => [])
  const texts = await Promise.all(names.map(name => readFile(join(peer.consoleDir, name), 'latin1')))
  return guestClocks(texts.join(''))
}

async function events(kind: string): Promise<PeerEvent[]> {
  const all: PeerEvent[] = []
  for await (const event of peer.client.events()) if (event.kind === kind) all.push(event)
  return all
}

it('its clock is set to that of its host, its program runs, and peers report both', { timeout: 180_000 }, async () => {
  await until('the guest to speak', async () => (await clocks()).length > 0)
  await until('an epoch', async () => {
    const taken = await peer.client.takeEpoch(GROUP).catch(() => undefined)
    return taken?.outcome === 'committed'
  })
  const [record] = await peer.client.groups()
  const epoch = record?.committed?.epoch ?? 0
  expect(record?.vms[0]?.generationId).toBe(true)

  await sleep(GAP_MS)
  await peer.client.restore(GROUP, { epoch, force: false })
  await until('the guest to be told', async () => (await clocks()).at(-1)?.told === 'back')
  await until('the peer to know', async () => (await events('vm.guest-told')).length > 0)
  expect(await events('vm.guest-told')).toMatchObject([{ vm: 'vm', program: '/bin/busybox', exitCode: 3 }])
  expect(await events('vm.clock-set')).toMatchObject([{ group: GROUP, vm: 'vm', generation: 2 }])
  expect(await events('vm.guest-not-told')).toEqual([])
  const last = (await clocks()).at(-1)
  expect(Math.abs((last?.cmos ?? 0) - (last?.real ?? 0))).toBeLessThanOrEqual(1)
})
