/** What commands about members print, with a peer of which only the API is real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import type { ClusterStatus } from '../../node/edge/cluster-view.ts'
import type { PeerView } from '../../node/edge/view.ts'

let dir: string
let api: ApiServer
let voters = 3
const keys = {
  cluster: 'forest',
  opens: true,
  keys: [{ id: 2, madeMs: 1_800_000_000_000, by: 'oak', streams: 4 }, { id: 1, madeMs: 0, by: 'elm' }, { id: 0 }],
  holders: ['oak', 'elm'],
  lacking: ['ash']
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'members-'))
  const cluster = {
    status: async () =>
      ({
        voters: { version: 1, settled: true, count: voters, tolerates: Math.ceil(voters / 2) - 1 },
        members: [],
        waits: []
      }) as unknown as ClusterStatus,
    setMember: async () => void voters--,
    removeMember: async () => void voters--,
    leave: async () => void voters--,
    keys: async () => keys,
    rotateKeys: async () => ({ ...keys, lacking: [] })
  }
  const view = { cluster, status: async () => ({ name: 'oak' }) } as unknown as PeerView
  api = await serveApi({ view, runDir: dir, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterAll(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

async function printed(...args: string[]): Promise<string[]> {
  const lines: string[] = []
  const host = { version: '1', defaultConfigFile: undefined, print: (text: string) => lines.push(text) }
  expect(await runCli([...args, '--socket', apiSocketPath(dir)], host as unknown as CliHost)).toBe(0)
  return lines
}

test('whoever changes the votes is told how many voters may fail now', async () => {
  voters = 4
  expect(await printed('members', 'set', 'elm', '--votes', 'no')).toEqual([
    'elm is set',
    'votes: 3, of which any 1 may fail and the others still decide'
  ])
  expect((await printed('members', 'remove', 'elm', '--yes')).at(-1)).toBe(
    'votes: 2, of which none may fail and the others still decide'
  )
  expect((await printed('leave', '--yes')).at(-1)).toMatch(/^votes: 1, of which none/)
  expect(await printed('members', 'set', 'elm', '--address', '/ip4/10.0.0.1/tcp/7400')).toEqual(['elm is set'])
  expect(await printed('members', 'remove', 'elm', '--yes', '--json')).toEqual(['{"removed":"elm"}'])
})

test('the data keys are listed with who has them, and a new one is made by hand', async () => {
  expect((await printed('keys')).join('\n').split('\n')).toEqual([
    'data keys of cluster forest: the newest is 2; this peer has it',
    expect.stringMatching(/key +streams +made +by/),
    expect.stringMatching(/2 +4 +2027-01-15T08:00:00.000Z +oak/),
    expect.stringMatching(/1 +\? +1970-\S+ +elm/),
    expect.stringMatching(/0 +\? +the cluster's secret/),
    'held by: oak, elm',
    'waiting: ash: given it when one of oak, elm is up'
  ])
  expect(JSON.parse((await printed('keys', '--json')).join('\n'))).toEqual(keys)
  expect(await printed('keys', 'rotate')).toEqual(['snapshots are sealed under data key 2 from the next epoch on'])
  expect(JSON.parse((await printed('keys', 'rotate', '--json')).join('\n'))).toMatchObject({ lacking: [] })
})
