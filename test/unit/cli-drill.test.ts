/** `diapause drill` from the command line to a peer's view of drills, which is a test's. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import type { DrillView } from '../../node/edge/drill-view.ts'
import { drillMark, statusText } from '../../node/edge/format.ts'
import { Metrics } from '../../node/edge/metrics.ts'
import type { PeerStatus, PeerView } from '../../node/edge/view.ts'
import { DrillOperations } from '../../node/operations/drills.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { DrillReport, DrillWish } from '../../node/ports.ts'
import { createGroup } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { SPEAKS } from '../../protocols/host-facts.ts'
import { initialRecord } from '../../protocols/membership/genesis.ts'
import { aStatus } from './status-support.ts'

const vm = { id: 'a', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
const founder = { id: 'p1', name: 'oak', address: '/ip4/127.0.0.1/tcp/1', role: 'storage' } as const
const passed: DrillReport = {
  group: 'bank',
  epoch: 7,
  peer: 'oak',
  tookMs: 4_321,
  vms: [{ vm: 'a', runsMs: 812, wholeMs: 3_000, pagesFaulted: 21, pagesPushed: 900, faultP99Ms: 11.2 }],
  check: { command: 'count', tookMs: 1_000, exitCode: 0, output: ['all is well'] }
}

let dir: string
let api: ApiServer
let record: GroupRecord | null
let wishes: DrillWish[]
let progress: string[]
/** What comes of a drill. */
let drill: DrillView['run']

beforeEach(async () => {
  record = createGroup('bank', [vm], { a: 'p1' })(null) as GroupRecord
  wishes = []
  progress = []
  drill = async (_, tell) => {
    tell('half of it')
    return passed
  }
  const drills = new DrillOperations({
    directory: { change: async (id, next) => (id === 'bank' ? (record = next(record) ?? record) : null) },
    drills: {
      run: (wish, { tell, signal }) => {
        wishes.push(wish)
        return drill(wish, tell, signal)
      }
    },
    checks: { books: 'count', hello: 'echo' },
    membership: { record: () => initialRecord('0'.repeat(32), 'forest', founder) },
    detector: { alive: () => ['p1'] },
    storagePeers: { about: () => [{ peer: 'p1', speaks: SPEAKS }] }
  })
  dir = mkdtempSync(join(tmpdir(), 'cli-drill-'))
  const view = { drills } as unknown as PeerView
  api = await serveApi({ view, runDir: dir, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true, force: true })
})

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: [string[], string[]] = [[], []]
  const host: Partial<CliHost> = {
    version: '0',
    defaultConfigFile: undefined,
    drillFolder: undefined,
    print: text => void out.push(text),
    printError: text => void err.push(text),
    progress: text => void progress.push(text),
    interruptible: work => work(new AbortController().signal)
  }
  const code = await runCli([...args, '--socket', apiSocketPath(dir)], host as CliHost)
  return { code, out: out.join('\n'), err: err.join('\n') }
}

describe('diapause drill', () => {
  test('asks for a drill, tells how far it is, and what became of it', async () => {
    const { code, out } = await run('drill', 'bank', '--epoch', '7', '--check', 'count', '--timeout', '60')
    expect(code).toBe(0)
    expect(wishes).toEqual([{ group: 'bank', epoch: 7, check: 'count', cwd: process.cwd(), timeoutMs: 60_000 }])
    expect(progress).toEqual(['half of it', ''])
    expect(out.split('\n')).toEqual([
      'drill of group bank from epoch 7 on oak: 4.3 s',
      '  vm  runs after  all pages after  asked for               pushed',
      '  a   0.8 s       3.0 s            21 (99 % within 12 ms)  900',
      'check: exit code 0 after 1.0 s: count',
      '    all is well',
      'PASSED: it came back'
    ])
    expect(JSON.parse((await run('drill', 'bank', '--json')).out)).toEqual(passed)
    expect(wishes[1]).toEqual({ group: 'bank', timeoutMs: 300_000 })
  })

  test('exits with 1 where it failed, and with 2 where it was refused', async () => {
    const failed = 'VM a: no shards'
    drill = async () => ({
      group: 'bank',
      epoch: 7,
      peer: 'oak',
      tookMs: 10,
      vms: [{ vm: 'a', failed: 'no shards' }],
      failed
    })
    const ended = await run('drill', 'bank')
    expect(ended).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^diapause: the drill failed[^:]*\[DRILL_FAILED\]/) as string
    })
    expect(ended.out).toMatch(/ {2}a {3}- .* no shards\nFAILED: VM a: no shards$/)
    expect((await run('drill', 'bank', '--json')).err).toContain('VM a: no shards')
    drill = async () => Promise.reject(new DiapauseError('DRILL_MEMORY', 'too little'))
    expect(await run('drill', 'bank')).toMatchObject({ code: 2, out: '' })
    drill = async (_, tell) => {
      tell('begun')
      throw new DiapauseError('DRILL_INTERRUPTED', 'the peer stops')
    }
    expect(await run('drill', 'bank')).toMatchObject({ code: 1, err: 'diapause: the peer stops [DRILL_INTERRUPTED]' })
    expect(await run('drill', 'bank', '--timeout', '0')).toMatchObject({ code: 2 })
    expect(await run('drill', 'say', 'a', 'hello')).toMatchObject({ code: 2 })
  })

  test('says where nothing was checked, and where the check could not be tried', async () => {
    const report = { group: 'bank', epoch: 7, peer: 'oak', tookMs: 10, vms: [] }
    drill = async () => report
    expect(await run('drill', 'bank')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/came back \(no check was given\)$/)
    })
    const check = { command: 'cuont', tookMs: 1, exitCode: 127, output: ['sh: 1: cuont: not found'] }
    drill = async () => ({ ...report, check, failed: 'the check could not be tried', untried: true })
    const untried = await run('drill', 'bank', '--check', 'cuont')
    expect(untried).toMatchObject({ code: 2, err: expect.stringContaining('[DRILL_UNTRIED]') })
    expect(untried.out).toMatch(/NOT TRIED: the check could not be tried$/)
  })

  test('is scheduled, and not any more', async () => {
    expect(await run('drill', 'schedule', 'bank', '--every', '24h', '--check', 'books')).toMatchObject({
      code: 0,
      out: 'group bank has a drill every 1 d 0 h'
    })
    expect(record?.drills).toEqual({ schedule: { everyMs: 86_400_000, timeoutMs: 300_000, check: 'books' } })
    const unknown = await run('drill', 'schedule', 'bank', '--every', '7d', '--check', 'nooks')
    expect(unknown.err).toMatch(/no check "nooks" .*\(it has books, hello\).*DRILL_CHECK_UNKNOWN/)
    for (const args of [['--every', '1 day'], ['--every', '1s'], [], ['--every', '1h', '--off']]) {
      expect((await run('drill', 'schedule', 'bank', ...args)).code, args.join(' ')).toBe(2)
    }
    expect(await run('drill', 'schedule', 'none', '--every', '24h')).toMatchObject({ code: 2 })
    expect(await run('drill', 'schedule', 'bank', '--off')).toMatchObject({ code: 0 })
    expect(record).not.toHaveProperty('drills')
  })

  test('stands in the status of the group, in lists and metrics', async () => {
    const numbers = { delivered: 0, heldEarly: 0, recordedInFlight: 0, heldFenced: 0, droppedUnknown: 0 }
    const statusWith = (drills: GroupRecord['drills']): PeerStatus => {
      const group = { record: { ...(record as GroupRecord), drills }, running: [], captures: {}, leaseRemainingMs: 0 }
      const members = [{ id: 'p1', name: 'oak', role: 'storage', liveness: 'alive', address: '' }]
      const code = { k: 1, m: 1, storage: 2, tolerates: 1, domains: [] }
      const store = { streams: 0, manifests: 0, bytes: 0 }
      const rest = { code, frames: numbers, refused: {}, redundancy: null, store }
      return { uptimeMs: 0, capture: null, members, groups: [group], ...rest } as unknown as PeerStatus
    }
    const linesWith = (drills: GroupRecord['drills']): string[] => {
      const lines = statusText(statusWith(drills)).split('\n')
      return lines.filter(line => line.includes('drills:'))
    }
    const last = { epoch: 7, by: 'p1', atMs: Date.UTC(2026, 4, 1), tookMs: 4_000 }
    const schedule = { everyMs: 86_400_000, timeoutMs: 60_000 }
    expect(linesWith(undefined)).toEqual([])
    expect(linesWith({ schedule: { ...schedule, runs: 'p1 r' } })).toEqual(['  drills: every 1 d 0 h, one runs now'])
    expect(linesWith({ schedule, last })).toEqual([
      '  drills: every 1 d 0 h; the last, 2026-05-01T00:00:00.000Z on oak from epoch 7, passed after 4.0 s'
    ])
    expect(linesWith({ last: { ...last, failed: 'no shards' } })).toEqual([
      '  drills: on request; the last, 2026-05-01T00:00:00.000Z on oak from epoch 7, FAILED: no shards'
    ])
    const bad = { ...last, failed: 'no shards' }
    const withDrills = (drills: GroupRecord['drills']): GroupRecord => ({ ...(record as GroupRecord), drills })
    expect([undefined, { last }, { last: bad }].map(drills => drillMark(withDrills(drills)))).toEqual([
      '',
      ', last drill passed',
      ', LAST DRILL FAILED'
    ])
    const metrics = async (drills: GroupRecord['drills']) =>
      (await new Metrics(() => true).text({ ...aStatus, groups: statusWith(drills).groups }))
        .split('\n')
        .filter(line => line.startsWith('diapause_drill'))
    expect(await metrics({ schedule })).toEqual([])
    expect(await metrics({ last: bad })).toEqual([
      'diapause_drill_failed{group="bank"} 1',
      `diapause_drill_ended_timestamp_seconds{group="bank"} ${last.atMs / 1_000}`
    ])
    expect(await metrics({ last })).toContain('diapause_drill_failed{group="bank"} 0')
  })
})
