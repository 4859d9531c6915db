/** Forgetting at a peer that was away: first it needs the manifests of what is kept, which it has others give it. */
import { createHash } from 'node:crypto'
import { beforeEach, expect, test } from 'vitest'
import { Housekeeping, type HousekeepingDeps, type ManifestFacts } from '../../node/agents/housekeeping.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'

const LATER_MS = 10_000

/** Manifest as its bytes: what it is of, and what it leans on. */
const manifest = (facts: ManifestFacts) => {
  const bytes = Buffer.from(JSON.stringify(facts))
  return { hash: createHash('sha256').update(bytes).digest('hex'), bytes }
}
const streamAt = (epoch: number) => manifest({ about: `g/a/1/${epoch}`, streams: [] })
const imageAt = (epoch: number, ...leansOn: number[]) =>
  manifest({
    about: `g/a/1/${epoch}`,
    streams: leansOn.map(each => ({ stream: `g/a/1/${each}`, manifest: streamAt(each).hash }))
  })

/** Epoch 1 was not kept, 2 is kept, 4 is committed and leans on 2's stream; 3 came to nothing. */
const images = { 1: imageAt(1, 1), 2: imageAt(2, 1, 2), 4: imageAt(4, 2, 4) }
const record = aGroup({
  version: 9,
  vms: [aVm('a')],
  owners: { a: 'p1' },
  lastEpoch: 4,
  committed: { epoch: 4, generation: 1, previousEpoch: 2, images: { a: images[4].hash } },
  kept: [{ epoch: 2, generation: 1, images: { a: images[2].hash } }]
})

let here: Map<string, Uint8Array>
let streams: Set<string>
/** What others have. */
let elsewhere: Map<string, Uint8Array>
let fetched: string[]
/** Streams that their disk does not let go. */
let stuck: Set<string>
/** Called before each run looks at what is stored. */
let looks: () => Promise<void>

beforeEach(() => {
  const of = (...parts: { hash: string; bytes: Uint8Array }[]) => new Map(parts.map(each => [each.hash, each.bytes]))
  here = of(images[1], images[4], streamAt(1))
  elsewhere = of(images[1], images[2], images[4], streamAt(1), streamAt(2), streamAt(4))
  streams = new Set([1, 2, 3, 4].map(epoch => `g/a/1/${epoch}`))
  fetched = []
  stuck = new Set()
  looks = async () => {}
})

/** One run after the news of the record; `times` of them. */
async function forget(times = 1): Promise<void> {
  const store = {
    manifests: async () => {
      await looks()
      return [...here.keys()]
    },
    getManifest: async (hash: string) => here.get(hash),
    putManifest: async (hash: string, bytes: Uint8Array) => void here.set(hash, bytes),
    dropManifest: async (hash: string) => void here.delete(hash),
    streams: async () => [...streams].map(stream => ({ stream, bytes: 1 })),
    dropStream: async (stream: string) => {
      if (stuck.has(stream)) throw new Error('EIO')
      streams.delete(stream)
    }
  } as unknown as ShardStore
  let tell: (news: GroupRecord) => void = () => {}
  const due: (() => void)[] = []
  const quiet = { debug() {}, info() {}, warn() {}, error() {} }
  const deps: HousekeepingDeps = {
    self: 'p2',
    directory: {
      all: () => [record],
      get: () => record,
      refresh: async () => record,
      change: async () => record,
      surveyed: true,
      onRecord: handler => void (tell = handler),
      onForgotten: () => {}
    },
    store,
    registers: { read: async () => null, delete: async () => {} } as unknown as HousekeepingDeps['registers'],
    clock: { now: () => 0, after: (ms, fn) => (ms < LATER_MS && due.push(fn), () => {}) },
    log: quiet,
    deadlineMs: 1_000,
    floor: () => 0,
    describeManifest: bytes => JSON.parse(Buffer.from(bytes).toString()) as ManifestFacts,
    fetchManifest: async hash => {
      fetched.push(hash)
      const bytes = elsewhere.get(hash)
      if (bytes === undefined) throw new DiapauseError('MANIFEST_MISSING', `nobody has ${hash}`)
      return bytes
    }
  }
  const housekeeping = new Housekeeping(deps)
  for (let i = 0; i < times; i++) {
    tell(record)
    for (const run of due.splice(0)) run()
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate)
  }
  housekeeping.stop()
}

test('a peer that was away has manifests of kept images given to it, and forgets what they do not need', async () => {
  await forget()
  expect(fetched).toContain(images[2].hash)
  expect([...streams].sort()).toEqual(['g/a/1/1', 'g/a/1/2', 'g/a/1/4'])
  expect([...here.keys()]).not.toContain(images[1].hash)
  await forget()
  const wanted = [images[2], images[4], streamAt(1), streamAt(2), streamAt(4)].map(({ hash }) => hash)
  expect([...here.keys()].sort()).toEqual(wanted.sort())
})

test('what is here is not asked for', async () => {
  for (const [hash, bytes] of elsewhere) here.set(hash, bytes)
  await forget(2)
  expect(fetched).toEqual([])
})

test('where a kept image’s manifest is with nobody, nothing is forgotten', async () => {
  elsewhere.delete(images[2].hash)
  await forget(2)
  expect(streams.size).toBe(4)
  expect(here.has(images[1].hash)).toBe(true)
})

test('a stream that its disk does not let go keeps back no other, and is tried again', async () => {
  streams = new Set(['g/a/1/1', 'g/a/1/3', 'g/a/1/5'].concat([...streams]))
  for (const [hash, bytes] of elsewhere) here.set(hash, bytes)
  stuck.add('g/a/1/3')
  const dead = manifest({ about: 'g/a/1/3', streams: [] })
  here.set(dead.hash, dead.bytes)
  await forget(2)
  expect([...streams].sort()).toEqual(['g/a/1/1', 'g/a/1/2', 'g/a/1/3', 'g/a/1/4', 'g/a/1/5'])
  expect(here.has(dead.hash)).toBe(false)
  stuck.clear()
  await forget()
  expect(streams.has('g/a/1/3')).toBe(false)
})

test('one run at a time: what changes while one waits makes one more when it has ended, and no more', async () => {
  const waiting: (() => void)[] = []
  looks = () => new Promise(resolve => void waiting.push(resolve))
  await forget(4)
  expect(waiting).toHaveLength(1)
})
