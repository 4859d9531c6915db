/**
 * A VM that another program had, adopted as that wrote it down: it boots from its disk and reboots, its host dies, and it goes on
 * from the last epoch on another, RAM and disk of one moment; there it may reboot again, and be turned off by its guest. The tests
 * are one story in order.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Cluster, type ClusterPeer } from '../demo/cluster.ts'
import { makeBootDisk, parsePc, type PcReport } from '../guest/disk.ts'
import { calm } from './bank.ts'
import { until } from './member.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
const GROUP = 'office'
const CONNECTED_MS = 60_000

/** As libvirt has it. */
const domain = (path: string): string => `<domain type='qemu'>
  <name>pc</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='${path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <graphics type='spice'/>
  </devices>
</domain>
`

describe('a VM that boots from its disk', () => {
  let folder: string
  let cluster: Cluster
  /** Its host at first, and the other. */
  let left: ClusterPeer
  let right: ClusterPeer
  /** What the command has printed. */
  let said: string
  /** What the epoch holds at least. */
  let before: PcReport

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'diapause-disk-boot-'))
    const path = join(folder, 'disk')
    await makeBootDisk(path)
    const settings = { ...calm, shards: { k: 1, m: 1 } }
    cluster = await Cluster.create({ peers: 3, roles: ['storage', 'storage', 'witness'], settings })
    for (const each of cluster.peers) cluster.startPeer(each)
    await cluster.allConnected(CONNECTED_MS)
    const [one, other] = cluster.peers as [ClusterPeer, ClusterPeer]
    const file = join(folder, 'pc.xml')
    await writeFile(file, domain(path))
    const words = ['vm', 'define', '--from-libvirt', file, '--group', GROUP, '--socket', one.socketPath]
    said = (await promisify(execFile)(process.execPath, [main, ...words])).stdout
    const [record] = await one.client.groups()
    ;[left, right] = record?.owners['pc'] === one.id ? [one, other] : [other, one]
  }, 120_000)

  afterAll(async () => {
    await cluster?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  async function printed(peer: ClusterPeer): Promise<PcReport[]> {
    const names = await readdir(peer.consoleDir).catch(() => [])
    const texts = await Promise.all(names.map(name => readFile(join(peer.consoleDir, name), 'latin1')))
    return parsePc(texts.join(''))
  }

  const counting = (peer: ClusterPeer, boots: number) =>
    until(
      `it to count after boot ${boots}`,
      async () => (await printed(peer)).filter(line => line.boots === boots).length > 2
    )

  /** What guests did to their machines. */
  const bootsAt = async (peer: ClusterPeer): Promise<object[]> => {
    const told: object[] = []
    for await (const { atMs: _, ...event } of peer.client.events())
      if (event.kind === 'vm.rebooted' || event.kind === 'vm.powered-off') told.push(event)
    return told
  }

  it('is adopted, and whoever adopts it is told what it does without', () => {
    expect(said).toMatch(/Left out:\n {2}<graphics type='spice'>: there is no screen here/)
    expect(said).toContain(`group ${GROUP} with 1 VM is made`)
  })

  it('reboots without leaving its generation', async () => {
    await counting(left, 1)
    await left.client.typeConsole(GROUP, 'pc', 'r')
    await counting(left, 2)
    await until(
      'an epoch',
      async () => (await left.client.takeEpoch(GROUP).catch(() => undefined))?.outcome === 'committed'
    )
    before = (await printed(left)).at(-1) as PcReport
    const [record] = await left.client.groups()
    expect(record).toMatchObject({ generation: 1, committed: { generation: 1 } })
    expect(await bootsAt(left)).toEqual([{ kind: 'vm.rebooted', group: GROUP, vm: 'pc', generation: 1 }])
  })

  it('goes on where it was when its host dies: as far in RAM as on its disk, and not booted again', async () => {
    await cluster.killPeer(left)
    await until('it to go on', async () => (await printed(right)).length > 2)
    const reports = await printed(right)
    for (const { boots, ram, disk } of reports) expect({ boots, disk }).toEqual({ boots: 2, disk: ram })
    const [first] = reports
    expect(first?.ram).toBeLessThanOrEqual(before.ram + 2)
    expect(reports.map(({ ram }) => ram)).toEqual(reports.map((_, at) => (first?.ram ?? 0) + at))
  })

  it('reboots there, too, from a disk that is still being read from shards', async () => {
    await right.client.typeConsole(GROUP, 'pc', 'r')
    await counting(right, 3)
    const reports = await printed(right)
    for (const { ram, disk } of reports) expect(disk).toBe(ram)
    const [record] = await right.client.groups()
    expect(record).toMatchObject({ generation: 2, owners: { pc: right.id } })
    expect(await bootsAt(right)).toEqual([{ kind: 'vm.rebooted', group: GROUP, vm: 'pc', generation: 2 }])
  })

  it('boots anew when its guest turns it off, and nothing goes back: neither its disk nor its group', async () => {
    await right.client.typeConsole(GROUP, 'pc', 'o')
    await counting(right, 4)
    const reports = await printed(right)
    // What was printed last before is what the disk holds at the next boot.
    expect(reports.map(({ ram }) => ram).filter((ram, at) => at > 0 && ram < (reports[at - 1]?.ram ?? 0))).toEqual([])
    const [record] = await right.client.groups()
    expect(record).toMatchObject({ generation: 2, owners: { pc: right.id } })
    expect((await bootsAt(right)).at(-1)).toEqual({ kind: 'vm.powered-off', group: GROUP, vm: 'pc', generation: 2 })
    const taken = await right.client.takeEpoch(GROUP)
    expect(taken.outcome).toBe('committed')
  })
})
