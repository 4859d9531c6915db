import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { checkDefinition } from '../../node/library/examples/check-definition.ts'
import { next, tryOn } from '../../node/library/examples/busy-policy.ts'
import { roomFor } from '../../node/library/examples/room-for.ts'
import { snapshotAll } from '../../node/library/examples/snapshot-all.ts'
import { watchFailovers } from '../../node/library/examples/watch-failovers.ts'
import type { SeenEpoch } from '../../node/library/policy.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'
import { DiapauseError } from '../../node/errors.ts'

const root = join(import.meta.dirname, '../..')

describe('the entry points of the package', () => {
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    exports: Record<string, { types?: string; default: string }>
  }

  it('are files of the library, as JavaScript with types', () => {
    const programs = Object.entries(exports).filter(([name]) => !name.endsWith('.json'))
    expect(programs.map(([name]) => name)).toEqual(['.', './definition', './policy', './planning'])
    for (const [, { types, default: script }] of programs) {
      const [, name = ''] = /^\.\/dist\/(node\/library\/\w+)\.js$/.exec(script) ?? []
      expect(types).toBe(`./dist/${name}.d.ts`)
      expect(existsSync(join(root, `${name}.ts`))).toBe(true)
    }
  })

  it('have the JSON Schema of definitions and the description of the API beside them', () => {
    const files = Object.entries(exports).flatMap(([name, entry]) => (name.endsWith('.json') ? [entry.default] : []))
    expect(files).toEqual(['./dist/openapi.json', './dist/config/definition.schema.json'])
    const schema = JSON.parse(readFileSync(join(root, 'config/definition.schema.json'), 'utf8')) as { $id: string }
    expect(readFileSync(join(root, 'node/library/README.md'), 'utf8')).toContain(`\`${schema.$id}\``)
  })
})

describe('the examples of the library', () => {
  let peer: Awaited<ReturnType<typeof tcpPeer>>
  const at = (token: string) => ({ url: `http://127.0.0.1:${peer.port}`, token })

  beforeEach(async () => {
    peer = await tcpPeer({ groups: ['web', 'mail'] })
  })

  afterEach(() => peer.server.close())

  it('take a snapshot of every group, also where one is being taken', async () => {
    peer.answers['takeEpoch'] = async (group: unknown) => {
      if (group === 'mail') throw new DiapauseError('EPOCH_OPEN', 'one is open')
      return { epoch: 3, outcome: 'committed' }
    }
    expect(await snapshotAll(at(tokens.operate))).toEqual([
      'web: epoch 3 committed',
      'mail: one is being taken already'
    ])
    await expect(snapshotAll(at(tokens.view))).rejects.toMatchObject({ code: 'API_FORBIDDEN' })
  })

  it('hear of failovers as they happen, and of nothing else', async () => {
    const stop = new AbortController()
    const heard: string[] = []
    const watching = watchFailovers(at(tokens.view), ({ kind }) => heard.push(kind), stop.signal)
    await vi.waitFor(() => expect(peer.server.followers()).toBe(1))
    peer.events.emit('epoch.committed')
    peer.events.emit('takeover.decided')
    await vi.waitFor(() => expect(heard).toEqual(['takeover.decided']))
    stop.abort()
    await watching
  })

  it('check a definition without a peer', () => {
    expect(checkDefinition(readFileSync(join(root, 'config/examples/group.yaml'), 'utf8'))).toMatch(
      /^[a-z-]+: \d+ VMs with \d+ MiB$/
    )
    expect(checkDefinition('id: web\nvms: 3\n')).toMatch(/line 2/)
  })

  it('try a policy on what was recorded', () => {
    const epochs = Array.from({ length: 6 }, (_, at): SeenEpoch => epochAt(at))
    const now = { nowMs: 0, sinceMs: 0 }
    expect(next(epochs, now, { busyPages: 1 })?.atMs).toBe((epochs.at(-1)?.openedAtMs ?? 0) + 10_000)
    expect(next(epochs, now, { busyPages: 1 << 20 })?.atMs).toBe((epochs.at(-1)?.openedAtMs ?? 0) + 60_000)
    expect(tryOn(epochs)?.lossMs).toBeGreaterThan(tryOn(epochs)?.overhead ?? 1)
  })

  it('place VMs on hosts that are not bought yet', () => {
    expect(roomFor({ a: 600, b: 600, c: 600 }, { h1: 1_000, h2: 1_000 })).toMatchObject({
      homeless: [expect.any(String)]
    })
    expect(roomFor({ a: 600, b: 600 }, { h1: 1_000, h2: 1_000 })).toEqual({
      owners: { a: 'h1', b: 'h2' },
      homeless: []
    })
  })
})

const image = {
  pages: 16_384,
  pagesNonZero: 8_000,
  pagesChanged: 256,
  bytesRaw: 1 << 20,
  bytesData: 1 << 19,
  bytesStored: 1 << 20,
  inFlightFrames: 0
}

const epochAt = (at: number): SeenEpoch => ({
  group: 'web',
  generation: 1,
  epoch: at + 1,
  openedAtMs: 1_000_000 + at * 30_000,
  tookMs: 500,
  outcome: 'committed',
  vms: { vm1: { pauseMs: 20, durableMs: 300, image } }
})
