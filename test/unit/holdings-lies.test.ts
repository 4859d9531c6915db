/**
 * Members that say they have stored what they have not: agents, shard service and reads are real, on a network in memory. A liar's
 * store keeps nothing of what it is given, and answers every question as if it had.
 */
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isWhole, type VerifyReport } from '../../node/edge/redundancy-view.ts'
import { DiapauseError } from '../../node/errors.ts'
import { gridShapeOf, rowsOf, symbolOffsetInColumn } from '../../node/erasure/grid.ts'
import { RedundancyOperations } from '../../node/operations/redundancy.ts'
import type { StreamManifest } from '../../node/ports.ts'
import { RepairWorld } from './repair-world.ts'
import { ship } from './shards-network.ts'
import { clock } from './store-support.ts'

const STREAM = 'g/v/1/1'
const GRIDS = 3
const [K, M] = [3, 2]

let world: RepairWorld
let data: Uint8Array

beforeEach(() => {
  world = new RepairWorld(6, { checkEveryMs: 60_000 })
  data = randomBytes(GRIDS * 5 * K * 256)
})
afterEach(() => world.stop())

/** Its store takes `column` for stored, and has not a byte of it. */
function lies(i: number, column: number): void {
  const { memory } = world.body(i)
  memory.putColumn = async () => {}
  memory.columns = async () => [{ column, grids: GRIDS }]
  memory.verifyColumn = async () => 'whole'
  memory.readColumn = async () => {
    throw new DiapauseError('SHARD_MISSING', 'not here')
  }
}

/** It keeps what a read without losses asks for, and only says that it has parity. */
function keepsDataAlone(i: number, column: number, manifest: StreamManifest): void {
  const { memory } = world.body(i)
  memory.verifyColumn = async () => 'whole'
  for (let grid = 0; grid < GRIDS; grid++) {
    const shape = gridShapeOf(manifest, grid)
    for (let row = shape.k; row < rowsOf(shape); row++) {
      const at = symbolOffsetInColumn(shape, row)
      memory.held.get(`${STREAM} ${grid} ${column}`)?.fill(0, at, at + shape.symbolBytes)
    }
  }
}

/** As an honest member without columns has it. */
async function verify(deep: boolean): Promise<VerifyReport> {
  const { redundancy, repair, shards } = world.body(5)
  const storing = { redundancy, repair, shards, scrub: { status: () => null } }
  const record = world.record()
  const operations = new RedundancyOperations({ storing, membership: { record: () => record }, clock })
  const steps = operations.verify({ deep }, new AbortController().signal)
  for (;;) {
    const step = await steps.next()
    if (step.done === true) return step.value
  }
}

async function store(): Promise<StreamManifest> {
  const manifest = await ship(world.bodies.slice(0, 5), data, { k: K, m: M, stream: STREAM })
  await world.commit([manifest])
  return manifest
}

const read = (manifest: StreamManifest): Promise<Uint8Array> =>
  world.body(5).shards.readData(manifest, 0, manifest.dataBytes)

describe('a member that says it has stored what it has not', () => {
  it('is believed: its columns count, verify finds nothing missing, also with --deep, and nobody rebuilds them', async () => {
    lies(1, 1)
    lies(2, 2)
    await store()
    for (const deep of [false, true]) {
      const report = await verify(deep)
      expect(isWhole(report)).toBe(true)
      expect(report.images).toMatchObject([{ missing: 0, tolerates: M }])
    }
    const { plan } = await world.body(5).redundancy.look({ urgent: true, anew: true })
    expect(plan).toMatchObject({ repairs: [], impossible: [] })
  })

  it('costs a read no more than a column that is lost: with m of them what is read is right, and counts as degraded', async () => {
    lies(1, 1)
    lies(2, 2)
    const manifest = await store()
    expect(Buffer.compare(await read(manifest), data)).toBe(0)
    expect(world.body(5).shards.stats().degradedReads).toBeGreaterThan(0)
  })

  it('takes away what others may lose: with m of them the death of an honest one loses what verify had said was safe', async () => {
    lies(1, 1)
    lies(2, 2)
    const manifest = await store()
    expect((await verify(true)).images).toMatchObject([{ tolerates: M }])
    world.kill(3)
    await expect(read(manifest)).rejects.toMatchObject({ code: 'SHARD_LOST' })
  })

  it('is found, by verify --deep, only where there are more than m: then data cannot be read', async () => {
    for (const i of [1, 2, 3]) lies(i, i)
    await store()
    expect(isWhole(await verify(false))).toBe(true)
    const why = expect.stringContaining(`needs ${K}`)
    expect(await verify(true)).toMatchObject({ damaged: [], unreadable: [{ what: STREAM, why }] })
  })

  it('is seen by no read at all where it keeps the data and only says that it has the parity', async () => {
    const manifest = await store()
    for (const i of [0, 1, 2, 3, 4]) keepsDataAlone(i, i, manifest)
    expect(isWhole(await verify(true))).toBe(true)
    expect(world.body(5).shards.stats()).toMatchObject({ degradedReads: 0, wrongHashes: 0 })
    world.kill(0)
    await expect(read(manifest)).rejects.toMatchObject({ code: 'SHARD_LOST' })
  })
})
