/** Kernels and initrds in a second home: copied with the epochs of VMs that boot from them, once each, and opened with the recovery key alone. */
import { createHash, randomBytes } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import type { BootFile, HomeWish, SecondHome } from '../../../node/ports.ts'
import { openFile, sealFile } from '../../../node/second-home/boot-files.ts'
import { createSecondHome } from '../../../node/second-home/home.ts'
import type { ImageHead } from '../../../node/second-home/read.ts'
import type { HomeStream } from '../../../node/second-home/stream-object.ts'
import { GRACE_MS } from '../../../node/second-home/sweep-plan.ts'
import { recoveryPublic } from '../../../protocols/membership/recovery.ts'
import { MemoryHome } from './memory-home.ts'

const GROUP_KEY = { id: 4, key: new Uint8Array(32).fill(4) }

function fileOf(path: string, content: Uint8Array): BootFile & { reads: number } {
  const file = {
    path,
    hash: createHash('sha256').update(content).digest('hex'),
    bytes: content.length,
    reads: 0,
    read: (offset: number, length: number) => {
      file.reads++
      return Promise.resolve(content.slice(offset, offset + length))
    }
  }
  return file
}

async function allOf(content: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of content) parts.push(part)
  return Buffer.concat(parts)
}

describe('a file that VMs boot from', () => {
  const CHUNK = 100

  async function sealed(content: Uint8Array, key = GROUP_KEY) {
    const { note, sent } = sealFile(fileOf('/boot/k', content), key, CHUNK)
    const chunks: Uint8Array[] = []
    for (let at = 0; at < sent.dataBytes; at += CHUNK)
      chunks.push(await sent.read(at, Math.min(CHUNK, sent.dataBytes - at)))
    const bytes = Buffer.concat(chunks)
    const stream: HomeStream = { ...sent, chunkBytes: CHUNK, chunks: [] }
    const read = (_: string, offset: number, length: number) => Promise.resolve(bytes.subarray(offset, offset + length))
    return { note, bytes, dataBytes: sent.dataBytes, open: () => openFile(note, stream, [key], read).content() }
  }

  it.each([0, 1, 83, 84, 85, 168, 1_000])('of %i bytes is read as it was sealed', async bytes => {
    const content = randomBytes(bytes)
    const { open, bytes: stored, dataBytes } = await sealed(content)
    expect(stored.length).toBe(dataBytes)
    expect((await allOf(open())).equals(content)).toBe(true)
  })

  it('is the same bytes each time, and others under the key of another group', async () => {
    const content = Buffer.alloc(500, 'vmlinuz')
    const [one, again] = [await sealed(content), await sealed(content)]
    const other = await sealed(content, { id: 4, key: new Uint8Array(32).fill(5) })
    expect(again.bytes.equals(one.bytes)).toBe(true)
    expect(other.bytes.equals(one.bytes)).toBe(false)
    expect(other.note.stream).not.toBe(one.note.stream)
    expect(one.bytes.includes('vmlinuz')).toBe(false)
    // Whoever knows the file must not find it there.
    expect(one.note.stream).not.toBe(one.note.hash)
  })

  it('is refused where any of it was altered, or chunks stand in other places', async () => {
    const { open, bytes } = await sealed(randomBytes(400))
    for (const alter of [
      () => void (bytes[7] = 1 ^ (bytes[7] ?? 0)),
      () => void bytes.copy(bytes, CHUNK, 0, CHUNK),
      () => void bytes.fill(0, 2 * CHUNK)
    ]) {
      const before = Buffer.from(bytes)
      alter()
      await expect(allOf(open())).rejects.toMatchObject({ code: 'HOME_DAMAGED' })
      before.copy(bytes)
    }
    await allOf(open())
  })
})

describe('a second home', () => {
  const secret = new Uint8Array(randomBytes(32))
  const place = { cluster: 'ab'.repeat(16), group: 'shop' }
  const quiet = { signal: new AbortController().signal, progress: () => {} }
  const content = { kernel: randomBytes(5 << 20), initrd: randomBytes(70_000) }
  const nameIn = (epoch: number) => ({ ...place, generation: 1, epoch })
  let store: MemoryHome
  let home: SecondHome
  let inImage: ImageHead['streams']
  beforeEach(() => {
    inImage = []
    store = new MemoryHome()
    home = createSecondHome({
      store,
      clock: { now: () => store.nowMs, after: (_, fn) => (queueMicrotask(fn), () => {}) },
      bytesPerSecond: 1e12,
      wallMs: () => store.nowMs,
      randomBytes: count => new Uint8Array(randomBytes(count)),
      readData: () => Promise.reject(new Error('images have no streams here')),
      nameOf: () => '',
      encodeImage: ({ vm }) => Buffer.from(vm),
      decodeImage: bytes => ({ vm: Buffer.from(bytes).toString(), streams: inImage }) as unknown as ImageHead
    })
  })

  const wish = (epoch: number, files: readonly BootFile[]): HomeWish => ({
    cluster: { id: place.cluster, name: 'forest' },
    group: 'shop',
    epoch,
    generation: 1,
    groupGeneration: 1,
    vms: [{ id: 'till', memoryMiB: 64, mac: '52:54:00:00:00:01', kernel: '/k', initrd: '/i', append: '' }],
    outputCommit: false,
    openFlow: false,
    images: { till: { vm: 'till', streams: [] } as unknown as HomeWish['images'][string] },
    keys: [{ id: 0, key: new Uint8Array(32) }, GROUP_KEY],
    files,
    recovery: recoveryPublic(secret)
  })

  it('has the files that VMs boot from, whole', async () => {
    await home.copy(wish(1, [fileOf('/k', content.kernel), fileOf('/i', content.initrd)]), quiet)
    const { files } = await home.open(nameIn(1), secret)
    expect(files.map(({ path, bytes }) => [path, bytes])).toEqual([
      ['/k', content.kernel.length],
      ['/i', content.initrd.length]
    ])
    const [kernel, initrd] = await Promise.all(files.map(file => allOf(file.content())))
    expect(kernel?.equals(content.kernel)).toBe(true)
    expect(initrd?.equals(content.initrd)).toBe(true)
    const names = [...store.objects.values()].map(({ bytes }) => Buffer.from(bytes).toString('latin1')).join('')
    for (const { hash } of files) expect(names).not.toContain(hash)
  })

  it('has each content once, whatever it is called and however many epochs need it', async () => {
    const kernel = fileOf('/k', content.kernel)
    const { bytesSent } = await home.copy(wish(1, [kernel, fileOf('/k-2', content.kernel)]), quiet)
    expect(bytesSent).toBe(content.kernel.length + 2 * 16) // two chunks and their tags
    kernel.reads = 0
    const second = await home.copy(wish(2, [kernel, fileOf('/i', content.initrd)]), quiet)
    expect(kernel.reads).toBe(0)
    expect(second).toEqual({ generation: 1, streams: 2, streamsCopied: 1, bytesSent: content.initrd.length + 16 })
    expect((await home.open(nameIn(1), secret)).files.map(({ path }) => path)).toEqual(['/k', '/k-2'])
  })

  it('removes a file with the last epoch that needs it, and no sooner', async () => {
    await home.copy(wish(1, [fileOf('/k', content.kernel)]), quiet)
    await home.copy(wish(2, [fileOf('/k', content.kernel), fileOf('/i', content.initrd)]), quiet)
    await home.copy(wish(3, [fileOf('/i', content.initrd)]), quiet)
    store.nowMs += GRACE_MS + 1
    expect(await home.sweep(place, 2)).toMatchObject({ objects: 0 })
    expect((await home.verify(nameIn(2), true)).damaged).toEqual([])
    expect(await home.sweep(place, 1)).toMatchObject({ objects: 3 }) // two chunks and what names them
    expect((await home.verify(nameIn(3), true)).damaged).toEqual([])
  })

  it('gets no epoch whose image needs a stream that it does not name', async () => {
    inImage = [{ stream: 'shop/till/1/1', manifest: 'ab'.repeat(32) }]
    const unreadable = {
      code: 'HOME_UNREADABLE',
      message: expect.stringContaining('needs stream shop/till/1/1') as string
    }
    await expect(home.copy(wish(1, []), quiet)).rejects.toMatchObject(unreadable)
    expect(store.names('epochs/')).toEqual([])
  })

  it('opens epochs of before there were such files', async () => {
    const { files: _, ...old } = wish(1, [])
    await home.copy(old, quiet)
    expect((await home.open(nameIn(1), secret)).files).toEqual([])
  })
})
