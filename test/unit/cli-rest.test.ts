/** `diapause vm stop` and `start` from the command line to the group's record: only the register and the cuts are not real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { EventFeed } from '../../node/edge/events.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { DiapauseError, UsageError } from '../../node/errors.ts'
import { EpochOperations } from '../../node/operations/epochs.ts'
import { RestOperations } from '../../node/operations/rest.ts'
import type { ImageManifest } from '../../node/ports.ts'
import { holdByName } from '../../protocols/epoch/kept.ts'
import { abortEpoch, commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import { restNow, startGroup } from '../../protocols/epoch/rest.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { SPEAKS } from '../../protocols/host-facts.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'

const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const imagesOf = ({ vms }: GroupRecord) => Object.fromEntries(vms.map(({ id }) => [id, 'a'.repeat(64)]))

let dir: string
let api: ApiServer
let record: GroupRecord
let events: EventFeed
let told: string[]
/** What becomes of an epoch that is opened. */
let outcome: 'committed' | 'aborted'
let alive: string[]
let speaks: number
let answer: string | undefined
/** What somebody else does just before the record is changed. */
let between: (() => void) | undefined
/** How long leases of hosts that died run yet; a change that they stand in the way of is refused. */
let leaseMs: number
/** How long was waited, each time. */
let waited: number[]

function commitNext(): void {
  record = openEpoch('p1', 1, record.version)(record) as GroupRecord
  record = commitEpoch(record.generation, record.lastEpoch, imagesOf(record))(record) as GroupRecord
}

function end(): void {
  const { generation, lastEpoch: epoch, id: group } = record
  const next = outcome === 'aborted' ? abortEpoch(generation, epoch) : commitEpoch(generation, epoch, imagesOf(record))
  record = next(record) as GroupRecord
  events.emit(`epoch.${outcome}`, { group, epoch, reason: 'a disk is full' })
}

beforeEach(async () => {
  record = createGroup('bank', [vm('a'), vm('b')], { a: 'p1', b: 'p2' })(null) as GroupRecord
  outcome = 'committed'
  alive = ['p1', 'p2', 'p3']
  speaks = SPEAKS
  answer = undefined
  between = undefined
  leaseMs = 0
  waited = []
  told = []
  events = new EventFeed(() => 0)
  events.subscribe(({ kind }) => void told.push(kind))
  const directory = {
    get: () => record,
    refresh: async (id: string) => (id === 'bank' ? record : null),
    change: async (_: string, next: (now: GroupRecord) => GroupRecord | undefined) => {
      between?.()
      if (leaseMs > 0) throw new DiapauseError('REGISTER_LEASED', 'a lease runs', { details: { retryMs: leaseMs } })
      return (record = next(record) ?? record)
    }
  } as unknown as ConstructorParameters<typeof RestOperations>[0]['directory']
  const epochs = new EpochOperations({
    directory,
    events,
    note: () => {},
    policy: { keepLast: 1, hourly: 0, daily: 0, weekly: 0 },
    facts: () => ({ hosts: alive, groups: [record] }),
    readManifest: async () => ({ stats: {} }) as ImageManifest
  })
  const members = ['p1', 'p2'].map(id => ({ id, name: id, role: 'storage' }))
  const rest = new RestOperations({
    directory,
    events,
    epochs,
    clock: {
      after: (ms, fn) => {
        // A deadline does not pass; what waits for a lease has it run out.
        if (leaseMs === 0) return () => {}
        waited.push(ms)
        leaseMs = Math.max(0, leaseMs - ms)
        setImmediate(fn)
        return () => {}
      }
    },
    epochClock: {
      async propose(_id, _policy, _why, rests) {
        if (record.open !== null) throw new DiapauseError('EPOCH_OPEN', 'one is open')
        if (record.resting) throw new UsageError('GROUP_RESTS', 'it rests')
        record = openEpoch('p1', 1000, record.version, rests)(record) as GroupRecord
        const opened = record
        setImmediate(end)
        return opened
      }
    },
    membership: { record: () => ({ members }) as unknown as ClusterRecord },
    detector: { alive: () => alive },
    storagePeers: { about: peers => peers.map(peer => ({ peer, speaks })) }
  })
  dir = mkdtempSync(join(tmpdir(), 'rest-'))
  const view = { epochs, rest, groups: () => [record] } as unknown as PeerView
  api = await serveApi({ view, runDir: dir, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const out: string[] = []
  const err: string[] = []
  const terminal = { asks: answer !== undefined, ask: async (what: string) => (err.push(what), answer ?? '') }
  const host = {
    version: '1',
    terminal,
    print: (text: string) => out.push(text),
    printError: (text: string) => err.push(text)
  }
  const code = await runCli([...args, '--socket', apiSocketPath(dir)], host as unknown as CliHost)
  return { code, out: out.join('\n'), err: err.join('\n') }
}

describe('diapause vm stop', () => {
  test('takes a last epoch, at which the group rests; once more it says that it does', async () => {
    const { code, out } = await run('vm', 'stop', 'bank')
    expect([code, out]).toEqual([0, 'group bank rests, at epoch 1; diapause vm start bank brings it back'])
    expect(record).toMatchObject({ resting: true, generation: 2, committed: { epoch: 1 } })
    expect(told).toEqual(['epoch.committed', 'group.rests'])
    expect((await run('vm', 'stop', 'bank')).out).toContain('rests already, at epoch 1')
    expect(record.version).toBe(3)
  })

  test('is done for both of two who ask for it at once', async () => {
    const both = await Promise.all([run('vm', 'stop', 'bank'), run('vm', 'stop', 'bank')])
    expect(both.map(({ code }) => code)).toEqual([0, 0])
    expect(record).toMatchObject({ resting: true, committed: { epoch: 1 }, lastEpoch: 1 })
  })

  test('is told of as such by a restore that somebody else was before', async () => {
    commitNext()
    between = () => (record = restNow(record.generation)(record) as GroupRecord)
    expect((await run('restore', 'bank', '--yes')).err).toContain('GROUP_CHANGED')
    expect(told).not.toContain('group.restored')
  })

  test('says why where that epoch came to nothing, and the group goes on', async () => {
    outcome = 'aborted'
    const { code, err } = await run('vm', 'stop', 'bank')
    expect([code, err]).toEqual([1, expect.stringMatching(/goes on.*a disk is full.*REST_ABORTED/s)])
    expect(record).not.toHaveProperty('resting')
    expect(told).toEqual(['epoch.aborted'])
  })

  test('now, loses what is not in an epoch only where somebody says so', async () => {
    expect(await run('vm', 'stop', 'bank', '--now', '--yes')).toMatchObject({
      code: 2,
      err: expect.stringContaining('EPOCH_NONE')
    })
    commitNext()
    const refused = expect.stringContaining('NOT_CONFIRMED') as string
    expect(await run('vm', 'stop', 'bank', '--now')).toMatchObject({ code: 2, err: refused })
    answer = 'n'
    expect(await run('vm', 'stop', 'bank', '--now')).toMatchObject({ code: 2, err: refused })
    expect(record.generation).toBe(1)
    answer = 'y'
    const { code, err } = await run('vm', 'stop', 'bank', '--now')
    expect([code, err]).toEqual([0, expect.stringContaining('lose what they did since epoch 1')])
    expect(record).toMatchObject({ resting: true, committed: { epoch: 1 }, lastEpoch: 1 })
  })

  test('takes the name of a VM where its group has no other, and else names the group', async () => {
    const { code, err } = await run('vm', 'stop', 'a')
    expect([code, err]).toEqual([2, expect.stringMatching(/b beside it: name the group, bank.*VM_OF_GROUP/s)])
    expect((await run('vm', 'start', 'nobody')).err).toContain('NAME_UNKNOWN')
    record = createGroup('bank', [vm('a')], { a: 'p1' })(null) as GroupRecord
    expect((await run('vm', 'stop', 'a', '--json')).out).toContain('"resting": true')
  })

  test('is refused while a living member is of a version that knows no rest', async () => {
    speaks = SPEAKS - 1
    expect(await run('vm', 'stop', 'bank')).toMatchObject({ code: 2, err: expect.stringContaining('MEMBER_OLDER') })
    expect(record.open).toBeNull()
  })
})

describe('diapause vm start', () => {
  test('starts a group that rests from its last epoch, what dead hosts ran elsewhere', async () => {
    await run('vm', 'stop', 'bank')
    alive = ['p2', 'p3']
    const { code, out } = await run('vm', 'start', 'bank')
    expect([code, out]).toEqual([0, 'group bank goes on from epoch 1 in generation 3'])
    expect(record).toMatchObject({ owners: { a: 'p3', b: 'p2' }, generation: 3 })
    expect(record).not.toHaveProperty('resting')
    expect(told.at(-1)).toBe('group.started')
  })

  test('starts it from an epoch that is kept, as does restore', async () => {
    commitNext()
    record = holdByName(1, 'x')(record) as GroupRecord
    for (const words of [['vm', 'start'], ['restore']]) {
      await run('vm', 'stop', 'bank')
      expect((await run(...words, 'bank', '--epoch', '1')).out).toContain('goes on from epoch 1')
      expect(record).not.toHaveProperty('resting')
      expect(record.committed?.epoch).toBe(1)
    }
  })

  test('does nothing to a group that runs, and does not take it back', async () => {
    commitNext()
    expect(await run('vm', 'start', 'bank')).toMatchObject({ code: 0, out: expect.stringContaining('does not rest') })
    expect(await run('vm', 'start', 'bank', '--epoch', '1')).toMatchObject({
      code: 2,
      err: expect.stringContaining('GROUP_RUNS')
    })
    expect(record.generation).toBe(1)
  })

  test('waits for the lease of a host that died as the group was stopped, and for none that runs for long', async () => {
    await run('vm', 'stop', 'bank')
    alive = ['p2', 'p3']
    leaseMs = 700_000
    expect(await run('vm', 'start', 'bank')).toMatchObject({ code: 1, err: expect.stringContaining('REGISTER_LEASED') })
    leaseMs = 900
    expect(await run('vm', 'start', 'bank')).toMatchObject({
      code: 0,
      out: expect.stringContaining('goes on from epoch 1')
    })
    expect(waited).toEqual([900])
  })

  test('does not start it twice where what was refused is decided all the same', async () => {
    await run('vm', 'stop', 'bank')
    leaseMs = 900
    between = () => {
      if (waited.length === 0) setImmediate(() => (record = startGroup(2, 1, record.owners)(record) as GroupRecord))
    }
    expect(await run('vm', 'start', 'bank', '--epoch', '1')).toMatchObject({ code: 0 })
    expect(record.generation).toBe(3)
  })

  test('says so where no host has room', async () => {
    await run('vm', 'stop', 'bank')
    alive = []
    expect(await run('vm', 'start', 'bank')).toMatchObject({ code: 2, err: expect.stringContaining('NO_HOST') })
    expect(record.resting).toBe(true)
  })
})
