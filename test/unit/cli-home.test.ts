/** `diapause home` and `recovery-key` from the command line to a peer whose second home is not real. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import type { HomeView } from '../../node/edge/home-view.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { DiapauseError, UsageError } from '../../node/errors.ts'
import { newestOf, refuseDamaged, refuseYoung } from '../../node/operations/home.ts'
import { newRecoveryKey, readRecoveryKey } from '../../node/host/recovery-key.ts'
import type { HomeEpoch } from '../../node/ports.ts'

const KEY = /^ {4}((?:\w{4}-){13}\w{4})$/m

let dir: string
let api: ApiServer
let out: string[]
let home: Partial<HomeView>

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'cli-home-'))
  out = []
  home = {}
  const view = {
    get home() {
      return home
    }
  } as unknown as PeerView
  api = await serveApi({ view, runDir: dir, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

async function run(...args: string[]): Promise<{ code: number; err: string }> {
  const err: string[] = []
  const host = {
    version: '1',
    defaultConfigFile: undefined,
    newRecoveryKey: () => Promise.resolve(newRecoveryKey()),
    readRecoveryKey,
    print: (text: string) => void out.push(text),
    printError: (text: string) => err.push(text)
  }
  const code = await runCli([...args, '--socket', apiSocketPath(dir)], host as unknown as CliHost)
  return { code, err: err.join('\n') }
}

describe('a new recovery key', () => {
  test('has been printed before the cluster gets it', async () => {
    let before: string[] = []
    home.setRecovery = () => {
      before = [...out]
      return Promise.resolve({ name: 'x', madeMs: 1 })
    }
    expect(await run('recovery-key', 'new')).toEqual({ code: 0, err: '' })
    expect(before.join('\n')).toMatch(KEY)
    expect(out.at(-1)).toMatch(/^It counts/)
  })

  test.each([[[]], [['--json']]])('whose answer is lost may be in force, and the error says so (%s)', async args => {
    home.setRecovery = () => Promise.reject(new DiapauseError('REGISTER_UNAVAILABLE', 'no majority.'))
    const { code, err } = await run('recovery-key', 'new', ...args)
    expect(code).toBeGreaterThan(0)
    expect(err).toMatch(/no majority\. Recovery key \w{16} may be in force/)
    expect(`    ${/it is ([\w-]+)/.exec(err)?.[1] ?? ''}\n${out.join('\n')}`).toMatch(KEY)
  })

  test('that was refused is not', async () => {
    home.setRecovery = () => Promise.reject(new UsageError('RECOVERY_KEY_THERE', 'there is one already'))
    const { err } = await run('recovery-key', 'new')
    expect(err).toContain('there is one already')
    expect(err).not.toContain('in force')
  })
})

describe('the file of the recovery key', () => {
  let file: string
  let given: string[]
  beforeEach(() => {
    file = join(dir, 'key')
    given = []
    home.restore = ({ recoveryKey }) => {
      given.push(recoveryKey)
      return Promise.resolve([])
    }
  })
  const restore = () => run('home', 'restore', '--recovery-key-file', file)

  test('is read where its owner alone may, and refused where others may read it', async () => {
    const { text } = newRecoveryKey()
    writeFileSync(file, `${text}\n`, { mode: 0o644 })
    const { code, err } = await restore()
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringContaining(`chmod 600 ${file}`) })
    expect(err).toContain('RECOVERY_KEY_EXPOSED')
    expect(err).not.toContain(text)
    chmodSync(file, 0o600)
    expect(await restore()).toMatchObject({ code: 0, err: '' })
    expect(given).toEqual([text])
  })

  test('is refused where there is none, and where it holds more than a key', async () => {
    expect((await restore()).err).toMatch(/cannot read the recovery key .*ENOENT.*RECOVERY_KEY/)
    writeFileSync(file, 'A'.repeat(1_001), { mode: 0o600 })
    expect((await restore()).err).toMatch(/more than 1000 bytes.*RECOVERY_KEY/)
    expect(given).toEqual([])
  })
})

test('status says where to ask whether a group is copied that another peer copies', async () => {
  const groups = [
    { group: 'bank', copier: 'p1', here: true },
    { group: 'shop', copier: 'p3', here: false }
  ]
  home.status = () => ({ url: 'dir:/x', recovery: null, groups })
  await run('home', 'status')
  expect(out.join('\n')).toMatch(/^bank: copied by p1$/m)
  expect(out.join('\n')).toMatch(/^shop: copied by p3, as far as .*: ask there$/m)
})

test('list says what lies there that it takes for no epoch', async () => {
  const others = ['a', 'b', 'c', 'd', 'e'].map(name => `epochs/${name}`)
  home.list = () => Promise.resolve({ epochs: [], damaged: [], others })
  await run('home', 'list')
  expect(out.join('\n')).toMatch(/^passed over, .*: epochs\/a, epochs\/b, epochs\/c and 2 more$/m)
})

describe('the newest epoch in a second home', () => {
  const epoch = (generation: number, number: number): HomeEpoch => ({
    cluster: 'ab'.repeat(16),
    clusterName: 'forest',
    group: 'shop',
    generation,
    epoch: number,
    copiedMs: Date.UTC(2026, 1, 3),
    recovery: 'r',
    vms: ['till'],
    streams: 1,
    bytes: 1
  })

  test('is of the last group of that name, wherever the epochs of an older one had come', () => {
    expect(newestOf([epoch(7, 1), epoch(3, 10), epoch(7, 2)], {})).toEqual([epoch(7, 2)])
    expect(newestOf([epoch(3, 2), epoch(7, 2)], { epoch: 2 })).toEqual([epoch(7, 2)])
  })

  test('that another cluster has copied within the hour is taken only by who says that it is gone', () => {
    const of = epoch(3, 9)
    const at = (minutes: number) => of.copiedMs + minutes * 60_000
    for (const minutes of [-5, 0, 59]) {
      const young = /forest copied epoch 9 of group "shop" \d+ minutes ago.* run twice.*--force$/
      expect(() => refuseYoung([of], 'other', at(minutes)), `${minutes}`).toThrow(young)
    }
    refuseYoung([of], 'other', at(61))
    refuseYoung([of], of.cluster, at(1)) // its own register knows better
  })

  test('is not passed over in silence where it cannot be read', () => {
    const { cluster, group } = epoch(0, 0)
    const damaged = (generation: number, number: number) => [
      { name: 'epochs/x', cluster, group, generation, epoch: number }
    ]
    const chosen = [epoch(3, 9)]
    for (const newer of [damaged(3, 10), damaged(4, 1)]) {
      expect(() => refuseDamaged({ epochs: [], damaged: newer, others: [] }, chosen)).toThrow(
        /copied 2026-02-03.*--epoch 9$/
      )
    }
    refuseDamaged({ epochs: [], damaged: damaged(3, 8), others: [] }, chosen)
  })
})
