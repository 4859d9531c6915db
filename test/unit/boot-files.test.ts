/** Kernels and initrds that the cluster keeps itself: three hosts with folders of their own, which speak the shard protocol. */
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { BootFileAgent } from '../../node/agents/boot-files.ts'
import { openBootFiles } from '../../node/host/boot-files.ts'
import type { BootFiles } from '../../node/ports.ts'
import { bootPaths, contentHash, contentName, renamed } from '../../protocols/boot-files.ts'
import { createGroup, removeGroup } from '../../protocols/epoch/record.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { ShardService } from '../../protocols/shards/service.ts'
import { JumpingClock } from './jumping-clock.ts'
import { MemoryStore, Network } from './shards-network.ts'
import { clock as realClock, memoryLog } from './store-support.ts'

const DAY_MS = 86_400_000
const hashOf = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')
const vmOf = (kernel: string, initrd: string) =>
  ({ id: 'vm', memoryMiB: 64, kernel, initrd, append: '' }) satisfies VmSpec
async function* once(content: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(content)
}

class Host {
  readonly clock = new JumpingClock()
  readonly files: BootFiles
  readonly service: ShardService
  readonly agent: BootFileAgent
  groups: GroupRecord[] = []
  #onRecord: (record: GroupRecord) => void = () => {}
  readonly directory = {
    onRecord: (handler: (record: GroupRecord) => void) => void (this.#onRecord = handler),
    all: () => this.groups,
    surveyed: true
  }

  constructor(id: string, ids: readonly string[], network: Network, files: BootFiles) {
    this.files = files
    const log = memoryLog()
    const transport = network.transport(id)
    this.service = new ShardService({ transport, store: new MemoryStore(), clock: realClock, log, files })
    this.agent = new BootFileAgent({
      files,
      directory: this.directory,
      others: () => ids.filter(other => other !== id),
      askPiece: (...which) => this.service.file(...which),
      askPaths: (...which) => this.service.paths(...which),
      clock: this.clock,
      log
    })
  }

  learn(record: GroupRecord | null | undefined): void {
    if (!record) return
    this.groups = [record]
    this.#onRecord(record)
  }
}

let dir: string
let network: Network
let hosts: [Host, Host, Host]
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'boot-files-'))
  network = new Network()
  const ids = ['a', 'b', 'c']
  hosts = (await Promise.all(
    ids.map(async id => new Host(id, ids, network, await openBootFiles(join(dir, id), Date.now)))
  )) as [Host, Host, Host]
})
afterEach(async () => {
  for (const { agent } of hosts) agent.stop()
  await rm(dir, { recursive: true })
})

const kernel = randomBytes((2 << 20) + 17) // three pieces
const initrd = randomBytes(1_000)
const spec = vmOf(contentName(hashOf(kernel)), contentName(hashOf(initrd)))
const record = () => createGroup('g', [spec], { vm: 'b' }, 0)(null)

describe('a file that the cluster keeps', () => {
  beforeEach(async () => {
    for (const content of [kernel, initrd]) await hosts[0].agent.keep(hashOf(content), () => once(content))
  })

  test('is fetched by each member as soon as it hears of a group that names it, and outlives who had it first', async () => {
    const [, second, third] = hosts
    second.learn(record())
    await expect.poll(() => second.files.has(hashOf(kernel))).toBe(true)
    await expect.poll(() => second.files.has(hashOf(initrd))).toBe(true)
    network.kill('a')
    const open = await third.agent.open(spec.kernel)
    expect(open).toMatchObject({ path: spec.kernel, hash: hashOf(kernel), bytes: kernel.length })
    expect(Buffer.compare(await open.read(5, 100), kernel.subarray(5, 105))).toBe(0)
    expect(await third.agent.pathOf(spec.initrd)).toBe(join(dir, 'c', hashOf(initrd)))
  })

  test('is waited for by a VM that starts before it has come', async () => {
    const paths = await Promise.all([1, 2].map(() => hosts[1].agent.pathOf(spec.kernel)))
    expect(new Set(paths)).toEqual(new Set([join(dir, 'b', hashOf(kernel))]))
    expect(await readdir(join(dir, 'b'))).toEqual([hashOf(kernel)])
  })

  test('that nobody can give is asked for again, as long as a group names it', async () => {
    const [first, second] = hosts
    network.kill('a')
    second.learn(record())
    await expect(second.agent.pathOf(spec.kernel)).rejects.toMatchObject({ code: 'FILE_MISSING' })
    for (const content of [kernel, initrd]) await hosts[2].files.keep(hashOf(content), once(content)) // who has it comes back
    await expect
      .poll(async () => {
        await second.clock.until(second.clock.nowMs + 10_000)
        return await second.files.has(hashOf(kernel))
      })
      .toBe(true)
    expect(first.groups).toEqual([])
  })

  test('is never anything else: what a member gives instead is not kept', async () => {
    await writeFile(hosts[0].files.pathOf(hashOf(kernel)), 'something else')
    await expect(hosts[1].agent.pathOf(spec.kernel)).rejects.toMatchObject({ code: 'FILE_MISSING' })
    expect(await readdir(join(dir, 'b'))).toEqual([])
  })

  test('is taken from nobody who gives ever more, or too much at once', async () => {
    const [first, second] = hosts
    const full = new Uint8Array(1 << 20)
    let pieces = 0
    first.files.piece = () => Promise.resolve(pieces++ < 3 * 1_024 ? full : new Uint8Array())
    second.files.keep = async (_hash, content) => {
      for await (const _ of content); // faster than a disk
    }
    network.kill('c')
    await expect(second.agent.pathOf(spec.kernel)).rejects.toMatchObject({
      code: 'FILE_MISSING',
      details: { reasons: { a: expect.stringMatching(/member a gives more/) } }
    })
    expect(pieces).toBe(1_025)
    first.files.piece = () => Promise.resolve(new Uint8Array((1 << 20) + 1))
    await expect(second.agent.pathOf(spec.kernel)).rejects.toMatchObject({
      details: { reasons: { a: expect.stringMatching(/bytes of a file at once/) } }
    })
    const endless = async function* () {
      for (;;) yield await Promise.resolve(full)
    }
    await expect(second.agent.keep(hashOf(kernel), endless)).rejects.toMatchObject({ code: 'FILE_TOO_LARGE' })
  })

  test('goes when no group has named it for a day', async () => {
    const [, second] = hosts
    second.learn(record())
    await expect.poll(() => second.files.has(hashOf(initrd))).toBe(true)
    const named = new Set([hashOf(kernel)])
    await second.files.removeOthers(named, DAY_MS)
    expect(await second.files.has(hashOf(initrd))).toBe(true)
    const later = await openBootFiles(join(dir, 'b'), () => Date.now() + 2 * DAY_MS)
    await later.removeOthers(named, DAY_MS)
    expect([await later.has(hashOf(kernel)), await later.has(hashOf(initrd))]).toEqual([true, false])
  })

  test('is removed by who knows all groups only, and never while one names it or is being made', async () => {
    const [first, second] = hosts
    const removed: ReadonlySet<string>[] = []
    for (const host of [first, second]) host.files.removeOthers = wanted => Promise.resolve(void removed.push(wanted))
    second.directory.surveyed = false
    await second.clock.until(3 * 3_600_000)
    expect(removed).toEqual([])
    second.directory.surveyed = true
    second.learn(record())
    for (const content of [kernel, initrd]) await expect.poll(() => second.files.has(hashOf(content))).toBe(true)
    await second.clock.until(5 * 3_600_000)
    expect(removed.at(-1)).toEqual(new Set([hashOf(kernel), hashOf(initrd)]))
    second.learn(removeGroup(record() ?? null))
    await second.clock.until(7 * 3_600_000)
    expect(removed.at(-1)).toEqual(new Set())
    await first.clock.until(2 * 3_600_000) // it was given them for a group that has no record yet
    expect(removed.at(-1)).toEqual(new Set([hashOf(kernel), hashOf(initrd)]))
    await first.clock.until(DAY_MS + 2 * 3_600_000)
    expect(removed.at(-1)).toEqual(new Set()) // and never got one
  })

  test('is one of so many that they have a bound in bytes, also where they come at the same time', async () => {
    const folder = join(dir, 'd')
    const files = await openBootFiles(folder, Date.now, kernel.length + 2 * initrd.length)
    await files.keep(hashOf(kernel), once(kernel))
    const others = [1, 2, 3, 4].map(i => Buffer.concat([initrd.subarray(1), Uint8Array.of(i)]))
    for (
      let tries = 0;
      tries < 3;
      tries++ // what is not kept takes none
    )
      await expect(files.keep(hashOf(kernel), once(initrd))).rejects.toMatchObject({ code: 'FILE_DAMAGED' })
    const [first = initrd] = others
    for (let again = 0; again < 3; again++) await files.keep(hashOf(first), once(first)) // which takes no more
    const kept = await Promise.allSettled(others.slice(1).map(other => files.keep(hashOf(other), once(other))))
    const refused = kept.flatMap(one => (one.status === 'rejected' ? [one.reason as { code: string }] : []))
    expect(new Set(refused.map(({ code }) => code))).toEqual(new Set(['FILES_FULL']))
    expect(refused.length).toBeGreaterThanOrEqual(2)
    for (const other of others.slice(1)) await files.keep(hashOf(other), once(other)).catch(() => {})
    expect(await readdir(folder)).toHaveLength(3)
    const later = await openBootFiles(folder, () => Date.now() + 2 * DAY_MS, kernel.length + 2 * initrd.length)
    await later.removeOthers(new Set([hashOf(kernel)]), DAY_MS)
    for (const other of others.slice(0, 2)) await later.keep(hashOf(other), once(other))
    const [, , third] = others
    await expect(later.keep(hashOf(initrd), once(third ?? initrd))).rejects.toMatchObject({ code: 'FILES_FULL' })
  })
})

describe('a file at a path of a host', () => {
  test('is looked for at every host that is asked about', async () => {
    const there = join(dir, 'vmlinuz')
    await writeFile(there, kernel)
    const only = join(dir, 'only-at-a')
    const { at } = hosts[1].files
    hosts[1].files.at = paths => at(paths.map(path => (path === only ? '/nowhere' : path)))
    await writeFile(only, initrd)
    const [first] = hosts
    expect(await first.agent.lacking([vmOf(there, only)], ['a', 'b', 'c'])).toEqual([{ peer: 'b', paths: [only] }])
    expect(await first.agent.lacking([vmOf(there, '/nowhere')], ['a', 'c'])).toEqual([
      { peer: 'a', paths: ['/nowhere'] },
      { peer: 'c', paths: ['/nowhere'] }
    ])
    network.kill('c')
    expect(await first.agent.lacking([vmOf(there, '/nowhere')], ['c'])).toEqual([])
    expect(await first.agent.lacking([spec], ['a'])).toEqual([])
  })

  test('is no folder, and none that the peer may not read', async () => {
    const { files } = hosts[0]
    const secret = join(dir, 'secret')
    await writeFile(secret, 'x')
    await chmod(secret, 0)
    const readable = process.getuid?.() === 0 ? 1 : 0 // root may
    expect([...(await files.at([dir, '/nowhere', `${secret}/x`, secret]))]).toEqual([0, 0, 0, readable])
    await expect(files.open('/nowhere')).rejects.toMatchObject({ code: 'FILE_MISSING' })
  })

  test('that changes is not read on as if it had not', async () => {
    const path = join(dir, 'vmlinuz')
    await writeFile(path, kernel)
    const opened = await hosts[0].files.open(path)
    await writeFile(path, randomBytes(kernel.length))
    await utimes(path, 1, 1)
    await expect(opened.read(0, 10)).rejects.toMatchObject({ code: 'FILE_CHANGED' })
    expect((await hosts[0].files.open(path)).hash).not.toBe(opened.hash)
  })
})

test('what was not kept whole is gone after a start', async () => {
  await writeFile(join(dir, 'a', 'x.new'), 'half')
  await openBootFiles(join(dir, 'a'), Date.now)
  expect(await readdir(join(dir, 'a'))).toEqual([])
})

test('what has no name on the disk yet is not kept: a power loss may take it', async () => {
  let works = true
  const sync = async (): Promise<void> => {
    if (!works) throw new Error('EIO')
  }
  const files = await openBootFiles(join(dir, 'd'), Date.now, undefined, sync)
  const hash = hashOf(kernel)
  works = false
  await expect(files.keep(hash, once(kernel))).rejects.toThrow('EIO')
  expect(await files.has(hash)).toBe(false)
  works = true
  expect(await files.has(hash)).toBe(true)
})

test('a specification names a file by its path or by its content', () => {
  const hash = 'ab'.repeat(32)
  expect(contentHash(contentName(hash))).toBe(hash)
  for (const path of ['/boot/vmlinuz', 'content:', 'content:../x', `content:${hash}0`])
    expect(contentHash(path)).toBeUndefined()
  const [one, two] = [vmOf('/k', '/i'), vmOf('/k', '/j')]
  expect(bootPaths([one, two])).toEqual(['/k', '/i', '/j'])
  const inContent = (path: string) => (path === '/k' ? contentName(hash) : undefined)
  expect(renamed(two, inContent)).toEqual({ ...two, kernel: contentName(hash) })
})

test('a VM that boots from its disk names no files', () => {
  const vm: VmSpec = { id: 'vm', memoryMiB: 64, disks: [{ sizeMiB: 8, base: { path: '/b', format: 'raw' } }] }
  expect(bootPaths([vm, { ...vm, kernel: '/k' }])).toEqual(['/k'])
  expect(renamed(vm, path => `${path}2`)).toStrictEqual(vm)
  expect(renamed({ ...vm, kernel: '/k' }, path => `${path}2`)).toStrictEqual({ ...vm, kernel: '/k2' })
})
