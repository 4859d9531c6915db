/**
 * Rot: bits turn and files end early in two of five stores at once, again and again. All of it must be found by verifying,
 * all be rebuilt from the other stores and put again, and nothing wrong be served meanwhile. Then in three stores: what has
 * lost more than m symbols of a diagonal is said to be lost, by name, and the rest is repaired as ever.
 *
 * Damage is done to stores that are open, that are closed and opened again (what recovery makes of it counts, too), and to
 * some that lose their index with it.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hasCode, messageOf, UsageError } from '../../node/errors.ts'
import { atLeast, equal, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'
import { type Damage, mapSegments, spoil } from './rot-damage.ts'
import { M, placeOf, RotStores, STORES } from './rot-stores.ts'

const DAMAGES = 10_000
/** In one store in a round: a third of its columns is hit. */
const IN_A_STORE = 60

export interface RotSeen {
  readonly damages: number
  readonly flips: number
  readonly truncations: number
  readonly inColumns: number
  readonly inHeaders: number
  readonly inManifests: number
  /** In bytes that nobody reads: columns that were put again since. */
  readonly inDead: number
  /** Hit, and verified as whole: `STORE STREAM GRID COLUMN`, or a manifest. */
  readonly unfound: readonly string[]
  readonly found: number
  readonly unrepaired: readonly string[]
  readonly served: readonly string[]
  /** Damage to m + 1 stores: columns that cannot be rebuilt, those that can, and what is said of the first. */
  readonly beyond: { readonly lost: number; readonly repaired: number; readonly silent: number; readonly said: string }
}

type Mode = 'open' | 'reopened' | 'index lost'
const MODES: readonly Mode[] = ['open', 'reopened', 'open', 'reopened', 'index lost']

class Rot {
  readonly stores: RotStores
  damages: Damage[] = []
  found = 0
  readonly unfound: string[] = []
  readonly unrepaired: string[] = []
  readonly served: string[] = []

  constructor(stores: RotStores) {
    this.stores = stores
  }

  /** Spoils some stores, reads, verifies, and returns by store what was found. */
  async spoil(which: readonly number[], count: number, mode: Mode): Promise<Map<number, Set<string>>> {
    const found = new Map<number, Set<string>>()
    const hits = new Map<number, Damage[]>()
    for (const i of which) {
      if (mode === 'open') await this.#settled(i)
      else await this.stores.close(i)
      const damages = spoil(this.stores.dirOf(i), await mapSegments(this.stores.dirOf(i)), count)
      if (mode !== 'open') await this.stores.open(i, mode !== 'index lost')
      hits.set(i, damages)
      this.damages.push(...damages)
    }
    for (const i of which) {
      // Before anybody has verified: refused or right, never wrong.
      this.served.push(...(await this.stores.readAll(i)).wrong.map(key => `${i} ${key}`))
      const seen = await this.#scrub(i)
      found.set(i, seen)
      this.found += seen.size
      for (const { kind, hits: places } of hits.get(i) ?? []) {
        if (kind !== 'column' && kind !== 'manifest') continue
        this.unfound.push(...places.filter(place => !seen.has(place)).map(place => `${i} ${place}`))
      }
    }
    return found
  }

  /** What was found is made again. Gives what cannot be, and why. */
  async repair(found: ReadonlyMap<number, ReadonlySet<string>>): Promise<Map<string, unknown>> {
    const lost = new Map<string, unknown>()
    for (const [i, keys] of found) {
      const rebuild = this.stores.rebuilder(i)
      const store = this.stores.store(i)
      const one = async (key: string): Promise<void> => {
        const document = this.stores.documents.get(key)
        if (document !== undefined) return await store.putManifest(key, document)
        const { stream, grid, column } = placeOf(key)
        await store.putColumn(stream, grid, column, await rebuild(stream, grid, column))
      }
      for (const key of keys) await one(key).catch((error: unknown) => lost.set(`${i} ${key}`, error))
    }
    return lost
  }

  /** Everything of these stores is there and verifies. */
  async whole(which: readonly number[]): Promise<void> {
    for (const i of which) {
      const { refused, wrong } = await this.stores.readAll(i)
      this.served.push(...wrong.map(key => `${i} ${key}`))
      this.unrepaired.push(...[...refused, ...(await this.#scrub(i))].map(key => `${i} ${key}`))
    }
  }

  /** All that is listed, all that should be, and manifests: what of it is not whole. */
  async #scrub(i: number): Promise<Set<string>> {
    const store = this.stores.store(i)
    const bad = new Set<string>()
    for await (const { stream, grid, column } of store.eachColumn()) {
      if ((await store.verifyColumn(stream, grid, column)) !== 'whole') bad.add(`${stream} ${grid} ${column}`)
    }
    for (const key of this.stores.columns[i]?.keys() ?? []) {
      const { stream, grid, column } = placeOf(key)
      if (!bad.has(key) && (await store.verifyColumn(stream, grid, column)) !== 'whole') bad.add(key)
    }
    for (const name of this.stores.documents.keys()) {
      if ((await store.getManifest(name)) === undefined) bad.add(name)
    }
    return bad
  }

  /** A store that empties a segment would move what is being mapped. */
  async #settled(i: number): Promise<void> {
    for (let before = -1; ; ) {
      const { deadBytes } = await this.stores.store(i).space()
      if (deadBytes === before) return
      before = deadBytes
      await new Promise(resolve => setTimeout(resolve, 25))
    }
  }
}

export async function rot(count: number, progress: (line: string) => void): Promise<RotSeen> {
  const dir = await mkdtemp(join(tmpdir(), 'diapause-rot-'))
  try {
    const stores = await RotStores.make(dir)
    const run = new Rot(stores)
    for (let round = 0; run.damages.length < count; round++) {
      const first = Math.floor(Math.random() * STORES)
      const which = Array.from({ length: M }, (_, i) => (first + i * (1 + (round % 2))) % STORES)
      const left = Math.min(IN_A_STORE, Math.ceil((count - run.damages.length) / M))
      const found = await run.spoil(which, left, MODES[round % MODES.length] ?? 'open')
      for (const [key, error] of await run.repair(found)) run.unrepaired.push(`${key}: ${messageOf(error)}`)
      await run.whole(which)
      if (round % 20 === 19) progress(`${run.damages.length} of ${count}`)
    }
    const all = Array.from({ length: STORES }, (_, i) => i)
    for (const i of all) {
      await stores.close(i)
      await stores.open(i, false)
    }
    await run.whole(all)
    const beyond = await goBeyond(run)
    for (const i of all) await stores.close(i)
    return seenOf(run, beyond)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

/** More stores than m, each with half of its columns hit: by chance, many a diagonal has lost too much. */
async function goBeyond(run: Rot): Promise<RotSeen['beyond']> {
  const which = [0, 2, 4]
  const before = run.damages.length
  const found = await run.spoil(which, IN_A_STORE, 'open')
  run.damages.length = before
  let lost = new Map<string, unknown>()
  let repaired = 0
  // Until nothing more comes back: what one store got may be what another lacks.
  for (let todo = found; ; ) {
    lost = await run.repair(todo)
    const left = new Map(which.map(i => [i, new Set<string>()]))
    for (const key of lost.keys()) left.get(Number(key.slice(0, 1)))?.add(key.slice(2))
    const done = sizeOf(todo) - lost.size
    repaired += done
    if (done === 0 || lost.size === 0) break
    todo = left
  }
  const errors = [...lost.values()]
  const silent = errors.filter(error => !hasCode(error, 'SHARD_LOST')).length
  return { lost: lost.size, repaired, silent, said: errors.length > 0 ? messageOf(errors[0]) : '' }
}

const sizeOf = (sets: ReadonlyMap<number, ReadonlySet<string>>): number =>
  [...sets.values()].reduce((sum, { size }) => sum + size, 0)

function seenOf({ damages, found, unfound, unrepaired, served }: Rot, beyond: RotSeen['beyond']): RotSeen {
  const kind = (name: Damage['kind']): number => damages.filter(damage => damage.kind === name).length
  const truncations = damages.filter(({ how }) => how === 'truncation').length
  return {
    damages: damages.length,
    flips: damages.length - truncations,
    truncations,
    inColumns: kind('column'),
    inHeaders: kind('header'),
    inManifests: kind('manifest'),
    inDead: kind('dead'),
    unfound,
    found,
    unrepaired,
    served,
    beyond
  }
}

export async function measureRot(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const count = Number(options.damages ?? DAMAGES)
  if (!Number.isInteger(count) || count < 1) throw new UsageError('BENCH_USAGE', '--damages is a number from 1 on')
  const seen = await rot(count, progress)
  const { unfound, unrepaired, served, beyond, ...numbers } = seen
  return {
    checks: [
      atLeast('bits turned and files cut', seen.damages, count, ''),
      equal('hit, and not found', unfound.length, 0),
      equal('found, and not repaired', unrepaired.length, 0),
      equal('served with wrong bytes', served.length, 0),
      equal('beyond m: lost, and not said to be', beyond.silent, 0),
      note('bits turned', seen.flips),
      note('files cut', seen.truncations),
      note('in columns', seen.inColumns),
      note('in headers of segments', seen.inHeaders),
      note('in manifests', seen.inManifests),
      note('in bytes that nobody reads', seen.inDead),
      note('columns and manifests found and repaired', seen.found),
      note('beyond m: columns lost', beyond.lost),
      note('beyond m: columns repaired', beyond.repaired)
    ],
    text: beyond.said === '' ? [] : [`beyond m, of the first column: ${beyond.said}`],
    details: { ...numbers, unfound, unrepaired, served, beyond }
  }
}
