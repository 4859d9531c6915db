/** Epoch cores of several peers with VMs that take different times, on a clock of their own: how far apart are the cuts? */
import { expect, test } from 'vitest'
import {
  EpochCore,
  type EpochEffect,
  type EpochInput,
  PREPARED_PATIENCE_MS,
  PROGRESS_MS
} from '../../protocols/epoch/core.ts'
import type { CutTimes } from '../../protocols/epoch/cut-profile.ts'
import { abortEpoch, commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'

const LATENCY_MS = 1
const stats = {
  pages: 1,
  pagesNonZero: 1,
  pagesChanged: 1,
  bytesRaw: 1,
  bytesData: 1,
  bytesStored: 1,
  inFlightFrames: 0
}
const specOf = (id: string) => ({
  id,
  mac: '52:54:00:00:00:01',
  memoryMiB: 64,
  kernel: '/k',
  initrd: '/i',
  append: ''
})

/** What became of one epoch. */
interface Seen {
  /** Between the first cut and the last. */
  readonly skewMs: number
  /** The longest that a VM was prepared and had to wait. */
  readonly waitedMs: number
  /** From its opening to the last cut. */
  readonly tookMs: number
  readonly cuts: number
  readonly committed: boolean
}

/** VM v runs on peer v. `times`: how long a VM takes for its nth epoch, from 0. */
class World {
  #nowMs = 0
  readonly #queue: { readonly atMs: number; readonly run: () => void }[] = []
  readonly #cores: ReadonlyMap<string, EpochCore>
  readonly #times: (vm: string, epoch: number) => CutTimes
  #record: GroupRecord
  readonly #prepared = new Map<string, number>()
  readonly #waited: number[] = []
  readonly #cuts: number[] = []
  /** Who hangs: it says nothing more. */
  readonly #silent: string | undefined

  constructor(vms: readonly string[], times: (vm: string, epoch: number) => CutTimes, silent?: string) {
    this.#times = times
    this.#silent = silent
    const owners = Object.fromEntries(vms.map(vm => [vm, vm]))
    this.#record = createGroup('g', vms.map(specOf), owners)(null) as GroupRecord
    this.#cores = new Map(vms.map(vm => [vm, new EpochCore({ self: vm, members: () => vms })]))
    for (const vm of vms) {
      this.#feed(vm, { kind: 'record', record: this.#record })
      this.#feed(vm, { kind: 'vm-ready', vm, colour: 0 })
    }
  }

  /** One epoch from its opening to its end. */
  epoch(): Seen {
    for (const list of [this.#waited, this.#cuts]) list.length = 0
    const openedMs = this.#nowMs
    const [proposer = ''] = this.#cores.keys()
    this.#take(openEpoch(proposer, 60_000, this.#record.version)(this.#record) as GroupRecord)
    while (this.#record.open !== null) {
      this.#queue.sort((a, b) => a.atMs - b.atMs)
      const next = this.#queue.shift()
      if (next === undefined) throw new Error('nothing happens any more')
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      next.run()
    }
    const skewMs = Math.max(...this.#cuts) - Math.min(...this.#cuts)
    const [cuts, committed] = [this.#cuts.length, this.#record.committed?.epoch === this.#record.lastEpoch]
    return { skewMs, waitedMs: Math.max(...this.#waited), tookMs: Math.max(...this.#cuts) - openedMs, cuts, committed }
  }

  #after(ms: number, run: () => void): void {
    this.#queue.push({ atMs: this.#nowMs + ms, run })
  }

  #feed(peer: string, input: EpochInput): void {
    for (const effect of this.#cores.get(peer)?.step(input, this.#nowMs) ?? []) this.#apply(peer, effect)
  }

  #take(record: GroupRecord): void {
    this.#record = record
    for (const peer of this.#cores.keys()) this.#after(LATENCY_MS, () => this.#feed(peer, { kind: 'record', record }))
  }

  #apply(peer: string, effect: EpochEffect): void {
    if (effect.kind === 'prepare') {
      const { vm, epoch } = effect
      if (vm === this.#silent) return
      const { prepareMs } = this.#times(vm, epoch)
      for (let ms = PROGRESS_MS; ms < prepareMs; ms += PROGRESS_MS) {
        this.#after(ms, () => this.#feed(peer, { kind: 'vm-copying', vm, epoch }))
      }
      this.#after(prepareMs, () => {
        this.#prepared.set(vm, this.#nowMs)
        this.#feed(peer, { kind: 'vm-prepared', vm, epoch })
      })
    } else if (effect.kind === 'cut') this.#cut(peer, effect.vm, effect.epoch)
    else if (effect.kind === 'timer') {
      this.#after(effect.atMs - this.#nowMs, () => this.#feed(peer, { kind: 'timer' }))
    } else if (effect.kind === 'commit') {
      const { generation, epoch, images } = effect
      const record = commitEpoch(generation, epoch, images)(this.#record)
      if (record !== undefined) this.#take(record)
    } else if (effect.kind === 'abort') {
      const record = abortEpoch(effect.generation, effect.epoch)(this.#record)
      if (record !== undefined) this.#take(record)
    } else if (effect.kind === 'broadcast' && 'epoch' in effect.message) {
      const { message } = effect
      for (const other of this.#cores.keys()) {
        if (other !== peer) this.#after(LATENCY_MS, () => this.#feed(other, { kind: 'message', from: peer, message }))
      }
    }
  }

  #cut(peer: string, vm: string, epoch: number): void {
    const times = this.#times(vm, epoch)
    this.#waited.push(this.#nowMs - (this.#prepared.get(vm) ?? Number.NaN))
    this.#after(times.leadMs, () => {
      this.#cuts.push(this.#nowMs)
      this.#feed(peer, { kind: 'cut-done', vm, epoch, counts: {}, atWallMs: this.#nowMs, ...times })
      const about = { group: 'g', generation: 1, epoch, vm, manifest: '1'.repeat(64), stats }
      this.#feed(peer, { kind: 'image-durable', vm, epoch, report: { kind: 'durable', ...about } })
    })
  }
}

const unequal: Readonly<Record<string, CutTimes>> = {
  small: { prepareMs: 40, leadMs: 8 },
  large: { prepareMs: 900, leadMs: 60 },
  slow: { prepareMs: 400, leadMs: 150 }
}
const vms = Object.keys(unequal)

test('VMs that take different times are cut apart by that at first, and together when it is known', () => {
  const world = new World(vms, vm => unequal[vm] as CutTimes)
  const first = world.epoch()
  expect(first.skewMs).toBe(150 - 8)
  expect(first.waitedMs).toBeGreaterThan(800)
  for (let epoch = 2; epoch <= 3; epoch++) world.epoch()
  const later = world.epoch()
  expect(later.skewMs).toBeLessThanOrEqual(LATENCY_MS)
  // Nobody waits for the slowest but for the difference of their leads; and planning has cost no time.
  expect(later.waitedMs).toBeLessThanOrEqual(150 - 8 + 2 * LATENCY_MS)
  expect(later.tookMs).toBeLessThanOrEqual(first.tookMs + LATENCY_MS)
})

test('the first epoch of a generation, of all RAM, does not make the later ones wait', () => {
  const world = new World(vms, (vm, epoch) => {
    const { prepareMs, leadMs } = unequal[vm] as CutTimes
    return epoch === 1 ? { prepareMs: 10 * prepareMs, leadMs } : { prepareMs: 50, leadMs }
  })
  world.epoch()
  for (let epoch = 2; epoch <= 12; epoch++) expect(world.epoch().tookMs).toBeLessThanOrEqual(50 + 150 + 4 * LATENCY_MS)
})

test('times that vary leave a skew of what they vary by', () => {
  const varied = (ms: number, epoch: number): number => ms * (1 + 0.1 * Math.sin(epoch * 7))
  const world = new World(vms, (vm, epoch) => {
    const { prepareMs, leadMs } = unequal[vm] as CutTimes
    return { prepareMs: varied(prepareMs, epoch), leadMs: varied(leadMs, epoch + vm.length) }
  })
  const skews = Array.from({ length: 20 }, () => world.epoch().skewMs)
  expect(Math.max(...skews.slice(0, 1))).toBeGreaterThan(100)
  expect(Math.max(...skews.slice(3))).toBeLessThan(0.1 * (150 + 60 + 8) + 0.1 * 150)
})

test('a VM that is copied for longer than the others are patient holds no frame up: nobody is cut before it is prepared', () => {
  const large = { prepareMs: 5 * PREPARED_PATIENCE_MS, leadMs: 60 }
  const world = new World(vms, vm => (vm === 'large' ? large : (unequal[vm] as CutTimes)))
  const { skewMs, waitedMs, committed } = world.epoch()
  // Frames of the first that was cut wait for the last: by the difference of their leads, and not of their copying.
  expect(skewMs).toBe(150 - 8)
  expect(waitedMs).toBeGreaterThan(4 * PREPARED_PATIENCE_MS)
  expect(committed).toBe(true)
})

test('a VM whose owner hangs costs the group an epoch, and no frame has waited for it', () => {
  const { cuts, committed } = new World(vms, vm => unequal[vm] as CutTimes, 'large').epoch()
  expect([cuts, committed]).toEqual([0, false])
})
