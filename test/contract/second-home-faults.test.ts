/** Copies to a bucket and out of it while its server, or the way to it, fails in the middle: either all is right, or it is told. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { BootFile, HomeCopying, HomeWish, SecondHome } from '../../node/ports.ts'
import { createSecondHome } from '../../node/second-home/home.ts'
import { openHome } from '../../node/second-home/open.ts'
import type { ImageHead } from '../../node/second-home/read.ts'
import type { S3Limits } from '../../node/second-home/s3.ts'
import { recoveryPublic } from '../../protocols/membership/recovery.ts'
import { clock } from '../unit/store-support.ts'
import { FAULTS, type Fault, FaultyWay } from './s3-faults.ts'
import { CREDENTIALS, S3Server } from './s3-server.ts'

/** Longer than anything takes that is not to take too long. */
const LONG_MS = 20_000
const secret = new Uint8Array(randomBytes(32))
const place = { cluster: 'ab'.repeat(16), group: 'shop' }
const of = { ...place, generation: 1, epoch: 1 }
/** Three chunks. */
const contents = [randomBytes(5 << 20), randomBytes(100_000)]

const fileOf = (content: Buffer, i: number): BootFile => ({
  path: `/boot/${i}`,
  hash: createHash('sha256').update(content).digest('hex'),
  bytes: content.length,
  read: (offset, length) => Promise.resolve(content.subarray(offset, offset + length))
})

const wish: HomeWish = {
  cluster: { id: place.cluster, name: 'forest' },
  group: 'shop',
  epoch: 1,
  generation: 1,
  groupGeneration: 1,
  vms: [{ id: 'till', memoryMiB: 64, mac: '52:54:00:00:00:01', kernel: '/k', initrd: '/i', append: '' }],
  outputCommit: false,
  openFlow: false,
  images: { till: { vm: 'till', streams: [] } as unknown as HomeWish['images'][string] },
  keys: [{ id: 0, key: new Uint8Array(32) }],
  files: contents.map(fileOf),
  recovery: recoveryPublic(secret)
}

let prefixes = 0
/** In a folder of the bucket that nobody has used. */
function homeAt(endpoint: string, limits: S3Limits, prefix = `p${++prefixes}`): SecondHome {
  const store = openHome(`s3://epochs/${prefix}?endpoint=${endpoint}`, CREDENTIALS, limits)
  return createSecondHome({
    store,
    clock,
    bytesPerSecond: 1e12,
    wallMs: () => Date.now(),
    randomBytes: count => new Uint8Array(randomBytes(count)),
    readData: () => Promise.reject(new Error('images have no streams here')),
    nameOf: () => '',
    encodeImage: ({ vm }) => Buffer.from(vm),
    decodeImage: bytes => ({ vm: Buffer.from(bytes).toString(), streams: [] }) as unknown as ImageHead
  })
}

const how = (progress: HomeCopying['progress'] = () => {}): HomeCopying => ({
  signal: new AbortController().signal,
  progress
})

/** Whether what is read out of it is what was copied. */
async function reads(home: SecondHome): Promise<boolean[]> {
  const { files } = await home.open(of, secret)
  const same: boolean[] = []
  for (const [i, { content }] of files.entries()) {
    const parts: Uint8Array[] = []
    for await (const part of content()) parts.push(part)
    same.push(Buffer.concat(parts).equals(contents[i] ?? Buffer.alloc(0)))
  }
  return same
}

describe('a bucket whose server, or the way to it, fails', () => {
  let server: S3Server
  let way: FaultyWay
  beforeAll(async () => {
    server = await S3Server.start()
  })
  afterAll(() => server.stop())
  beforeEach(async () => {
    way = await FaultyWay.to(server.endpoint)
  })
  afterEach(() => way.stop())

  const limitOf = (fault: Fault): number => (fault === 'hang' ? 500 : LONG_MS)
  const everyFourth = (fault: Fault) => {
    let count = 0
    way.fate = () => (++count % 4 === 0 ? fault : undefined)
  }

  it.each(FAULTS)('at every fourth request (%s) has the epoch whole in the end, and gives it back', async fault => {
    const home = homeAt(way.endpoint, { requestMs: limitOf(fault), pausesMs: [5, 20, 20, 20] })
    everyFourth(fault)
    await home.copy(wish, how())
    way.fate = () => undefined
    expect((await home.verify(of, true)).damaged).toEqual([])
    everyFourth(fault)
    expect(await reads(home)).toEqual([true, true])
    if (fault === 'flipAnswer') way.fate = () => undefined // a listing has no checksum: only TLS keeps it whole
    expect((await home.epochs()).epochs).toHaveLength(1)
  })

  it.each(FAULTS.filter(fault => fault !== 'slow'))(
    'from some moment on (%s) has no epoch that is not whole, and the next copy goes on from there',
    async fault => {
      for (const after of [0, 4, 9]) {
        const home = homeAt(way.endpoint, { requestMs: limitOf(fault), pausesMs: [5] })
        const until = way.requests + after
        way.fate = () => (way.requests > until ? fault : undefined)
        const failed = await home.copy(wish, how()).then(
          () => 'copied',
          (error: unknown) => (error as { code: string }).code
        )
        // A listing with another bit in it may still be a listing.
        expect(failed, `${after}`).toMatch(fault.startsWith('flip') ? /HOME_UNREACHABLE|copied/ : /HOME_UNREACHABLE/)
        way.fate = () => undefined
        if (failed !== 'copied') expect((await home.epochs()).epochs, `${after}`).toEqual([])
        await home.copy(wish, how())
        expect((await home.verify(of, true)).damaged, `${after}`).toEqual([])
      }
    },
    30_000
  )

  it('is named with its endpoint in what is told', async () => {
    way.fate = () => 'busy'
    const told = { code: 'HOME_UNREACHABLE', message: expect.stringContaining(way.endpoint) as string }
    await expect(homeAt(way.endpoint, { requestMs: LONG_MS, pausesMs: [] }).epochs()).rejects.toMatchObject(told)
  })

  it('whose ETags are no MD5 is looked at once, and then believed', async () => {
    const store = openHome(`s3://epochs/etags?endpoint=${way.endpoint}`, CREDENTIALS)
    way.fate = () => 'otherEtag'
    await store.put('a', Buffer.from('one'))
    expect(way.requests).toBe(2)
    await store.put('b', Buffer.from('two'))
    expect(way.requests).toBe(3)
  })
})

describe('a server that is killed', () => {
  let folder: string
  let child: ChildProcess | undefined
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'diapause-s3-killed-'))
  })
  afterEach(async () => {
    child?.kill('SIGKILL')
    await rm(folder, { recursive: true, force: true })
  })

  async function start(port = 0): Promise<number> {
    const script = join(import.meta.dirname, 's3-child.ts')
    child = spawn(process.execPath, [script, folder, `${port}`], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer]
    return Number(line.toString())
  }

  it('in the middle of a copy and started again has all of it in the end', async () => {
    const port = await start()
    const home = homeAt(`http://127.0.0.1:${port}`, {
      requestMs: LONG_MS,
      pausesMs: Array.from({ length: 30 }, () => 500)
    })
    let again: Promise<number> | undefined
    await home.copy(
      wish,
      how(done => {
        if (done === 0 || again !== undefined) return
        child?.kill('SIGKILL')
        again = once(child as ChildProcess, 'exit').then(() => start(port))
      })
    )
    expect(await again).toBe(port)
    expect((await home.verify(of, true)).damaged).toEqual([])
    expect(await reads(home)).toEqual([true, true])
  }, 60_000)
})

it('a server that lists without end is not listened to for ever', async () => {
  let at = 0
  const server = createServer((_, answer) => {
    const keys = Array.from({ length: 50_000 }, () => `p/epochs/${String(++at).padStart(12, '0')}`)
    const entries = keys.map(key => `<Contents><Key>${key}</Key></Contents>`)
    answer.end(`<ListBucketResult><IsTruncated>true</IsTruncated>${entries.join('')}</ListBucketResult>`)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const home = homeAt(endpoint, { requestMs: LONG_MS, pausesMs: [] }, 'p')
  await expect(home.epochs()).rejects.toMatchObject({ code: 'HOME_TOO_MANY' })
  server.close()
}, 60_000)
