/** Who stores a base, and who finds it: members with one register between them. */
import { hash } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { SharedBases } from '../../node/agents/bases.ts'
import { LocalDisks } from '../../node/agents/local-disks.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { BaseWorker, DiskFile, StreamId, StreamManifest, UsedBase } from '../../node/ports.ts'
import { baseKey, type BaseRecord, parseBaseRecord } from '../../protocols/base.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { quietLog } from '../contract/real-clock.ts'

const BASE = 'a'.repeat(64)
const FILE: DiskFile = { disk: 0, path: '/base', format: 'raw' }
const MEMBERS = ['p', 'q', 'r']

let register: unknown
/** Streams in the order in which they were stored, those that can be read still, and what was used by whom. */
let stored: StreamId[]
let readable: Set<StreamId>
let alive: string[]
let manifests: Map<string, Uint8Array>
let nonces: number
/** Awaited while a base is being stored. */
let storing: (by: string) => Promise<void>

beforeEach(() => {
  register = null
  ;[stored, readable, alive, manifests, nonces] = [[], new Set(), [...MEMBERS], new Map(), 0]
  storing = async () => {}
})

class Member {
  readonly self: string
  readonly used: (readonly UsedBase[])[] = []
  readonly bases: SharedBases
  ended = false
  #nowMs = 0

  constructor(self: string) {
    this.self = self
    this.bases = new SharedBases({
      self,
      registers: {
        change: async (key, next) => {
          if (key !== baseKey(BASE)) throw new Error(`another register: ${key}`)
          await new Promise(setImmediate)
          register = next(register) ?? register
          return register
        }
      },
      detector: { alive: () => alive },
      shards: {
        readData: async ({ stream }, _, length) => {
          if (!readable.has(stream)) throw new DiapauseError('SHARD_LOST', 'gone')
          return new Uint8Array(length)
        },
        putManifest: async (name, bytes) => void manifests.set(name, bytes),
        getManifest: async name => manifests.get(name) as Uint8Array
      },
      clock: {
        now: () => this.#nowMs,
        after: (ms, fn) => {
          this.#nowMs += ms
          setImmediate(fn)
          return () => {}
        }
      },
      log: quietLog,
      random: () => ++nonces / 1000,
      nameOf: async () => BASE,
      holders: () => ({ holders: [0, 1, 2].map(at => alive[at % alive.length] ?? ''), peers: alive, m: 1 }),
      encodeStream: manifest => {
        const bytes = Buffer.from(JSON.stringify(manifest))
        return { hash: hash('sha256', bytes), bytes }
      },
      decodeStream: bytes => JSON.parse(Buffer.from(bytes).toString()) as StreamManifest
    })
  }

  readonly worker: BaseWorker = {
    store: async ({ stream, holders }) => {
      await storing(this.self)
      stored.push(stream)
      readable.add(stream)
      const manifest = { stream, k: 2, m: 1, holders, dataBytes: 1, grids: [] }
      return { manifest, extents: 1, blocks: 5, lengths: { offset: 0, length: 1 } }
    },
    use: async bases => void this.used.push(bases)
  }

  share(): Promise<readonly DiskFile[]> {
    return this.bases.share([FILE], this.worker, () => this.ended)
  }
}

const record = (): BaseRecord | undefined => parseBaseRecord(register)
const streamOf = (member: Member): StreamId | undefined => member.used.at(-1)?.[0]?.base.manifest.stream

describe('a base', () => {
  it('is stored by one member, whoever asks at the same time, and used by all', async () => {
    const members = MEMBERS.map(id => new Member(id))
    const shared = await Promise.all(members.flatMap(member => [member.share(), member.share()]))
    expect(shared).toEqual(Array.from({ length: 6 }, () => [FILE]))
    expect(stored).toHaveLength(1)
    expect(members.map(streamOf)).toEqual([stored[0], stored[0], stored[0]])
    expect(record()).toMatchObject({ stored: { blocks: 5 } })
  })

  it('is stored by another where who was storing it dies, and who comes back uses that', async () => {
    const [first, second] = [new Member('p'), new Member('q')]
    const hangs = Promise.withResolvers<void>()
    storing = by => (by === 'p' && stored.length === 0 ? hangs.promise : Promise.resolve())
    const late = first.share()
    await expect.poll(() => record()?.by).toBe('p')
    alive = ['q', 'r', 's']
    expect(await second.share()).toEqual([FILE])
    expect(record()?.by).toBe('q')
    alive = ['p', 'q', 'r', 's']
    hangs.resolve()
    expect(await late).toEqual([FILE])
    expect(stored).toHaveLength(2)
    expect(streamOf(first)).toBe(streamOf(second))
  })

  it('is stored by this peer where an earlier run of it had begun to', async () => {
    register = { by: 'p', nonce: 99, stored: null }
    expect(await new Member('p').share()).toEqual([FILE])
    expect(record()).toMatchObject({ by: 'p', stored: { blocks: 5 } })
  })

  it('is given up by who cannot store it: others need not wait, and the VM captures it itself', async () => {
    storing = async by => {
      if (by === 'p') throw new DiapauseError('IMAGE_DISK', 'no such file')
    }
    const [first, second] = [new Member('p'), new Member('q')]
    expect(await first.share()).toEqual([])
    expect(record()).toMatchObject({ by: '', stored: null })
    expect(first.used).toEqual([])
    expect(await second.share()).toEqual([FILE])
  })

  it('is stored anew where its shards are gone, or bear fewer losses than new ones would', async () => {
    alive = ['p', 'q']
    await new Member('p').share()
    await new Member('q').share()
    expect(stored).toHaveLength(1)
    alive = MEMBERS
    for (const count of [2, 3]) {
      const member = new Member('q')
      expect(await member.share()).toEqual([FILE])
      expect(stored).toHaveLength(count)
      expect(streamOf(member)).toBe(stored.at(-1))
      readable.clear()
    }
  })

  it('is not waited for by a VM that has ended', async () => {
    register = { by: 'q', nonce: 99, stored: null }
    const member = new Member('p')
    const shared = member.share()
    member.ended = true
    expect(await shared).toEqual([])
    expect(record()?.nonce).toBe(99)
  })

  it('is captured by the VM itself where its worker cannot use it', async () => {
    const member = new Member('p')
    const worker = { ...member.worker, use: () => Promise.reject(new DiapauseError('IMAGE_DISK', 'another base')) }
    expect(await member.bases.share([FILE], worker, () => false)).toEqual([])
  })
})

describe('the disks of a VM', () => {
  it('are captured without the bases that are stored elsewhere, and with the others', async () => {
    const base = { path: '/base', format: 'raw' } as const
    const spec = { id: 'v', disks: [{ sizeMiB: 1, base }, { sizeMiB: 1 }, { sizeMiB: 2, base }] } as unknown as VmSpec
    const { worker } = new Member('p')
    const disks = new LocalDisks(
      spec,
      { group: 'g', generation: 1 },
      {
        clock: { now: () => 0, after: () => () => {} },
        log: quietLog,
        serveBlocks: () => Promise.reject(new Error('nothing is served')),
        shareBases: async files => files.slice(1),
        path: () => '/layers'
      }
    )
    disks.fresh({ bases: worker })
    await disks.shared
    expect(disks.cutTo(1, [])).toEqual([{ disk: 0, ...base }])
  })
})
