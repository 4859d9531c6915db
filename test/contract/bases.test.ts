/**
 * A base that VMs of two groups begin with, whose keys are different: its content is stored once, also what of it lies in their page
 * caches; their images are whole; what was written over it is in theirs alone.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createImageWorker } from '../../node/image/image-worker.ts'
import type { BaseStream, DiskFile, ImageManifest, ImageWorker } from '../../node/ports.ts'
import { baseStream } from '../../protocols/base.ts'
import { frameLog } from '../unit/frame-logs.ts'
import { fakeMachine, MemoryCluster, PAGE, quietLog, snapshotStream, storedAndRead } from '../unit/image/support.ts'

const MEMORY_MIB = 1
const BLOCKS = 600
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const STREAM = baseStream('b'.repeat(64), 123)
const secret = (byte: number): Uint8Array => new Uint8Array(32).fill(byte)

const cluster = new MemoryCluster()
const content = Buffer.alloc(BLOCKS * PAGE)
const workers: ImageWorker[] = []
let folder: string
let file: DiskFile
let sockets = 0

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bases-'))
  // Blocks of zeros between those that are not.
  for (let block = 0; block < 500; block++) if (block % 3 > 0) randomBytes(PAGE).copy(content, block * PAGE)
  file = { disk: 1, path: join(folder, 'base.raw'), format: 'raw' }
  await writeFile(file.path, content.subarray(0, 500 * PAGE))
})

afterAll(async () => {
  for (const worker of workers) await worker.close()
  await rm(folder, { recursive: true })
})

async function openWorker(group: string): Promise<ImageWorker> {
  const worker = await createImageWorker({
    group,
    vm: 'v',
    memoryMiB: MEMORY_MIB,
    accel: 'tcg',
    key: secret(group.length),
    keys: [{ id: 4, key: secret(group.length), baseKey: secret(99) }],
    shape: { k: 3, m: 2, symbolBytes: 16_384 },
    disks: [{ blocks: 3 }, { blocks: BLOCKS }],
    cluster,
    log: quietLog
  })
  workers.push(worker)
  return worker
}

async function capture(
  worker: ImageWorker,
  epoch: number,
  ram: ReadonlyMap<number, Buffer>,
  disks: readonly DiskFile[] = []
): Promise<ImageManifest> {
  const socketPath = join(folder, `s${sockets++}`)
  const capture = await worker.capture({ generation: 1, epoch, socketPath, holders: HOLDERS })
  connect(socketPath).end(snapshotStream(fakeMachine(ram, MEMORY_MIB)))
  return await capture.finish(frameLog(), disks)
}

async function readDisk(group: string, image: ImageManifest): Promise<Buffer> {
  const worker = await openWorker(group)
  const { disks } = await worker.restore(await storedAndRead(image))
  return Buffer.from((await disks[1]?.read(0, BLOCKS * PAGE)) ?? [])
}

const pageOfBase = (block: number): Buffer => content.subarray(block * PAGE, (block + 1) * PAGE)

it('a base is stored once, whichever groups use it, and found in page caches; epochs go on from it', async () => {
  let base: BaseStream | undefined
  const ram = new Map([...Array(100).keys()].map(page => [page, pageOfBase(3 * page + 1)]))
  for (const group of ['first', 'second one']) {
    const worker = await openWorker(group)
    base ??= await worker.bases?.store({ file, stream: STREAM, holders: HOLDERS })
    if (!base) throw new Error('no bases')
    expect(base).toMatchObject({ blocks: 333, extents: 21, manifest: { stream: STREAM, key: 4 } })
    await worker.bases?.use([{ file, base }])
    const putBefore = cluster.bytesPut
    const first = await capture(worker, 1, ram)
    expect(first.streams.map(({ stream }) => stream)).toEqual([STREAM, `${group}/v/1/1`])
    expect(first.stats).toMatchObject({ pagesSeen: 100 })
    expect(cluster.bytesPut - putBefore).toBeLessThan(100_000)
    worker.abort(1)
    const second = await capture(worker, 2, ram)
    worker.commit(2)
    expect((await readDisk(group, second)).equals(content)).toBe(true)
    const written = join(folder, 'written')
    // Nearly all of the base is dead then, and stays, for others need it, too.
    const changed = Buffer.concat([randomBytes(480 * PAGE), content.subarray(480 * PAGE)])
    await writeFile(written, changed.subarray(0, 480 * PAGE))
    await capture(worker, 3, new Map(), [{ disk: 1, path: written, format: 'raw' }])
    worker.commit(3)
    const fourth = await capture(worker, 4, new Map())
    worker.commit(4)
    expect(fourth.streams[0]?.stream).toBe(STREAM)
    expect((await readDisk(group, fourth)).equals(changed)).toBe(true)
  }
})

it('a file that is another base by now is refused, and what was to be captured is captured', async () => {
  const worker = await openWorker('third')
  const base = await worker.bases?.store({ file, stream: baseStream('b'.repeat(64), 124), holders: HOLDERS })
  if (!base) throw new Error('no bases')
  const path = join(folder, 'other')
  await writeFile(path, content.subarray(0, 300 * PAGE))
  await expect(worker.bases?.use([{ file: { ...file, path }, base }])).rejects.toMatchObject({ code: 'IMAGE_DISK' })
  const image = await capture(worker, 1, new Map(), [file])
  expect(image.streams).toHaveLength(1)
  expect((await readDisk('third', image)).equals(content)).toBe(true)
})
