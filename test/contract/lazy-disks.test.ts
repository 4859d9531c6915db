/** Disks that are read over NBD until they are local, in a QEMU that cuts and merges their layers meanwhile. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { streamDisks, type StreamProgress } from '../../node/hypervisor/disk-stream.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type { BlockServer } from '../../node/ports.ts'
import { BLOCK, blockQemu, type BlockQemu, FakeDisk, run } from './block-support.ts'
import { clock, memoryLog } from './real-clock.ts'

const BLOCKS = 8_192
const isZero = (block: number) => block % 64 >= 32

let folder: string
let disk: FakeDisk
let server: BlockServer
let qemu: BlockQemu
let log: ReturnType<typeof memoryLog>

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lazy-'))
  log = memoryLog()
  disk = new FakeDisk(BLOCKS, isZero)
  server = await blockServing(log)(join(folder, 'disks'), new Map([['disk0', disk]]))
  qemu = await blockQemu(folder)
})
afterEach(async () => {
  await qemu.close()
  await server.close()
  await rm(folder, { recursive: true })
})

async function layer(name: string, backing: string | null): Promise<void> {
  const filename = join(folder, name)
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', filename, String(disk.bytes)])
  await qemu.qmp.command('blockdev-add', {
    'node-name': name,
    driver: 'qcow2',
    file: { driver: 'file', filename },
    backing
  })
}

/** far ← local ← merged ← active, as a restored VM has them. */
async function chain(): Promise<(command: string) => Promise<string>> {
  const far = { driver: 'nbd', server: { type: 'unix', path: join(folder, 'disks') }, export: 'disk0' }
  await qemu.qmp.command('blockdev-add', { 'node-name': 'far', 'read-only': true, ...far })
  await layer('local', 'far')
  await layer('merged', 'local')
  await layer('active', 'merged')
  const guest = await qemu.offer('active')
  return command => run('qemu-io', ['-f', 'raw', '-c', command, guest])
}

const stream = (options: { bytesPerSecond?: number; onProgress?: (progress: StreamProgress) => void } = {}) =>
  streamDisks(qemu.qmp, [{ into: 'local', from: 'far' }], { clock, log, vm: 'vm', retryMs: 50, ...options })

async function nodes(): Promise<string[]> {
  const list = (await qemu.qmp.command('query-named-block-nodes', { flat: true })) as { 'node-name': string }[]
  return list.map(node => node['node-name']).filter(name => !name.startsWith('#'))
}

/** What the guest has on its disk: read from its chain. */
async function content(): Promise<Buffer> {
  const flat = join(folder, 'flat')
  const guest = `nbd+unix:///node?socket=${join(folder, 'qmp-nbd')}`
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', guest, flat])
  return await readFile(flat)
}

it('a disk is read and written before it is local, and is whole without its source', async () => {
  const io = await chain()
  expect(await io(`read -P ${'b'.charCodeAt(0)} ${64 * BLOCK} 1`)).toMatch('read 1/1')
  expect(await io(`write -P 7 ${65 * BLOCK} ${BLOCK}`)).toMatch('wrote 4096')
  expect(await io(`write -P 8 ${40 * BLOCK + 512} 512`)).toMatch('wrote 512')
  const expected = disk.content(0, disk.bytes)
  expected.fill(7, 65 * BLOCK, 66 * BLOCK).fill(8, 40 * BLOCK + 512, 40 * BLOCK + 1_024)
  expect((await content()).equals(expected)).toBe(true)
  disk.reads.length = 0
  await stream()
  const read = disk.reads.reduce((sum, { length }) => sum + length, 0)
  expect(read).toBe((BLOCKS / 2) * BLOCK)
  expect(await nodes()).not.toContain('far')
  await server.close()
  expect((await content()).equals(expected)).toBe(true)
  expect(log.lines).toEqual([])
})

it('cuts and merges go on while a disk is being made local', async () => {
  const io = await chain()
  const begun = Promise.withResolvers<void>()
  const expected = disk.content(0, disk.bytes)
  await io(`write -P 1 0 ${BLOCK}`)
  disk.gate = () => {
    begun.resolve()
    return new Promise(resolve => setTimeout(resolve, 10))
  }
  const local = stream()
  await begun.promise
  await layer('next', null)
  await qemu.qmp.command('transaction', {
    actions: [{ type: 'blockdev-snapshot', data: { node: 'active', overlay: 'next' } }]
  })
  const merged = qemu.qmp.waitEvent('JOB_STATUS_CHANGE', ({ data }) => data.id === 'merge' && data.status === 'null')
  await qemu.qmp.command('block-commit', {
    'job-id': 'merge',
    device: 'next',
    'top-node': 'active',
    'base-node': 'merged'
  })
  await merged
  expect(await nodes()).toContain('far')
  await local
  expect(await nodes()).not.toContain('far')
  await qemu.qmp.command('blockdev-del', { 'node-name': 'active' }) // nothing uses it any more
  expected.fill(1, 0, BLOCK)
  expect((await content()).equals(expected)).toBe(true)
})

it('a source that fails for a while and comes back makes the disk whole later', async () => {
  await chain()
  let failing = true
  disk.gate = () => {
    if (failing && disk.reads.length > 8) return Promise.reject(new Error('SHARD_LOST'))
    return Promise.resolve()
  }
  const local = stream()
  await expect.poll(() => log.lines.some(({ fields }) => 'vm' in fields)).toBe(true)
  expect(await nodes()).toContain('far')
  failing = false
  await local
  expect(await nodes()).not.toContain('far')
  await server.close()
  expect((await content()).equals(disk.content(0, disk.bytes))).toBe(true)
})

it('tells how far a slow stream is', async () => {
  await chain()
  const heard: StreamProgress[] = []
  await stream({ bytesPerSecond: 8 << 20, onProgress: progress => void heard.push(progress) })
  expect(heard.length).toBeGreaterThan(0)
  expect(heard.every(({ doneBytes, bytes }) => doneBytes > 0 && doneBytes <= bytes)).toBe(true)
  expect(heard[0]).toMatchObject({ disk: 0, bytes: disk.bytes })
})
