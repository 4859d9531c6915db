/** Disks that cannot be read, and a disk that does not let go of the socket: none of it may end the peer. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { blockServing } from '../../node/nbd/server.ts'
import type { BlockSource } from '../../node/ports.ts'
import { memoryLog } from '../contract/real-clock.ts'
import { leftRejected } from './left-rejected.ts'
import { bytesOf, opening, request } from './nbd-client.ts'

const KIB = 1_024

let folder: string
let socketPath: string
let log: ReturnType<typeof memoryLog>

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-'))
  socketPath = join(folder, 'disks')
  log = memoryLog()
})
afterEach(async () => await rm(folder, { recursive: true }))

describe('a server of disks', () => {
  it('answers a read of which a part has failed while the next was looked for, and lives on', async () => {
    const disk: BlockSource = {
      bytes: 256 * KIB,
      read: async () => {
        throw new Error('SHARD_LOST')
      },
      extents: async offset => {
        if (offset > 0) await pause(30)
        const [data, zeros] = [64 * KIB, 64 * KIB].map((length, i) => ({ length, zero: i === 1 }))
        return [data, zeros].flatMap(extent => extent ?? [])
      }
    }
    const server = await blockServing(log)(socketPath, new Map([['disk0', disk]]))
    const client = connect(socketPath)
    let answer = Buffer.alloc(0)
    client.on('data', chunk => {
      answer = Buffer.concat([answer, chunk])
    })
    const left = await leftRejected(async () => {
      client.write(Buffer.concat([opening('disk0'), request(0, { length: 256 * KIB })]))
      const errorAtTheEnd = bytesOf([4, 0x668e33ef], [2, 1], [2, 0x8001])
      await vi.waitFor(() => expect(answer.includes(errorAtTheEnd)).toBe(true))
    })
    expect(left).toEqual([])
    expect(log.lines.map(({ level, fields }) => [level, fields])).toContainEqual([
      'warn',
      expect.objectContaining({ disk: 'disk0', offset: 0, length: 64 * KIB })
    ])
    client.destroy()
    await server.close()
  })

  it('has closed, and says what it leaves, where its socket cannot be removed', async () => {
    const server = await blockServing(log)(socketPath, new Map())
    await rm(socketPath)
    await mkdir(socketPath) // nor can a socket be on a file system that has become read-only
    await server.close()
    expect(log.lines).toMatchObject([{ level: 'warn', fields: { socketPath } }])
  })
})
