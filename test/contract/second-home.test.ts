/** The contract of `ObjectStore` (node/ports/home.ts): every second home passes it, the bucket against a server that speaks S3. */
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ObjectStore } from '../../node/ports.ts'
import { openHome } from '../../node/second-home/open.ts'
import { MemoryHome } from '../unit/second-home/memory-home.ts'
import { CREDENTIALS, S3Server } from './s3-server.ts'

let server: S3Server
let folder: string
beforeAll(async () => {
  server = await S3Server.start()
})
afterAll(() => server.stop())
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'diapause-home-'))
  await mkdir(join(folder, 'home'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

let made = 0
const implementations: [string, () => ObjectStore][] = [
  ['memory, for tests', () => new MemoryHome()],
  ['a directory', () => openHome(`dir:${folder}/home`, undefined)],
  ['a bucket', () => openHome(server.url(`prefix-${++made}/deep`), CREDENTIALS)]
]

async function namesIn(home: ObjectStore, prefix: string): Promise<string[]> {
  const names: string[] = []
  for await (const { name } of home.list(prefix)) names.push(name)
  return names.sort()
}

describe.each(implementations)('a second home in %s', (_, open) => {
  let home: ObjectStore
  beforeEach(() => {
    home = open()
  })

  it('gives back what was put', async () => {
    const bytes = new Uint8Array(randomBytes(300_000))
    await home.put('a/b/object.1', bytes)
    expect(Buffer.compare(await home.get('a/b/object.1'), bytes)).toBe(0)
    const facts = await home.stat('a/b/object.1')
    expect(facts?.bytes).toBe(300_000)
  })

  it('says when an object was put', async () => {
    await home.put('old', new Uint8Array(1))
    const facts = await home.stat('old')
    // Whole seconds, and clocks of two programs: not more than that it is a time of today.
    expect(Math.abs((facts?.putMs ?? 0) - Date.now())).toBeLessThan(3_600_000)
    for await (const listed of home.list('old')) expect(listed).toMatchObject({ name: 'old', bytes: 1 })
  })

  it('holds empty objects, and replaces whole ones', async () => {
    await home.put('x', new Uint8Array())
    expect(await home.get('x')).toHaveLength(0)
    await home.put('x', new Uint8Array(10).fill(7))
    await home.put('x', new Uint8Array(3).fill(8))
    expect([...(await home.get('x'))]).toEqual([8, 8, 8])
  })

  it('lists what begins so, and nothing else', async () => {
    for (const name of ['a/1', 'a/2', 'a/b/3', 'a-1/4', 'ab', 'b/5']) await home.put(name, randomBytes(10))
    expect(await namesIn(home, 'a/')).toEqual(['a/1', 'a/2', 'a/b/3'])
    expect(await namesIn(home, 'a')).toEqual(['a-1/4', 'a/1', 'a/2', 'a/b/3', 'ab'])
    expect(await namesIn(home, '')).toEqual(['a-1/4', 'a/1', 'a/2', 'a/b/3', 'ab', 'b/5'])
    expect(await namesIn(home, 'c/')).toEqual([])
  })

  it('lists more than fit one answer', async () => {
    const names = Array.from({ length: 1_020 }, (_, i) => `many/${i}`)
    for (let i = 0; i < names.length; i += 30) {
      await Promise.all(names.slice(i, i + 30).map(name => home.put(name, new Uint8Array(1))))
    }
    expect(await namesIn(home, 'many/')).toEqual([...names].sort())
  }, 60_000)

  it('says that an object is not there, and deletes one that is not there', async () => {
    await home.put('a/b', new Uint8Array(1))
    for (const name of ['nothing', 'a/c', 'a/b/c']) {
      expect(await home.stat(name), name).toBeUndefined()
      await expect(home.get(name), name).rejects.toMatchObject({ code: 'HOME_MISSING' })
    }
    await home.delete('a/c')
    await home.delete('a/b')
    await home.delete('a/b')
    expect(await namesIn(home, '')).toEqual([])
  })

  it('takes no name that could be another place', async () => {
    for (const name of [
      '',
      '/a',
      'a//b',
      '../a',
      'a/../../b',
      '.partial/a',
      'a b',
      'a/',
      'a?x',
      `${'a/'.repeat(500)}a`
    ])
      await expect(async () => home.put(name, new Uint8Array(1)), name).rejects.toThrow(TypeError)
    expect(await readdir(folder, { recursive: true })).toEqual(['home'])
  })
})

describe('a bucket', () => {
  const object = new Uint8Array(1)

  it('refuses who has other credentials', async () => {
    const home = openHome(server.url('p'), { ...CREDENTIALS, secretAccessKey: 'other' })
    await expect(home.put('a', object)).rejects.toMatchObject({ code: 'HOME_REFUSED' })
  })

  it('that is not there is not an object that is not there', async () => {
    const home = openHome(`s3://nothing/p?endpoint=${server.endpoint}`, CREDENTIALS)
    await expect(home.put('a', object)).rejects.toMatchObject({ code: 'HOME_REFUSED' })
    await expect(namesIn(home, '')).rejects.toMatchObject({ code: 'HOME_REFUSED' })
  })

  it('says that nobody answers', async () => {
    const limits = { requestMs: 1_000, pausesMs: [1] }
    const home = openHome('s3://epochs/p?endpoint=http://127.0.0.1:1', CREDENTIALS, limits)
    await expect(home.get('a')).rejects.toMatchObject({ code: 'HOME_UNREACHABLE' })
  })
})

describe('a directory', () => {
  it('is not made where its disk is not mounted', async () => {
    for (const root of ['not-mounted', 'not-mounted/home']) {
      const home = openHome(`dir:${folder}/${root}`, undefined)
      const missing = { code: 'HOME_MISSING', message: expect.stringMatching(/is its disk mounted/) as string }
      await expect(home.put('a', new Uint8Array(1))).rejects.toMatchObject(missing)
      await expect(namesIn(home, 'epochs/')).rejects.toMatchObject(missing)
    }
    expect(await readdir(folder)).toEqual(['home'])
  })

  it('does not list what the system or others have put there', async () => {
    const home = openHome(`dir:${folder}/home`, undefined)
    await home.put('a/x', new Uint8Array(1))
    await mkdir(join(folder, 'home/a/@eaDir'))
    for (const name of ['.DS_Store', 'a/.DS_Store', 'a/@eaDir/x', 'a/copy of x'])
      await writeFile(join(folder, 'home', name), 'x')
    expect(await namesIn(home, '')).toEqual(['a/x'])
    expect(await namesIn(home, 'a/')).toEqual(['a/x'])
  })

  it('has one of two that are put at once under a name', async () => {
    const home = openHome(`dir:${folder}/home`, undefined)
    const two = [new Uint8Array(100_000).fill(1), new Uint8Array(100_001).fill(2)]
    await Promise.all(two.map(bytes => home.put('a/x', bytes)))
    const found = await home.get('a/x')
    expect(two.some(bytes => Buffer.compare(bytes, found) === 0)).toBe(true)
  })

  it('does not show what was not written whole', async () => {
    const home = openHome(`dir:${folder}/home`, undefined)
    await home.put('a', new Uint8Array(1))
    const partial = openHome(`dir:${folder}/home/.partial`, undefined)
    await partial.put('left-over', new Uint8Array(1))
    expect(await namesIn(home, '')).toEqual(['a'])
  })
})

describe('the URL of a second home', () => {
  it.each([
    'dir:relative',
    'dir:/',
    'dir:',
    's3://',
    's3://B/x',
    's3://bucket/a//b',
    's3://bucket/../x',
    's3://bucket?endpoint=ftp://x',
    's3://bucket?endpoint=http://user@host',
    's3://bucket?password=x',
    's3://bucket?region=A!',
    'http://host/x'
  ])('is not %s', url => {
    expect(() => openHome(url, CREDENTIALS)).toThrow(expect.objectContaining({ code: 'HOME_URL' }))
  })

  it('of a bucket needs credentials', () => {
    expect(() => openHome('s3://bucket', undefined)).toThrow(expect.objectContaining({ code: 'HOME_CREDENTIALS' }))
  })
})
