import { expect, test } from 'vitest'
import { Standbys, type StandbysDeps } from '../../node/agents/standby.ts'
import type { StandbyParts } from '../../node/agents/standby-copy.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'

const vm = aVm('a', { memoryMiB: 100, standby: 1 })
const committed = (epoch: number) => ({ epoch, generation: 1, previousEpoch: 0, images: { a: `image ${epoch}` } })
const recordOf = (fields: Partial<GroupRecord>): GroupRecord => aGroup({ vms: [vm], owners: { a: 'me' }, ...fields })

/** One host and what it was asked to do; time passes when the test says so. */
class World {
  readonly calls: string[] = []
  readonly told: string[] = []
  availableMiB = 10_000
  record = recordOf({})
  standbys: Standbys
  /** Of a copy's image: settled by the test. */
  following = Promise.withResolvers<object>()
  exit: (reason: string) => void = () => {}
  /** That are open. */
  workers = 0
  /** What the VM boots from is here. */
  bootable: Promise<void> = Promise.resolve()
  #nowMs = 0
  #timers: { readonly atMs: number; readonly run: () => void }[] = []
  #hear: (record: GroupRecord) => void = () => {}

  constructor(memoryMiB = 1_000) {
    const note = (call: string) => void this.calls.push(call)
    const machine = {
      wait: async () => ({ ramPath: 'ram' }),
      destroy: async () => note('machine ends')
    }
    const worker = {
      restore: (image: string) => {
        note(`follow ${image}`)
        return this.following.promise
      },
      close: async () => {
        this.workers--
        note('worker ends')
      }
    }
    const clock = {
      now: () => this.#nowMs,
      after: (ms: number, run: () => void) => {
        const timer = { atMs: this.#nowMs + ms, run }
        this.#timers.push(timer)
        return () => {
          this.#timers = this.#timers.filter(each => each !== timer)
        }
      }
    }
    const define = ({ onExit }: { onExit: (reason: string) => void }) => {
      this.exit = onExit
      return machine
    }
    const reserve = async () => ({ ends: [], close: async () => note('nics end') })
    const copy = {
      vm: {
        clock,
        log: {},
        hypervisor: { capture: 'dirty', define },
        network: { reserve },
        openWorker: async () => {
          this.workers++
          return worker
        },
        bootable: () => this.bootable,
        path: (kind: string) => kind
      },
      readManifest: async (hash: string) => hash
    }
    const deps = {
      self: 'me',
      hosts: () => ['me', 'you'],
      leaving: () => [],
      detector: { onChange: () => {}, alive: () => ['me', 'you'] },
      directory: {
        onRecord: (hear: (record: GroupRecord) => void) => (this.#hear = hear),
        onForgotten: () => {},
        all: () => [this.record]
      },
      copy,
      settings: { memoryMiB, keepFreeMiB: 500 },
      availableMiB: () => this.availableMiB,
      clock,
      log: { info: () => {} },
      report: (kind: string, { why }: { why?: string }) => void this.told.push(`${kind}: ${why}`)
    }
    this.standbys = new Standbys(deps as unknown as StandbysDeps)
  }

  async hear(fields: Partial<GroupRecord>): Promise<void> {
    this.record = recordOf({ ...this.record, ...fields })
    this.#hear(this.record)
    await this.settle()
  }

  /** The image that is being followed has come, or not. */
  async came(error?: Error): Promise<void> {
    const { resolve, reject } = this.following
    this.following = Promise.withResolvers()
    if (error === undefined) resolve({ disks: [], closeDisks: async () => {} })
    else reject(error)
    await this.settle()
  }

  async pass(ms: number): Promise<void> {
    this.#nowMs += ms
    const due = this.#timers.filter(({ atMs }) => atMs <= this.#nowMs)
    this.#timers = this.#timers.filter(each => !due.includes(each))
    for (const { run } of due) run()
    await this.settle()
  }

  async settle(): Promise<void> {
    for (let i = 0; i < 40; i++) await Promise.resolve()
  }

  /** The state of each copy, and of what epoch. */
  get states(): string[] {
    return this.standbys.status.map(({ state, epoch, why }) => [state, epoch, why].filter(Boolean).join(' '))
  }

  take(): Promise<StandbyParts | string | undefined> {
    return this.standbys.take(this.record, vm)
  }
}

test('a copy is begun with the first epoch of its generation, and follows one after the other', async () => {
  const world = new World()
  await world.hear({})
  await world.hear({ committed: { ...committed(1), generation: 1 }, generation: 2 })
  expect(world.states).toEqual([])
  await world.hear({ generation: 1 })
  expect(world.states).toEqual(['following'])
  await world.came()
  expect(world.states).toEqual(['ready 1'])
  await world.hear({ committed: committed(2) })
  await world.hear({ committed: committed(3) })
  expect(world.states).toEqual(['following'])
  await world.came() // of epoch 2: nobody asks for that any more
  expect(world.states).toEqual(['following'])
  await world.came()
  expect(world.states).toEqual(['ready 3'])
  expect(world.calls).toEqual(['follow image 1', 'follow image 2', 'follow image 3'])
})

test('whoever takes a copy has all of it; it is not ended with the others', async () => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came()
  const parts = await world.take()
  if (typeof parts !== 'object') throw new Error('no copy')
  expect(parts).toMatchObject({ nicPath: 'nic', socketPath: 'incoming' })
  const ends: string[] = []
  parts.setOnExit(
    reason => ends.push(reason),
    () => {}
  )
  world.exit('ended')
  expect([ends, world.states, world.told]).toEqual([['ended'], [], []])
  expect(await world.take()).toBe('there is no copy here')
  await world.standbys.stop()
  expect(world.calls).toEqual(['follow image 1'])
})

test('a copy whose thread has died is taken away, and made anew with a later epoch', async () => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came(new DiapauseError('IMAGE_WORKER', 'it has died'))
  expect(world.states.filter(state => state.startsWith('fail'))).toEqual([])
  expect(world.calls).toEqual(['follow image 1', 'machine ends', 'nics end', 'worker ends'])
  await world.pass(600_000)
  await world.hear({ committed: committed(2) })
  expect(world.calls.at(-1)).toBe('follow image 2')
})

test('a copy between two images is waited for a little, and never given away', async () => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came()
  await world.hear({ committed: committed(2) })
  const first = world.take()
  await world.pass(1_000)
  expect(await first).toBe('it is not at epoch 2 yet')
  const second = world.take()
  await world.came()
  expect(typeof (await second)).toBe('object')
})

test('a copy that could not follow is not given away, says why, and tries again', async () => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came()
  await world.hear({ committed: committed(2) })
  await world.came(new Error('too few shards'))
  expect(world.states).toEqual(['failing too few shards'])
  expect(await world.take()).toBe('too few shards')
  await world.pass(1_000)
  await world.came()
  expect(world.states).toEqual(['ready 2'])
})

test('a copy of another image than the committed one is not given away', async () => {
  const world = new World()
  await world.hear({ committed: committed(2) })
  await world.came()
  const before = recordOf({ committed: committed(1), generation: 2 })
  expect(await world.standbys.take(before, vm)).toBe('it is of epoch 2')
})

test.each([
  ['its group is removed', { removed: true }],
  ['its specification asks for none', { vms: [{ ...vm, standby: 0 }] }],
  ['another host is to keep it', { owners: { a: 'you' }, vms: [{ ...vm, standby: 0 }] }]
])('a copy is given back when %s', async (_, fields) => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came()
  await world.hear(fields)
  expect(world.states).toEqual([])
  expect(world.calls.slice(1).sort()).toEqual(['machine ends', 'nics end', 'worker ends'])
  expect(world.told).toEqual(['standby.ended: another host is to keep it, or none'])
})

test('a host that has too little memory begins none, says why, and gives up what it has', async () => {
  const world = new World()
  world.availableMiB = 550
  await world.hear({ committed: committed(1) })
  expect(world.states).toEqual(['missing this host has too little memory left'])
  expect(await world.take()).toBe('this host has too little memory left')
  world.availableMiB = 5_000
  await world.hear({ committed: committed(2) })
  await world.came()
  expect(world.states).toEqual(['ready 2'])
  world.availableMiB = 499
  await world.pass(1_000)
  expect(world.told).toEqual(['standby.ended: this host has too little memory left'])
  world.availableMiB = 5_000
  await world.hear({ committed: committed(3) })
  expect(world.states).toEqual(['missing it was given up a moment ago'])
})

test('a VM that starts and finds no room gets that of copies, which are not begun again at once', async () => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came()
  await world.standbys.makeRoom(64 << 20)
  expect(world.calls).toContain('machine ends')
  expect(world.told).toEqual(['standby.ended: a VM that runs here needs its memory'])
  await world.hear({ committed: committed(2) })
  expect(world.states).toEqual(['missing it was given up a moment ago'])
})

test('a copy that cannot be made takes nothing off the pause after memory was short', async () => {
  const world = new World()
  const b = { ...vm, id: 'b' }
  await world.hear({ vms: [vm, b], owners: { a: 'me', b: 'me' } })
  await world.hear({ committed: { ...committed(1), images: { a: 'image 1', b: 'image 1' } } })
  await world.came()
  expect(world.states).toEqual(['ready 1', 'ready 1'])
  await world.standbys.makeRoom(1) // of a
  world.exit('was killed') // of b
  await world.settle()
  await world.pass(2_000)
  await world.hear({ committed: { ...committed(2), images: { a: 'image 2', b: 'image 2' } } })
  expect(world.states.toSorted()).toEqual(['missing it was given up a moment ago', 'missing its machine was killed'])
})

test('no more memory is used for copies than the settings say', async () => {
  const world = new World(99)
  await world.hear({ committed: committed(1) })
  expect(world.states).toEqual(['missing standby.memoryMiB of this host is 99'])
})

test('a copy of a VM whose kernel is nowhere leaves nothing behind', async () => {
  const world = new World()
  world.bootable = Promise.reject(new Error('no kernel'))
  await world.hear({ committed: committed(1) })
  expect([world.told, world.workers]).toEqual([['standby.failed: no kernel'], 0])
})

test('a copy whose machine ends is given up, says why, and is begun again with an epoch a minute later', async () => {
  const world = new World()
  await world.hear({ committed: committed(1) })
  await world.came()
  world.exit('was killed')
  await world.settle()
  expect([world.states, world.told]).toEqual([
    ['missing its machine was killed'],
    ['standby.failed: its machine was killed']
  ])
  expect(await world.take()).toBe('its machine was killed')
  await world.pass(59_000)
  await world.hear({ committed: committed(2) })
  expect(world.states).toEqual(['missing its machine was killed'])
  await world.pass(1_000)
  await world.hear({ committed: committed(3) })
  await world.came()
  expect(world.states).toEqual(['ready 3'])
})
