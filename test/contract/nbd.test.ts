/** The NBD server against the clients that QEMU has: qemu-img, and a QEMU whose disk it is. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MAX_REQUEST_BYTES } from '../../node/nbd/protocol.ts'
import { blockServing } from '../../node/nbd/server.ts'
import type { BlockServer, BlockSource } from '../../node/ports.ts'
import { bytesOf, opening, request } from '../unit/nbd-client.ts'
import { BLOCK, blockQemu, type BlockQemu, FakeDisk, run } from './block-support.ts'
import { memoryLog } from './real-clock.ts'

const BLOCKS = 2_048
/** Data: blocks 16 to 31, 1000 and 1002. */
const isZero = (block: number) => !((block >= 16 && block < 32) || block === 1_000 || block === 1_002)

let folder: string
let socketPath: string
let log: ReturnType<typeof memoryLog>
let server: BlockServer | undefined
let qemu: BlockQemu | undefined
const sockets: Socket[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-'))
  socketPath = join(folder, 'disks')
  log = memoryLog()
})
afterEach(async () => {
  await qemu?.close()
  for (const socket of sockets.splice(0)) socket.destroy()
  await server?.close()
  qemu = undefined
  server = undefined
  await rm(folder, { recursive: true })
})

async function serve(...disks: readonly BlockSource[]): Promise<void> {
  server = await blockServing(log)(socketPath, new Map(disks.map((disk, i) => [`disk${i}`, disk])))
}

const url = (name: string) => `nbd+unix:///${name}?socket=${socketPath}`

describe('qemu-img', () => {
  it('copies each of several disks byte for byte', async () => {
    const disks = [new FakeDisk(BLOCKS, isZero), new FakeDisk(3, () => false), new FakeDisk(BLOCKS, () => true)]
    await serve(...disks)
    for (const [i, disk] of disks.entries()) {
      const copy = join(folder, `copy${i}`)
      await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', url(`disk${i}`), copy])
      expect((await readFile(copy)).equals(disk.content(0, disk.bytes))).toBe(true)
    }
    expect(await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', url('disk0'), join(folder, 'copy0')])).toMatch(
      'identical'
    )
    expect(log.lines).toEqual([])
  })

  it('sees which parts are data', async () => {
    await serve(new FakeDisk(BLOCKS, isZero))
    const map = JSON.parse(await run('qemu-img', ['map', '--output=json', '-f', 'raw', url('disk0')])) as {
      start: number
      length: number
      data: boolean
    }[]
    const data = map.filter(each => each.data).map(({ start, length }) => [start / BLOCK, length / BLOCK])
    expect(data).toEqual([
      [16, 16],
      [1_000, 1],
      [1_002, 1]
    ])
  })

  it('finds what lies behind more zeros than are told of at once', async () => {
    await serve(new FakeDisk(100_000, block => block < 99_999))
    const map = await run('qemu-img', ['map', '--output=json', '-f', 'raw', url('disk0')])
    const data = (JSON.parse(map) as { start: number; data: boolean }[]).filter(each => each.data)
    expect(data.map(({ start }) => start / BLOCK)).toEqual([99_999])
  })

  it('is told of a disk that is not there, of a write, and of shards that are lost', async () => {
    const disk = new FakeDisk(BLOCKS, isZero)
    await serve(disk)
    await expect(run('qemu-img', ['info', url('disk7')])).rejects.toThrow('disk7')
    await expect(run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', url('disk0')])).rejects.toThrow(
      /read-only|Permission/i
    )
    disk.gate = () => Promise.reject(new Error('SHARD_LOST'))
    await expect(run('qemu-io', ['-r', '-f', 'raw', '-c', 'read 64k 4k', url('disk0')])).rejects.toThrow()
    const told = expect.objectContaining({ disk: 'disk0', offset: 16 * BLOCK, length: BLOCK })
    expect(log.lines).toContainEqual({ level: 'warn', message: expect.any(String), fields: told })
    disk.gate = () => Promise.resolve()
    expect(await run('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 98 64k 1', url('disk0')])).toMatch('read 1/1 bytes')
  })
})

describe('a client', () => {
  it('needs to be this user', async () => {
    await serve(new FakeDisk(4, isZero))
    expect((await stat(socketPath)).mode & 0o777).toBe(0o600)
  })

  it('gets answers as they are ready, and is asked to wait where it reads nothing', async () => {
    const disk = new FakeDisk(4 * (MAX_REQUEST_BYTES / BLOCK), () => false)
    const first = Promise.withResolvers<void>()
    let asked = 0
    disk.gate = () => (asked++ === 0 ? first.promise : Promise.resolve())
    await serve(disk)
    const client = connect(socketPath)
    sockets.push(client)
    client.write(opening('disk0', false))
    client.write(request(0, { length: 512, cookie: 1 }))
    client.write(request(0, { length: 512, cookie: 2 }))
    const heard: Buffer[] = []
    const answers = () => Buffer.concat(heard)
    const reply = (cookie: number) => bytesOf([4, 0x67446698], [4, 0], [8, cookie])
    await new Promise<void>(resolve => {
      client.on('data', chunk => {
        heard.push(chunk)
        if (answers().includes(reply(2))) resolve()
      })
    })
    expect(answers().includes(reply(1))).toBe(false)
    client.pause()
    first.resolve()
    for (let i = 0; i < 1_000; i++) client.write(request(0, { length: MAX_REQUEST_BYTES, cookie: 3 + i }))
    client.write(request(0, { length: 512, cookie: 9_999 }))
    await expect.poll(() => disk.reads.length).toBeGreaterThan(2)
    await new Promise(resolve => setTimeout(resolve, 100))
    expect(disk.reads.length).toBeLessThan(6)
  })

  it('that breaks the protocol is cut off, and the others go on', async () => {
    await serve(new FakeDisk(BLOCKS, isZero))
    const client = connect(socketPath)
    sockets.push(client)
    client.resume().write(Buffer.concat([opening('disk0'), Buffer.alloc(100)]))
    await new Promise(resolve => client.on('close', resolve))
    expect(log.lines).toEqual([{ level: 'warn', message: expect.any(String), fields: { why: expect.any(String) } }])
    expect(await run('qemu-img', ['info', url('disk0')])).toMatch('raw')
  })

  it('that waits for an answer when the server ends is not kept waiting', async () => {
    const disk = new FakeDisk(BLOCKS, isZero)
    const never = Promise.withResolvers<void>()
    disk.gate = () => never.promise
    await serve(disk)
    const reading = run('qemu-io', ['-r', '-f', 'raw', '-c', 'read 64k 4k', url('disk0')])
    reading.catch(() => {})
    await expect.poll(() => disk.reads.length).toBe(1)
    await server?.close()
    await expect(reading).rejects.toThrow()
    await expect(stat(socketPath)).rejects.toThrow('ENOENT')
  })
})

describe('a QEMU', () => {
  it('makes a disk its own without asking for its zeros', async () => {
    const disk = new FakeDisk(BLOCKS, isZero)
    await serve(disk)
    await run('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-o',
      'cluster_size=4k',
      join(folder, 'own'),
      String(disk.bytes)
    ])
    qemu = await blockQemu(folder)
    await qemu.qmp.command('blockdev-add', {
      'node-name': 'far',
      driver: 'nbd',
      server: { type: 'unix', path: socketPath },
      export: 'disk0',
      'read-only': true
    })
    await qemu.qmp.command('blockdev-add', {
      'node-name': 'own',
      driver: 'qcow2',
      file: { driver: 'file', filename: join(folder, 'own') },
      backing: 'far'
    })
    const guest = await qemu.offer('own')
    const io = (command: string) => run('qemu-io', ['-f', 'raw', '-c', command, guest])
    expect(await io('read -P 0 4M 4M')).toMatch('read 4194304/4194304 bytes')
    const own = { offset: 40 * BLOCK, length: BLOCK }
    expect(await io(`write -P 7 ${own.offset} ${own.length}`)).toMatch('wrote 4096/4096')
    disk.reads.length = 0
    const done = qemu.qmp.waitEvent('JOB_STATUS_CHANGE', ({ data }) => data.status === 'concluded')
    await qemu.qmp.command('block-stream', { 'job-id': 'stream', device: 'own', 'auto-dismiss': false })
    await done
    const read = disk.reads.reduce((sum, { length }) => sum + length, 0)
    expect(read).toBe(18 * BLOCK)
    await qemu.qmp.command('job-dismiss', { id: 'stream' })
    await qemu.qmp.command('blockdev-del', { 'node-name': 'far' })
    await server?.close()
    const expected = disk.content(0, disk.bytes)
    expected.fill(7, own.offset, own.offset + own.length)
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', guest, join(folder, 'flat')])
    expect((await readFile(join(folder, 'flat'))).equals(expected)).toBe(true)
  })
})
