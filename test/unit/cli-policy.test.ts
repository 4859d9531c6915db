/** `diapause policy` from the command line to the group's record and the recorded past: only register and epochs are not real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EpochClock } from '../../node/agents/epoch-clock.ts'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { policyOf } from '../../node/edge/cli-policy.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { PolicyOperations } from '../../node/operations/policies.ts'
import type { PolicyModules, SeenEpoch } from '../../node/ports.ts'
import { createGroup } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { SPEAKS } from '../../protocols/host-facts.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { imageOf, MIB, seenEpoch } from './epoch-history-support.ts'
import { memoryLog } from './store-support.ts'

const START = 1_700_000_000_000
const vm = { id: 'a', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }

let dir: string
let api: ApiServer
let record: GroupRecord | null
let epochs: SeenEpoch[]
let older: boolean
let policies: PolicyOperations
/** Threads of simulations: now, and the most at once. */
let simulating: number
let most: number
/** Each answer of the module takes its setting `takesMs`, or 6 ms. */
let nowMs: number

beforeEach(async () => {
  record = createGroup('bank', [vm], { a: 'p1' })(null) ?? null
  older = false
  epochs = Array.from({ length: 60 }, (_, i) => {
    const vms = { a: { pauseMs: 20, durableMs: 200, image: imageOf(10 * MIB) } }
    return seenEpoch(i + 1, { group: 'bank', openedAtMs: START + 10_000 * i, tookMs: 230, vms })
  })
  const directory = {
    get: () => record ?? undefined,
    refresh: async (id: string) => (id === 'bank' ? record : null),
    change: async (id: string, next: (now: GroupRecord | null) => GroupRecord | undefined) =>
      id === 'bank' ? (record = next(record) ?? record) : null,
    onRecord: () => {},
    onForgotten: () => {}
  }
  const history = { of: () => epochs, onSeen: () => () => {}, noteCause: () => {} }
  simulating = 0
  most = 0
  nowMs = 0
  const next: PolicyModules['next'] = async (_, { history: past, now, settings }) => {
    const every = Number(settings['everyMs'])
    nowMs += Number(settings['takesMs'] ?? 6)
    return { atMs: (past.at(-1)?.openedAtMs ?? now.sinceMs) + every, why: `calm: ${every}` }
  }
  const modules: PolicyModules = {
    names: ['calm'],
    next,
    alone: name => {
      most = Math.max(most, ++simulating)
      return { next: question => next(name, question), end: async () => void simulating-- }
    },
    close: async () => {}
  }
  const epochClock = new EpochClock({
    self: 'p1',
    directory,
    history,
    modules,
    clock: { now: () => 0, after: () => () => {} },
    wallMs: () => START + 10_000 * 59 + 4_000,
    log: memoryLog(),
    report: () => {},
    intervalMs: 10_000,
    deadlineMs: 1_000
  })
  policies = new PolicyOperations({
    clock: { now: () => nowMs },
    directory: { ...directory, get: id => (id === 'bank' ? (record ?? undefined) : undefined) },
    history,
    epochClock,
    modules,
    nameOf: id => `host-${id}`,
    partsIfLost: async () => ({ a: { detectMs: 900, decideMs: 1_100, runsMs: 500 } }),
    membership: {
      record: () =>
        ({ members: [{ id: 'p1', name: 'ash', role: 'storage', leaving: false }] }) as unknown as ClusterRecord
    },
    detector: { alive: () => ['p1'] },
    storagePeers: {
      about: peers => peers.map(peer => ({ peer, ...(!older && { speaks: SPEAKS }) }))
    }
  })
  dir = mkdtempSync(join(tmpdir(), 'policy-'))
  api = await serveApi({ view: { policies } as unknown as PeerView, runDir: dir, log: memoryLog() })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

async function run(...args: string[]): Promise<{ code: number; out: string[]; err: string }> {
  const out: string[] = []
  const err: string[] = []
  const print = (text: string): void => void out.push(...text.split('\n'))
  const host = { version: '1', defaultConfigFile: undefined, print, printError: (text: string) => err.push(text) }
  const code = await runCli([...args, '--socket', apiSocketPath(dir)], host as unknown as CliHost)
  return { code, out, err: err.join('\n') }
}

describe('diapause policy', () => {
  test('shows by what a group’s snapshots are taken, by whom, when the next is due, and what they cost', async () => {
    const { code, out } = await run('policy', 'show', 'bank')
    expect(code).toBe(0)
    const often = await run('policy', 'show', 'bank', '--fails-every', '1h')
    expect(often.out.at(-1)).toBe('of the time 99.485 % counts, where a host is lost every 1 h 0 min')
    expect(out).toEqual([
      "group bank: interval: every 10 s (the config's); host-p1 takes its snapshots",
      'the next is due in 6.0 s (every 10 s)',
      'of the last 20, usually: every 10.0 s, paused 20 ms, made in 200 ms, committed 30 ms later; 10.0 MiB changed, 5.0 MiB stored',
      'that is 0.30 % overhead; with a host 5.2 s are lost on average, 10.2 s at the worst; back 2.5 s after a host died',
      'of the time 99.700 % counts, where a host is lost every 30 d 0 h'
    ])
  })

  test('sets one, which stands in the group’s record, and takes it back', async () => {
    const set = await run('policy', 'set', 'bank', '--policy', 'adaptive', '--loss', '8s', '--overhead', '2.5')
    expect(set.out[0]).toBe(
      'group bank: adaptive: overhead under 2.5 %, loss under 8 s, every 1 s to 10 min (its own); host-p1 takes its snapshots'
    )
    expect(set.out[1]).toMatch(/^the next is due in 3\.\d s \(7 s: 0\.4 % overhead, at most 7\.3 s lost\)$/)
    expect(record?.policy).toMatchObject({ kind: 'adaptive', lossMs: 8_000, overheadPercent: 2.5 })
    expect((await run('policy', 'set', 'bank', '--policy', 'default')).code).toBe(0)
    expect(record?.policy).toBeUndefined()
  })

  test('replays the past through one, and shows pause, loss and cost beside what was', async () => {
    const { code, out } = await run('policy', 'simulate', 'bank', '--policy', 'interval', '--every', '30s')
    expect(code).toBe(0)
    expect(out[0]).toBe('group bank over 9 min 50 s, with interval: every 30 s')
    const cells = Object.fromEntries(
      out
        .slice(1, -1)
        .map(line => line.trim().split(/ {2,}/))
        .map(([name, ...rest]) => [name, rest])
    )
    expect(cells).toMatchObject({
      was: ['would be'],
      snapshots: ['59', '19'],
      'usual pause': ['20 ms', '20 ms'],
      'paused in all': ['1.2 s', '380 ms'],
      'lost at the worst': ['10.2 s', '30.2 s']
    })
    expect(record?.policy).toBeUndefined()
    const own = ['--policy', 'own', '--name', 'calm', '--setting', 'everyMs=20000', '--json']
    const found = JSON.parse((await run('policy', 'simulate', 'bank', ...own)).out.join('\n')) as object
    expect(found).toMatchObject({ why: 'calm: 20000', was: { epochs: 59 }, wouldBe: { epochs: 29 } })
  })

  test('replays through one at a time, whose thread it ends, and lets others go on in between', async () => {
    let turns = 0
    let going = true
    const tick = (): void => {
      turns++
      if (going) setImmediate(tick)
    }
    setImmediate(tick)
    const own = (everyMs: number) => policies.simulate('bank', { kind: 'own', name: 'calm', settings: { everyMs } })
    const all = await Promise.allSettled([own(20_000), own(20_000), own(20_000)])
    going = false
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled'])
    expect({ most, simulating }).toEqual({ most: 1, simulating: 0 })
    expect(turns).toBeGreaterThanOrEqual(3 * 29)
  })

  test('ends a simulation that takes too long', async () => {
    const simulated = policies.simulate('bank', {
      kind: 'own',
      name: 'calm',
      settings: { everyMs: 10_000, takesMs: 2_000 }
    })
    await expect(simulated).rejects.toMatchObject({ code: 'SIMULATION_SLOW' })
    expect(simulating).toBe(0)
  })

  test('says what is wrong with a policy, that a module is not there, and that too little is known', async () => {
    const refused = (code: number, text: string) => ({ code, out: [], err: expect.stringContaining(text) })
    expect(await run('policy', 'set', 'bank', '--policy', 'interval')).toEqual(
      refused(2, 'everyMs: expected a whole number from 100 to 86400000, found nothing')
    )
    expect(await run('policy', 'set', 'bank', '--policy', 'interval', '--every', 'soon')).toEqual(
      refused(2, '"soon" is not a time such as 10s')
    )
    expect(await run('policy', 'set', 'bank', '--policy', 'own', '--name', 'wild')).toEqual(
      refused(2, 'no policy "wild" under [policies] of its config (it has calm)')
    )
    expect(await run('policy', 'show', 'shop')).toEqual(refused(2, 'There is no group "shop"'))
    epochs = epochs.slice(0, 3)
    expect(await run('policy', 'simulate', 'bank', '--policy', 'adaptive')).toEqual(refused(1, 'HISTORY_SHORT'))
    expect((await run('policy', 'show', 'bank')).code).toBe(0)
  })

  test('writes none into a record while a member may be of an older version, which would not understand it', async () => {
    older = true
    const { code, err } = await run('policy', 'set', 'bank', '--policy', 'interval', '--every', '1s')
    expect([code, err]).toEqual([2, expect.stringContaining('MEMBER_OLDER')])
    expect(record?.policy).toBeUndefined()
  })
})

test('a policy on the command line has the names of its settings, and windows in their order', () => {
  const window = ['* 8-17 * * 1-5=10s', '0 3 * * *=1m']
  const setting = ['calm=true', 'size=7', 'name=x=y']
  expect(policyOf({ policy: 'windows', window, otherwise: 0, timeZone: 'UTC' })).toEqual({
    kind: 'windows',
    windows: [
      { cron: '* 8-17 * * 1-5', everyMs: 10_000 },
      { cron: '0 3 * * *', everyMs: 60_000 }
    ],
    otherwiseMs: 0,
    timeZone: 'UTC'
  })
  expect(policyOf({ policy: 'own', name: 'calm', setting })).toEqual({
    kind: 'own',
    name: 'calm',
    settings: { calm: true, size: 7, name: 'x=y' }
  })
  expect(() => policyOf({ policy: 'windows', window: ['8-17'] })).toThrow('is not a window')
})
