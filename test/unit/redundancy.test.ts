/** What people see of redundancy: verify and repair over the API, and their texts. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { gatherFacts } from '../../node/agents/membership-facts.ts'
import { serveApi, type ApiServer } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { repairText, verifyText } from '../../node/edge/cli-redundancy.ts'
import { ApiClient } from '../../node/edge/client.ts'
import type { WorkProgress } from '../../node/edge/redundancy-view.ts'
import type { PeerView } from '../../node/edge/view.ts'
import type { StreamManifest } from '../../node/ports.ts'
import { exposures } from '../../node/planning/exposure.ts'
import { RedundancyOperations } from '../../node/operations/redundancy.ts'
import { RepairWorld } from './repair-world.ts'
import { ship } from './shards-network.ts'
import { clock, memoryLog } from './store-support.ts'

let world: RepairWorld
let manifest: StreamManifest
let runDir: string
let server: ApiServer
let client: ApiClient
let operations: RedundancyOperations
const { signal } = new AbortController()

beforeEach(async () => {
  world = new RepairWorld(6, { checkEveryMs: 60_000 })
  manifest = await ship(world.bodies.slice(0, 5), randomBytes(3 * 5 * 3 * 256 - 100))
  await world.commit([manifest])
  runDir = mkdtempSync(join(tmpdir(), 'diapause-redundancy-'))
  const { redundancy, repair, shards } = world.body(5)
  const record = world.record()
  const storing = { redundancy, repair, shards, scrub: { status: () => null } }
  operations = new RedundancyOperations({ storing, membership: { record: () => record }, clock })
  server = await serveApi({ view: { redundancy: operations } as unknown as PeerView, runDir, log: memoryLog() })
  client = new ApiClient(server.socketPath)
})

afterEach(async () => {
  world.stop()
  await server.close()
  rmSync(runDir, { recursive: true })
})

/** The command line without a process: what it prints, and its exit code. */
async function cli(...args: string[]) {
  const [out, err]: [string[], string[]] = [[], []]
  const host = {
    version: '0.0.0',
    print: (text: string) => void out.push(text),
    printError: (text: string) => void err.push(text),
    progress() {},
    interruptible: <T>(work: (signal: AbortSignal) => Promise<T>) => work(signal)
  } as unknown as CliHost
  const code = await runCli([...args, '--socket', server.socketPath], host)
  return { code, out: out.join('\n'), err: err.join('\n') }
}

async function verify(wish: { name?: string; deep: boolean }) {
  const heard: WorkProgress[] = []
  const report = await client.verify(wish, now => void heard.push(now), signal)
  return { report, heard }
}

describe('diapause verify', () => {
  it('says that nothing is missing and how many losses are borne, and reads nothing', async () => {
    const { report } = await verify({ deep: false })
    expect(report).toMatchObject({ missing: [], damaged: [], unreadable: [], silent: [] })
    expect(report.images).toEqual([{ group: 'g', vm: 'v', epoch: 1, streams: 1, columns: 5, missing: 0, tolerates: 2 }])
    expect(verifyText(report)).toMatch(/g\/v +1 +1 +5 +0 +the loss of any 2 members\nnothing is missing$/)
    expect(world.bodies.every(({ memory }) => memory.reads === 0)).toBe(true)
  })

  it('names what is missing, and the members that are out of reach', async () => {
    world.kill(1)
    world.body(3).memory.held.clear()
    const { report } = await verify({ name: 'g', deep: false })
    expect(report.missing).toEqual([
      { stream: 'g/v/1/1', column: 1, holder: 'p1' },
      { stream: 'g/v/1/1', column: 3, holder: 'p3' }
    ])
    expect(report).toMatchObject({ silent: ['p1'], images: [{ missing: 2, tolerates: 0 }] })
    expect(verifyText(report)).toContain('missing: column 3 of g/v/1/1 (of p3)')
    expect(verifyText(report)).toContain('no loss')
    world.kill(2)
    const lost = await verify({ deep: false })
    expect(verifyText(lost.report)).toContain('CANNOT BE READ NOW')
    await expect(verify({ name: 'h', deep: false })).rejects.toMatchObject({ code: 'NAME_UNKNOWN', name: 'UsageError' })
  })

  it('finds by reading, with --deep, what is damaged, and tells how far it is', async () => {
    const { memory } = world.body(2)
    const verifyColumn = memory.verifyColumn.bind(memory)
    vi.spyOn(memory, 'verifyColumn').mockImplementation(async (stream, grid, column) =>
      grid === 1 ? 'damaged' : await verifyColumn(stream, grid, column)
    )
    const { report, heard } = await verify({ deep: true })
    expect(report.damaged).toEqual([{ stream: 'g/v/1/1', grid: 1, column: 2, member: 'p2' }])
    expect(report.unreadable).toEqual([])
    expect(world.damaged).toEqual(['g/v/1/1 2'])
    expect(verifyText(report)).toContain('data and parity')
    const reading = heard.filter(({ text }) => text === 'columns read where they lie')
    expect(reading.at(-1)).toMatchObject({ done: 15, total: 15 })
    expect(heard.at(-1)).toEqual({ text: 'streams read', done: 1, total: 1 })
  })

  it('does not call clean, with --deep, what a member does not answer for', async () => {
    world.body(2).memory.verifyColumn = async () => {
      throw new Error('the disk hangs')
    }
    const { report } = await verify({ deep: true })
    const why = expect.stringContaining('the disk hangs')
    expect(report.unreadable).toEqual([{ what: 'grids 0 to 2 of column 2 of g/v/1/1 at p2', why }])
    expect(await cli('verify', '--deep')).toMatchObject({
      code: 1,
      out: expect.stringContaining('not everything is there')
    })
  })

  it('finds nothing wrong with what an epoch dropped while it was read', async () => {
    const { memory } = world.body(2)
    const verifyColumn = memory.verifyColumn.bind(memory)
    let dropped = false
    memory.verifyColumn = async (stream, grid, column) => {
      if (dropped) return await verifyColumn(stream, grid, column)
      dropped = true
      await world.commit([await ship(world.bodies.slice(0, 5), randomBytes(500), { stream: 'g/v/1/2' })])
      for (const { memory: each } of world.bodies) {
        for (const key of each.held.keys()) if (key.startsWith('g/v/1/1 ')) each.held.delete(key)
      }
      return 'missing'
    }
    const { report } = await verify({ deep: true })
    expect(report).toMatchObject({ damaged: [], unreadable: [] })
  })

  it('says, with --deep, which streams cannot be read to the end', async () => {
    for (const i of [0, 1, 2]) for (const bytes of world.body(i).memory.held.values()) bytes.fill(7)
    const { report } = await verify({ deep: true })
    expect(report.unreadable).toEqual([{ what: 'g/v/1/1', why: expect.stringContaining('needs 3') }])
  })
})

describe('the status of a peer', () => {
  it('shows what bears fewer losses than it should, as it was when it was last looked', async () => {
    expect(operations.status()).toMatchObject({ exposed: [], repaired: { columns: 0 } })
    await world.body(5).redundancy.look()
    expect(operations.status()?.exposed).toEqual([])
    world.body(3).memory.held.clear()
    await world.body(5).redundancy.look({ anew: true })
    const shown = operations.status()?.exposed
    expect(shown).toMatchObject([{ group: 'g', vm: 'v', missing: 1, tolerates: 1 }])
    expect(operations.status()?.exposed, 'it is worked out once for each look').toBe(shown)
  })
})

describe('diapause repair', () => {
  it('lets the others rebuild at once what a dead member had, and ends when nothing is missing', async () => {
    world.kill(4)
    const heard: WorkProgress[] = []
    const report = await client.repair(now => void heard.push(now), signal)
    expect(report).toEqual({ rebuilt: 1, impossible: [] })
    expect(heard[0]).toEqual({ text: 'columns rebuilt', done: 0, total: 1 })
    expect(await world.columnsAt(5, manifest)).toEqual([4])
    expect(repairText(report)).toBe('1 columns were rebuilt; nothing is missing')
    const { report: after } = await verify({ deep: false })
    expect(after.images).toMatchObject([{ missing: 0, tolerates: 2 }])
  })

  it('says what cannot be repaired and why', async () => {
    for (const i of [0, 1, 2]) world.kill(i)
    const report = await client.repair(() => {}, signal)
    const why = '2 columns are within reach, and 3 are needed: bring back members that have others'
    expect(report).toEqual({ rebuilt: 0, impossible: [{ what: 'columns 0, 1, 2 of g/v/1/1', why }] })
    expect(repairText(report)).toContain(`not repaired: columns 0, 1, 2 of g/v/1/1: ${why}`)
  })

  it('and verify end with 1 where something is missing, and print what programs read', async () => {
    world.body(3).memory.held.clear()
    expect(await cli('verify')).toMatchObject({ code: 1, out: expect.stringContaining('missing: column 3') })
    expect(await cli('repair')).toMatchObject({ code: 0, out: '1 columns were rebuilt; nothing is missing' })
    const { code, out } = await cli('verify', 'g', '--deep', '--json')
    expect({ code, report: JSON.parse(out) as unknown }).toMatchObject({ code: 0, report: { deep: true, missing: [] } })
    expect(await cli('verify', 'nobody')).toMatchObject({ code: 2, err: expect.stringContaining('[NAME_UNKNOWN]') })
    for (const i of [0, 1, 2]) world.kill(i)
    expect(await cli('repair')).toMatchObject({ code: 1, err: expect.stringContaining('[REPAIR_IMPOSSIBLE]') })
  })

  it('is refused at a witness', async () => {
    const none = { storing: undefined, membership: { record: () => world.record() }, clock }
    const witness = new RedundancyOperations(none)
    await expect(witness.repair(signal).next()).rejects.toMatchObject({ code: 'NOT_STORAGE' })
    expect(witness.status()).toBeNull()
  })
})

describe('a member that leaves', () => {
  it('is needed no more when what it has was rebuilt elsewhere', async () => {
    world.leaving.add('p0')
    const { redundancy, repair } = world.body(5)
    const { k, m, holders, stream } = manifest
    const seen = {
      membership: { self: 'p5', record: () => world.record() },
      directory: { all: () => [{ removed: false, owners: {}, committed: { images: { v: 'image' } } }], surveyed: true },
      detector: { livenessOf: () => 'alive' },
      lost: { has: () => false },
      transport: { connected: () => true },
      dataKeys: { opens: () => true },
      wallMs: () => 0,
      readManifest: async () => ({ streams: [{ stream, holders, k, m }] }),
      holdersNow: (of: Parameters<typeof redundancy.holdersNow>[0]) => redundancy.holdersNow(of)
    } as unknown as Parameters<typeof gatherFacts>[0]
    await redundancy.look()
    expect([...(await gatherFacts(seen)).needed]).toEqual(['p0'])
    repair.now()
    await vi.waitFor(async () => expect(await world.columnsAt(5, manifest)).toEqual([0]))
    await redundancy.look()
    expect([...(await gatherFacts(seen)).needed]).toEqual([])
  })
})

describe('who has a column now', () => {
  it('is who is known to have it, though he leaves, and not a planned holder that is known to lack it', async () => {
    const { redundancy } = world.body(1)
    const [planned, other] = [world.body(0).memory.held, world.body(5).memory.held]
    for (const [name, bytes] of planned) other.set(name, bytes)
    await redundancy.look()
    expect(redundancy.holdersNow(manifest)[0]).toBe('p0')
    planned.clear()
    world.leaving.add('p5')
    await redundancy.look({ anew: true })
    expect(redundancy.holdersNow(manifest)[0]).toBe('p5')
    other.clear()
    await redundancy.look({ anew: true })
    expect(redundancy.holdersNow(manifest)[0]).toBe('p0')
  })
})

describe('the exposure of an image', () => {
  it('is that of its weakest stream, and unknown streams count as lost', () => {
    const five = ['a', 'b', 'c', 'd', 'e']
    const standing = new Map(five.map(peer => [peer, 'up' as const]))
    const whole = { stream: 's', k: 3, m: 2, holders: five, places: five.map(peer => [peer]), partly: [] }
    const weak = { ...whole, stream: 't', places: [['a'], ['b'], ['c'], ['a'], []] }
    const facts = { standing, streams: [whole, weak] }
    expect(exposures(facts)(['s'])).toEqual({ columns: 5, missing: 0, tolerates: 2 })
    expect(exposures(facts)(['s', 't'])).toEqual({ columns: 10, missing: 1, tolerates: 0 })
    expect(exposures(facts)(['s', 'u']).tolerates).toBe(-1)
    const elsewhere = { ...whole, places: [['e'], ['b'], ['c'], ['d'], ['e']] }
    expect(exposures({ standing, streams: [elsewhere] })(['s']).tolerates).toBe(1)
    // Three holders lack a grid each, perhaps different ones: it may be that all can be read.
    const torn = { ...whole, places: [['a'], ['b'], [], [], []], partly: [[], [], ['c'], ['d'], ['e']] }
    expect(exposures({ standing, streams: [torn] })(['s'])).toEqual({ columns: 5, missing: 3, tolerates: 0 })
    const shreds = { ...torn, partly: [] }
    expect(exposures({ standing, streams: [shreds] })(['s']).tolerates).toBe(-1)
  })

  it('is worked out once for each stream, however many images lean on it', () => {
    let looks = 0
    const stream = {
      stream: 's',
      k: 1,
      m: 1,
      holders: ['a', 'b'],
      partly: [],
      get places() {
        looks++
        return [['a'], ['b']]
      }
    }
    const exposureOf = exposures({ standing: new Map([['a', 'up' as const]]), streams: [stream] })
    expect(exposureOf(['s'])).toEqual({ columns: 2, missing: 1, tolerates: 0 })
    const once = looks
    for (let image = 0; image < 64; image++) exposureOf(['s'])
    expect(looks).toBe(once)
  })
})
