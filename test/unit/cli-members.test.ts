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
    leave: async () => void voters--
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
  expect((await printed('members', 'remove', 'elm')).at(-1)).toBe(
    'votes: 2, of which none may fail and the others still decide'
  )
  expect((await printed('leave')).at(-1)).toMatch(/^votes: 1, of which none/)
  expect(await printed('members', 'set', 'elm', '--address', '/ip4/10.0.0.1/tcp/7400')).toEqual(['elm is set'])
  expect(await printed('members', 'remove', 'elm', '--json')).toEqual(['{"removed":"elm"}'])
})
