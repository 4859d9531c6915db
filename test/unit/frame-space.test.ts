import { readdirSync, readlinkSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { FrameSpace } from '../../node/switch/spill.ts'
import type { Chunk } from '../../protocols/epoch/channel-queue.ts'
import { quietLog } from '../contract/real-clock.ts'

const CHUNK_BYTES = 256 * 1024

const chunkOf = (wanted: number): Chunk => ({
  bytes: new Uint8Array(CHUNK_BYTES),
  length: CHUNK_BYTES,
  holders: 1,
  wanted,
  broken: false
})

/** Files without a name that this process has there. */
const filesIn = (folder: string): number =>
  readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder)
    } catch {
      return false // closed meanwhile
    }
  }).length

it('a chunk that is on disk and was wanted until now is not written once more: its first place would never be given back', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'frames-'))
  try {
    const space = new FrameSpace({ directory: folder, memoryBytes: CHUNK_BYTES, diskBytes: 1 << 30, log: quietLog })
    const keeper = space.keeper()
    const held: Chunk[] = []
    const seal = (wanted: number): Chunk => {
      const chunk = chunkOf(wanted)
      expect(keeper.reserve(CHUNK_BYTES)).toBe(true)
      held.push(chunk)
      keeper.sealed(chunk)
      return chunk
    }
    const first = seal(0)
    seal(0)
    await expect.poll(() => space.diskBytes).toBe(2 * CHUNK_BYTES)
    first.wanted = 1
    await new Promise<void>(resolve => keeper.fetch(first, resolve))
    expect(first.bytes).toBeDefined()
    seal(0) // is being written from now on
    for (const chunk of [seal(1), seal(1)]) expect(chunk.bytes).toBeDefined()
    first.wanted = 0 // and nobody says so before that write ends
    await expect.poll(() => space.diskBytes).toBe(3 * CHUNK_BYTES)
    await expect.poll(() => first.bytes).toBeUndefined()
    await new Promise(resolve => setTimeout(resolve, 20))
    expect({ disk: space.diskBytes, memory: space.memoryBytes }).toEqual({
      disk: 3 * CHUNK_BYTES,
      memory: 2 * CHUNK_BYTES
    })
    for (const chunk of held) {
      chunk.holders = 0
      keeper.forget(chunk)
    }
    expect({ disk: space.diskBytes, memory: space.memoryBytes }).toEqual({ disk: 0, memory: 0 })
    await expect.poll(() => filesIn(folder)).toBe(0)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
