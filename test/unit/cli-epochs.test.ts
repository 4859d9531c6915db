/** `diapause epochs` and `restore` from the command line to the group's record: only the register is not real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { EpochOperations } from '../../node/operations/epochs.ts'
import { DiapauseError } from '../../node/errors.ts'
import { keepBy } from '../../node/planning/retention-policy.ts'
import type { ImageManifest } from '../../node/ports.ts'
import { MAX_HOLDS } from '../../protocols/epoch/messages.ts'
import { commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'

const NOON_MS = Date.UTC(2026, 4, 1, 12)
const policy = { keepLast: 3, hourly: 0, daily: 0, weekly: 0 }
const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const hashOf = (epoch: number, id: string) => `${epoch}${id.charCodeAt(0)}`.padStart(64, '0')

let dir: string
let api: ApiServer
let record: GroupRecord | null
/** Manifests that cannot be read. */
let lost: Set<string>
let events: string[]

function commitNext(): void {
  const now = record as GroupRecord
  const opened = openEpoch('p1', 1, now.version)(now) as GroupRecord
  const epoch = opened.lastEpoch
  const images = Object.fromEntries(now.vms.map(({ id }) => [id, hashOf(epoch, id)]))
  record = commitEpoch(opened.generation, epoch, images, keepBy(policy, NOON_MS + epoch))(opened) as GroupRecord
}

beforeEach(async () => {
  record = createGroup('bank', [vm('a'), vm('b')], { a: 'p1', b: 'p2' })(null) as GroupRecord
  for (let i = 0; i < 5; i++) commitNext()
  lost = new Set()
  events = []
  const epochs = new EpochOperations({
    directory: {
      refresh: async id => (id === 'bank' ? record : null),
      change: async (_, next) => (record = next(record) ?? record)
    },
    events: { emit: kind => void events.push(kind) },
    note: fact => void events.push('why' in fact ? fact.why : fact.kind),
    policy,
    facts: () => ({ hosts: [], groups: [] }),
    readManifest: async hash => {
      if (lost.has(hash)) throw new DiapauseError('MANIFEST_MISSING', `no peer has ${hash}`)
      return { stats: { bytesStored: 1024 } } as ImageManifest
    }
  })
  dir = mkdtempSync(join(tmpdir(), 'epochs-'))
  const view = { groups: () => (record === null ? [] : [record]), epochs } as unknown as PeerView
  api = await serveApi({ view, runDir: dir, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

const run = (...args: string[]) => runAt({ asks: false }, ...args)

/** `terminal`: whether somebody can be asked, and answers what. */
async function runAt(
  terminal: { readonly asks: boolean; ask?(question: string): Promise<string> },
  ...args: string[]
): Promise<{ code: number; out: string[]; err: string }> {
  const out: string[] = []
  const err: string[] = []
  const print = (text: string): void => void out.push(...text.split('\n'))
  const printError = (text: string) => err.push(text)
  const host = { version: '1', defaultConfigFile: undefined, terminal, print, printError }
  const code = await runCli([...args, '--socket', apiSocketPath(dir)], host as unknown as CliHost)
  return { code, out, err: err.join('\n') }
}

const refusal = (code: number, text: string) => ({ code, out: [], err: expect.stringContaining(text) })

describe('diapause epochs', () => {
  test('lists what is kept, when it was committed, what was stored for it and who holds it', async () => {
    lost.add(hashOf(4, 'a'))
    await run('epochs', 'hold', 'bank', '3', '--name', 'audit')
    const { code, out } = await run('epochs', 'bank')
    expect(code).toBe(0)
    expect(out).toEqual([
      expect.stringMatching(/^group bank keeps the newest 3 \(policy: the config's\); its record has room for \d+$/),
      expect.stringMatching(/epoch +committed +stored +generation +held by/),
      expect.stringMatching(/3 +2026-05-01T12:00:00.003Z +2.0 KiB +1 +audit$/),
      expect.stringMatching(/4 +2026-05-01T12:00:00.004Z +\? +1$/),
      expect.stringMatching(/5 +2026-05-01T12:00:00.005Z +2.0 KiB +1 +a restore begins here$/)
    ])
    const { epochs } = JSON.parse((await run('epochs', 'bank', '--json')).out.join('\n')) as { epochs: object[] }
    expect(epochs[0]).toEqual({
      epoch: 3,
      generation: 1,
      committed: false,
      wallMs: NOON_MS + 3,
      bytesStored: 2048,
      holds: ['audit'],
      readers: 0
    })
  })
  test('keeps what is held, and what is released goes with the next epoch', async () => {
    expect((await run('epochs', 'hold', 'bank', '3')).out.join()).toContain('by-hand')
    for (let i = 0; i < 3; i++) commitNext()
    expect(record?.kept?.map(({ epoch }) => epoch)).toEqual([3, 6, 7])
    expect(await run('epochs', 'release', 'bank', '3', '--name', 'x')).toEqual(refusal(2, 'it is held by by-hand'))
    expect((await run('epochs', 'release', 'bank', '3')).code).toBe(0)
    expect(await run('epochs', 'release', 'bank', '3')).toEqual(refusal(2, 'nothing holds it'))
    commitNext()
    expect(record?.kept?.map(({ epoch }) => epoch)).toEqual([7, 8])
  })
  test('drops an epoch by hand, but neither the committed one nor one that is held', async () => {
    await run('epochs', 'hold', 'bank', '3')
    expect(await run('epochs', 'rm', 'bank', '3')).toEqual(refusal(2, 'EPOCH_HELD'))
    expect(await run('epochs', 'rm', 'bank', '5')).toEqual(refusal(2, 'EPOCH_COMMITTED'))
    expect((await run('epochs', 'rm', 'bank', '4')).code).toBe(0)
    expect(await run('epochs', 'rm', 'bank', '4')).toEqual(refusal(2, '4 of group "bank" is not kept; 3, 5 are.'))
  })
  test('changes a group’s policy by what is named, and refuses one that its record has no room for', async () => {
    expect((await run('epochs', 'policy', 'bank', '--hourly', '24')).out[0]).toContain('newest 3, hourly 24 (policy')
    expect(record?.retention).toEqual({ ...policy, hourly: 24 })
    expect(await run('epochs', 'policy', 'bank', '--last', '1000')).toEqual(refusal(2, 'keepLast'))
    const vms = Array.from({ length: 64 }, (_, i) => vm(`vm${i}`))
    record = createGroup('bank', vms, Object.fromEntries(vms.map(({ id }) => [id, 'p1'])))(null) as GroupRecord
    expect(await run('epochs', 'policy', 'bank', '--weekly', '53')).toEqual(refusal(2, 'EPOCHS_FULL'))
  })
  test('says what is wrong with a number, a name and a group', async () => {
    expect(await run('epochs', 'rm', 'bank', 'three')).toEqual(refusal(2, '"three" is not a whole number'))
    expect(await run('epochs', 'hold', 'bank', '3', '--name', '?')).toEqual(refusal(2, 'name'))
    expect(await run('epochs', 'nobody')).toEqual(refusal(2, 'There is no group "nobody"'))
  })
})

describe('diapause restore', () => {
  test('goes back to an epoch that is kept, and holds what was committed', async () => {
    expect(await run('restore', 'bank', '--yes', '--epoch', '4')).toMatchObject({
      code: 0,
      out: ['group bank goes on from epoch 4 in generation 2']
    })
    expect(record).toMatchObject({ generation: 2, committed: { epoch: 4, generation: 1 } })
    expect(record?.holds).toEqual([{ epoch: 5, name: 'before-restore' }])
    expect(events).toEqual(['by-hand', 'group.restored'])
  })
  test('asks first, what would be lost, and does nothing where nobody can be asked', async () => {
    expect(await run('restore', 'bank')).toEqual(refusal(2, 'NOT_CONFIRMED'))
    const asked: string[] = []
    const answering = (answer: string) => ({
      asks: true,
      ask: async (question: string) => (asked.push(question), answer)
    })
    expect((await runAt(answering('n'), 'restore', 'bank')).code).toBe(2)
    expect(record?.generation).toBe(1)
    expect((await runAt(answering('y'), 'restore', 'bank', '--epoch', '4')).code).toBe(0)
    expect(record?.generation).toBe(2)
    expect(asked).toEqual([
      expect.stringMatching(/^Take all VMs of bank back to epoch 5, of .* ago, and lose what they did since/),
      expect.stringMatching(/^Take all VMs of bank back to epoch 4, of /)
    ])
  })
  test('goes back to the last committed epoch where none is named', async () => {
    expect((await run('restore', 'bank', '--yes')).out).toEqual(['group bank goes on from epoch 5 in generation 2'])
    expect(record).not.toHaveProperty('holds')
  })
  test('refuses an epoch that is not kept, and one that cannot be read', async () => {
    expect(await run('restore', 'bank', '--yes', '--epoch', '2')).toEqual(refusal(2, 'is not kept; 3, 4, 5 are.'))
    lost.add(hashOf(3, 'b'))
    expect(await run('restore', 'bank', '--yes', '--epoch', '3')).toEqual(refusal(1, 'MANIFEST_MISSING'))
    expect(record?.generation).toBe(1)
  })
  test('refuses where the record has no room to hold what was committed, and says what to do', async () => {
    const holds = Array.from({ length: MAX_HOLDS }, (_, i) => ({ epoch: 3, name: `x${i}` }))
    record = { ...(record as GroupRecord), holds }
    expect(await run('restore', 'bank', '--yes', '--epoch', '4')).toEqual(
      refusal(2, 'release a hold first, of epoch 3.')
    )
    expect(record.generation).toBe(1)
    expect((await run('epochs', 'release', 'bank', '3', '--name', 'x0')).code).toBe(0)
    expect((await run('restore', 'bank', '--yes', '--epoch', '4')).code).toBe(0)
    expect(record.holds).toHaveLength(MAX_HOLDS)
  })
  test('takes back what the outside was told only where that is meant', async () => {
    record = { ...(record as GroupRecord), outputCommit: true }
    expect(await run('restore', 'bank', '--yes', '--epoch', '4')).toEqual(refusal(2, 'OUTPUT_SENT'))
    expect((await run('restore', 'bank', '--yes')).code).toBe(0)
    expect((await run('restore', 'bank', '--yes', '--epoch', '4', '--force')).code).toBe(0)
  })
})
